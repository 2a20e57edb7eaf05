//! All that match, in Chromium: previewed, changed in the background, stopped.

use fantoccini::Locator;
use pgqrs::{MessageState, chrono};
use sqlx::PgPool;

use crate::{
    actions::all,
    support::{Browser, TestResult, filled, serve},
};

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn all_that_match_are_changed_in_the_background_and_it_can_be_stopped(
    pool: PgPool,
) -> TestResult {
    let store = filled(&pool).await?;
    let admin = pgqrs::admin(&store);
    let many = "insert into pgqrs.dead_letters (queue_id, id, priority, enqueued_at, attempt, payload, reason)
                select q.id, 1000000 + n, 2, now(), 20, '{}', case when n % 3 = 0 then 'expired' else 'boom' end
                from pgqrs.queues q, generate_series(1, 30000) n where q.name = 'invoices'";
    sqlx::query(many).execute(&pool).await?;
    let served = serve(all(&store), "127.0.0.1:0").await?;
    let Some(browser) = Browser::start().await else {
        return Ok(());
    };
    let expired = format!("{}/queues/invoices/dead?reason=expired", served.url);
    browser.client.goto(&expired).await?;
    browser
        .click(Locator::LinkText("Requeue all that match…"))
        .await?;
    browser.shows("#count", "10,000").await;
    browser.shows("#conditions", "reason expired").await;
    browser.picture("all-that-match", 1_280).await?;
    browser.click(Locator::Css("main form button")).await?;
    browser.shows("tbody tr:first-child", "Done: 10,000").await;
    assert_eq!(admin.queue_stats("invoices").await?.ready.value, 10_000);
    assert!(
        admin
            .search_dead_letters("invoices")
            .reason("expired")
            .await?
            .items
            .is_empty()
    );

    // A lock holds it up until it was asked to stop.
    let mut locking = pool.begin().await?;
    let lock = "select from pgqrs.dead_letters where id = 1015001 for update";
    sqlx::query(lock).execute(&mut *locking).await?;
    let boom = format!("{}/queues/invoices/dead?reason=boom", served.url);
    browser.client.goto(&boom).await?;
    browser
        .click(Locator::LinkText("Delete all that match…"))
        .await?;
    browser.shows("#count", "10,000+").await;
    browser.click(Locator::Css("main form button")).await?;
    browser.shows("tbody tr:first-child", "9,000 so far").await;
    browser.click(Locator::LinkText("Stop")).await?;
    browser.click(Locator::Css("main form button")).await?;
    browser.shows("h1", "Actions").await;
    locking.rollback().await?;
    // The chunk that was held up is finished, and the others are left.
    browser
        .shows("tbody tr:first-child", "Stopped: 10,000")
        .await;
    let left = admin
        .search_dead_letters("invoices")
        .reason("boom")
        .limit(10_000)
        .await?;
    assert_eq!((left.items.len(), left.is_cut), (10_000, false));
    browser.close().await
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn messages_that_match_are_moved_run_and_cancelled_all_at_once(pool: PgPool) -> TestResult {
    let store = filled(&pool).await?;
    let admin = pgqrs::admin(&store);
    for tenant in ["acme", "zeta"] {
        let messages: Vec<u32> = (0..1_500).collect();
        let later = pgqrs::enqueue().messages(&messages).delay(3_600);
        let later = later.header("tenant", tenant).to("invoices");
        later.execute(&store).await?;
    }
    let served = serve(all(&store), "127.0.0.1:0").await?;
    let Some(browser) = Browser::start().await else {
        return Ok(());
    };
    let begin = async |state: &str, button: &str, count: &str| -> TestResult {
        let list = format!(
            "{}/queues/invoices?state={state}&header=tenant:acme",
            served.url
        );
        browser.client.goto(&list).await?;
        let button = format!("{button} all that match…");
        browser.click(Locator::LinkText(&button)).await?;
        browser.shows("#count", count).await;
        Ok(())
    };
    let confirm = async |outcome: &str| -> TestResult {
        browser.click(Locator::Css("main form button")).await?;
        browser.shows("tbody tr:first-child", outcome).await;
        Ok(())
    };
    begin("delayed", "Set the time of", "1,500").await?;
    browser
        .run("document.getElementById('time').value = '2100-01-31T09:30'")
        .await?;
    confirm("Done: 1,500").await?;
    let of_acme = async |state: MessageState| {
        let search = admin.search("invoices", state).header("tenant", "acme");
        search.limit(10_000).await.map(|found| found.items)
    };
    let moved = of_acme(MessageState::Delayed).await?;
    assert_eq!(moved.len(), 1_500);
    let is_moved =
        |time: chrono::DateTime<chrono::Utc>| time.to_rfc3339() == "2100-01-31T09:30:00+00:00";
    assert!(moved.iter().all(|message| is_moved(message.visible_at)));

    begin("delayed", "Run now", "1,500").await?;
    confirm("Done: 1,500").await?;
    assert_eq!(of_acme(MessageState::Ready).await?.len(), 1_500);
    begin("ready", "Cancel", "1,500").await?;
    confirm("Done: 1,500").await?;
    assert!(of_acme(MessageState::Ready).await?.is_empty());
    let stats = admin.queue_stats("invoices").await?;
    assert_eq!(
        (stats.ready.value, stats.delayed.value),
        (0, 1_500),
        "others are left"
    );
    browser.close().await
}
