//! Operators who act at the same time, or with the keyboard alone.

use fantoccini::{Locator, key::Key};
use serde_json::json;
use sqlx::PgPool;

use crate::{
    actions::{act, all},
    support::{Browser, TestResult, filled, serve},
};

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn two_operators_at_once_see_what_the_other_has_done(pool: PgPool) -> TestResult {
    let store = filled(&pool).await?;
    let admin = pgqrs::admin(&store);
    let served = serve(all(&store), "127.0.0.1:0").await?;
    let Some(one) = Browser::start().await else {
        return Ok(());
    };
    let other = Browser::start().await.expect("the first one has started");
    let letter = format!("{}/queues/emails/messages/2", served.url);
    for browser in [&one, &other] {
        browser.client.goto(&letter).await?;
        browser.click(Locator::LinkText("Requeue")).await?;
        browser.shows("h1", "Requeue?").await;
    }
    let confirm = "main form button";
    let of_one = one.client.find(Locator::Css(confirm)).await?;
    let of_other = other.client.find(Locator::Css(confirm)).await?;
    // Each has a form of its own, and only one of them does it.
    let (first, second) = tokio::join!(of_one.click(), of_other.click());
    first?;
    second?;
    for browser in [&one, &other] {
        browser.shows("tbody tr:nth-child(2)", "Requeue").await;
        browser.shows("tbody", "It is back").await;
        browser
            .shows("tbody", "It is no dead letter any more")
            .await;
    }
    assert_eq!(admin.queue_stats("emails").await?.dead.value, 2);

    // What one does, the other sees without doing anything.
    other
        .client
        .goto(&format!("{}/queues/emails", served.url))
        .await?;
    other.run("window.sameDocument = true").await?;
    one.client
        .goto(&format!("{}/queues/emails", served.url))
        .await?;
    act(&one, "Pause the queue", "Pause the queue").await?;
    other.shows(".head", "paused").await;
    other.shows(".head", "Resume the queue").await;
    assert_eq!(other.run("return window.sameDocument").await?, json!(true));
    one.close().await?;
    other.close().await
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn an_action_is_done_with_the_keyboard_alone(pool: PgPool) -> TestResult {
    let store = filled(&pool).await?;
    let served = serve(all(&store), "127.0.0.1:0").await?;
    let Some(browser) = Browser::start().await else {
        return Ok(());
    };
    let press = async |keys: &str| -> TestResult {
        loop {
            let focused = browser.client.active_element().await?;
            match focused.send_keys(keys).await {
                // The page was replaced meanwhile, by the one that it leads to or by what is new on it.
                Err(error) if error.is_stale_element_reference() => {}
                pressed => return Ok(pressed?),
            }
        }
    };
    let [tab, enter] = [Key::Tab, Key::Enter].map(|key| String::from(char::from(key)));
    let active =
        "const active = document.activeElement; return active.textContent.trim() || active.id";
    let reach = async |what: &str| -> TestResult {
        for _ in 0..30 {
            press(&tab).await?;
            if browser.run(active).await? == json!(what) {
                return Ok(());
            }
        }
        panic!("{what} is never reached");
    };
    browser
        .client
        .goto(&format!("{}/queues/emails/dead", served.url))
        .await?;
    reach("mailbox full").await?;
    press(&enter).await?;
    browser.shows(".order", "mailbox full").await;
    reach("Requeue all that match…").await?;
    press(&enter).await?;
    browser.shows("#count", "1").await;
    reach("why").await?;
    press("by hand").await?;
    reach("Requeue").await?;
    press(&enter).await?;
    browser.shows("tbody tr:first-child", "Done: 1").await;
    browser.shows("tbody tr:first-child", "by hand").await;
    browser.close().await
}
