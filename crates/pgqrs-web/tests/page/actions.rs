//! What operators do on the page, in Chromium; and what nobody can do.

use axum::{
    Router,
    body::{Body, to_bytes},
    http::{Request, StatusCode, header},
};
use fantoccini::Locator;
use pgqrs::{MessageId, MessagePlace, MessageState, Store};
use pgqrs_web::Action;
use serde_json::json;
use sqlx::PgPool;
use tower::ServiceExt;

use crate::support::{Browser, TestResult, filled, serve, until};

pub(crate) fn all(store: &Store) -> Router {
    let page = pgqrs_web::page(store).actions(|_, _| true);
    page.operator(|_| "ada".to_owned()).router()
}

/// Follows the button with this text, says why, and confirms.
pub(crate) async fn act(browser: &Browser, button: &str, confirm: &str) -> TestResult {
    browser.click(Locator::LinkText(button)).await?;
    browser.shows("h1", "?").await;
    let why = browser.client.find(Locator::Id("why")).await?;
    why.send_keys("a test").await?;
    let confirm = format!("//main//form//button[normalize-space()='{confirm}']");
    browser.click(Locator::XPath(&confirm)).await?;
    browser.shows("h1", "Actions").await;
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn each_action_asks_first_and_is_logged_with_who_and_why(pool: PgPool) -> TestResult {
    let store = filled(&pool).await?;
    let admin = pgqrs::admin(&store);
    let served = serve(all(&store), "127.0.0.1:0").await?;
    let Some(browser) = Browser::start().await else {
        return Ok(());
    };
    let go = async |path: &str| browser.client.goto(&format!("{}{path}", served.url)).await;
    let outcome = async |text: &str| {
        browser.shows("tbody tr:first-child", text).await;
        browser.shows("tbody tr:first-child", "ada").await;
        browser.shows("tbody tr:first-child", "a test").await;
    };
    let place = async |id: i64| -> Option<MessagePlace> {
        let found = admin.message("emails", MessageId::from(id)).await;
        found.ok().flatten().map(|found| found.place)
    };

    go("/queues/emails").await?;
    act(&browser, "Pause the queue", "Pause the queue").await?;
    outcome("It is paused").await;
    assert!(admin.queue("emails").await?.is_paused);
    go("/queues/emails").await?;
    act(&browser, "Resume the queue", "Resume the queue").await?;
    assert!(!admin.queue("emails").await?.is_paused);

    go("/queues/emails/messages/2").await?;
    act(&browser, "Requeue", "Requeue").await?;
    outcome("It is back").await;
    assert!(matches!(
        place(2).await,
        Some(MessagePlace::Queued {
            state: MessageState::Ready,
            ..
        })
    ));
    go("/queues/emails/messages/4").await?;
    act(&browser, "Delete", "Delete").await?;
    assert_eq!(place(4).await, None);
    go("/queues/emails/messages/9").await?;
    act(&browser, "Cancel", "Cancel").await?;
    assert_eq!(place(9).await, None);

    go("/queues/emails/messages/10").await?;
    browser.click(Locator::LinkText("Edit the payload")).await?;
    let payload = browser.client.find(Locator::Id("payload")).await?;
    payload.clear().await?;
    payload
        .send_keys(r#"{"to": "other@example.com", "big": 12345678901234567890}"#)
        .await?;
    browser.picture("edit", 1_280).await?;
    browser.click(Locator::Css("main form button")).await?;
    browser
        .shows("tbody tr:first-child", "Its payload is replaced")
        .await;
    let edited = admin
        .message("emails", MessageId::from(10))
        .await?
        .expect("it is there");
    assert_eq!(
        edited.payload,
        r#"{"to": "other@example.com", "big": 12345678901234567890}"#
    );

    let delayed = admin
        .search("reports", MessageState::Delayed)
        .oldest_first()
        .await?;
    go(&format!("/queues/reports/messages/{}", delayed.items[1].id)).await?;
    browser.click(Locator::LinkText("Set the time")).await?;
    let due = delayed.items[1].visible_at.format("%Y-%m-%dT%H:%M:%S");
    let time = "return document.getElementById('time').value";
    assert_eq!(browser.run(time).await?, json!(due.to_string()));
    // As a person chooses it; typing depends on the language.
    browser
        .run("document.getElementById('time').value = '2100-01-31T09:30:15'")
        .await?;
    assert!(browser.violations().await?.is_empty());
    browser.picture("time", 1_280).await?;
    browser.click(Locator::Css("main form button")).await?;
    browser
        .shows("tbody tr:first-child", "Its time is set")
        .await;
    let moved = admin.message("reports", delayed.items[1].id).await?;
    let Some(MessagePlace::Queued { visible_at, .. }) = moved.map(|moved| moved.place) else {
        panic!("it waits");
    };
    assert_eq!(visible_at.to_rfc3339(), "2100-01-31T09:30:15+00:00");

    go(&format!("/queues/reports/messages/{}", delayed.items[0].id)).await?;
    act(&browser, "Run now", "Run now").await?;
    outcome("It is ready").await;

    go("/workers/1").await?;
    act(&browser, "Suspend", "Suspend").await?;
    go("/workers/1").await?;
    act(&browser, "Resume", "Resume").await?;
    go("/workers/1").await?;
    act(&browser, "Stop", "Stop").await?;
    outcome("It is stopped").await;

    go("/schedules/nightly-report").await?;
    act(&browser, "Send now", "Send now").await?;
    outcome("is sent").await;
    go("/schedules/nightly-report").await?;
    act(&browser, "Pause the schedule", "Pause the schedule").await?;
    go("/schedules/nightly-report").await?;
    act(&browser, "Resume the schedule", "Resume the schedule").await?;
    assert_eq!(admin.schedule("nightly-report").await?.paused_at, None);
    assert!(browser.violations().await?.is_empty());
    browser.picture("actions", 1_280).await?;
    browser.close().await
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn groups_are_shown_and_stopped_resumed_promoted_and_purged(pool: PgPool) -> TestResult {
    let store = filled(&pool).await?;
    let admin = pgqrs::admin(&store);
    let groups = pgqrs::Groups::default();
    let options = pgqrs::QueueOptions::builder().groups(groups).build();
    admin.configure_queue("emails", options).await?;
    let group = "a/<b>";
    let enqueue = pgqrs::enqueue().messages(&[1, 2, 3]).to("emails");
    let ids = enqueue.group(group).execute(&store).await?.to_vec();
    let served = serve(all(&store), "127.0.0.1:0").await?;
    let Some(browser) = Browser::start().await else {
        return Ok(());
    };
    let go = async |path: &str| browser.client.goto(&format!("{}{path}", served.url)).await;
    go("/").await?;
    browser.shows("tbody", "2 parked").await;
    go(&format!("/queues/emails/messages/{}", ids[1])).await?;
    browser.shows("article", "parked").await;
    browser.shows("article", group).await;

    go("/queues/emails/groups").await?;
    browser.shows("tbody tr:first-child", group).await;
    browser.picture("groups", 1_280).await?;
    browser.click(Locator::LinkText(group)).await?;
    let rows = "return document.querySelectorAll('article tbody tr, main tbody tr').length";
    until("only its parked messages", async || {
        browser.run(rows).await.is_ok_and(|rows| rows == json!(2))
    })
    .await;
    assert!(browser.violations().await?.is_empty());
    go("/queues/emails/groups").await?;
    act(&browser, "Stop the group", "Stop the group").await?;
    browser.shows("tbody tr:first-child", "It is stopped").await;
    let found = admin.group("emails", group).await?.expect("it is there");
    assert!(found.stopped_at.is_some());
    go("/queues/emails/groups?order=stopped").await?;
    browser
        .shows("tbody tr:first-child", "by an operator")
        .await;
    act(&browser, "Resume the group", "Resume the group").await?;
    admin.set_group_limit("emails", group, 2).await?;
    go("/queues/emails/groups").await?;
    act(&browser, "Promote", "Promote").await?;
    let found = admin.group("emails", group).await?.expect("it is there");
    assert_eq!((found.live, found.parked), (2, 1));
    go("/queues/emails/groups?order=oldest").await?;
    act(&browser, "Delete what is parked", "Delete what is parked").await?;
    browser
        .shows("tbody tr:first-child", "Deleted what was parked: 1")
        .await;
    let found = admin.group("emails", group).await?.expect("it is there");
    assert_eq!((found.live, found.parked), (2, 0));
    assert!(browser.violations().await?.is_empty());
    browser.close().await
}

async fn ask(
    router: &Router,
    request: Request<Body>,
) -> Result<(StatusCode, String, String), Box<dyn std::error::Error>> {
    let response = router.clone().oneshot(request).await?;
    let cookie = response.headers().get(header::SET_COOKIE);
    let cookie = cookie.map_or_else(String::new, |cookie| {
        cookie.to_str().unwrap_or_default().to_owned()
    });
    let status = response.status();
    let body = to_bytes(response.into_body(), usize::MAX).await?;
    Ok((status, cookie, String::from_utf8(body.to_vec())?))
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn nothing_is_done_without_permission_or_from_another_page(pool: PgPool) -> TestResult {
    let store = filled(&pool).await?;
    let admin = pgqrs::admin(&store);
    let page = pgqrs_web::page(&store).actions(|request, action| {
        request.headers.contains_key("x-admin") || action == Action::Requeue
    });
    let router = page.router();
    let (_, _, shown) = ask(
        &router,
        Request::get("/queues/emails/messages/2").body(Body::empty())?,
    )
    .await?;
    assert!(
        shown.contains("Requeue") && !shown.contains("Delete"),
        "{shown}"
    );
    let (_, _, shown) = ask(
        &router,
        Request::get("/queues/emails/messages/2")
            .header("x-admin", "1")
            .body(Body::empty())?,
    )
    .await?;
    assert!(shown.contains("Delete"));

    let form = "/act/pause-queue?queue=emails";
    let (refused, ..) = ask(&router, Request::get(form).body(Body::empty())?).await?;
    assert_eq!(refused, StatusCode::FORBIDDEN);
    let (status, cookie, body) = ask(
        &router,
        Request::get(form)
            .header("x-admin", "1")
            .body(Body::empty())?,
    )
    .await?;
    assert_eq!(status, StatusCode::OK);
    assert!(cookie.contains("HttpOnly; SameSite=Strict"), "{cookie}");
    let cookie = cookie.split(';').next().unwrap_or_default().to_owned();
    let token = body
        .split("name=\"token\" value=\"")
        .nth(1)
        .expect("a token");
    let token = token.split('"').next().expect("it ends");
    let post = |cookie: &str, token: &str, site: &str, is_admin: bool| {
        let mut request = Request::post("/act/pause-queue")
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(header::COOKIE, cookie)
            .header("sec-fetch-site", site);
        if is_admin {
            request = request.header("x-admin", "1");
        }
        request.body(Body::from(format!("queue=emails&token={token}")))
    };
    let other = "pgqrs_page=00000000000000000000000000000000";
    for (why, request) in [
        ("no cookie", post("", token, "same-origin", true)?),
        ("another's cookie", post(other, token, "same-origin", true)?),
        ("no token", post(&cookie, "", "same-origin", true)?),
        ("a wrong token", post(&cookie, "0", "same-origin", true)?),
        ("another site", post(&cookie, token, "cross-site", true)?),
        ("a neighbour", post(&cookie, token, "same-site", true)?),
        ("no permission", post(&cookie, token, "same-origin", false)?),
    ] {
        let (status, ..) = ask(&router, request).await?;
        assert_eq!(status, StatusCode::FORBIDDEN, "{why}");
    }
    assert!(!admin.queue("emails").await?.is_paused);
    let (done, ..) = ask(&router, post(&cookie, token, "same-origin", true)?).await?;
    assert_eq!(done, StatusCode::SEE_OTHER);
    assert!(admin.queue("emails").await?.is_paused);
    let (get, ..) = ask(
        &router,
        Request::get("/act/drop?queue=emails").body(Body::empty())?,
    )
    .await?;
    assert_eq!(get, StatusCode::NOT_FOUND);
    Ok(())
}
