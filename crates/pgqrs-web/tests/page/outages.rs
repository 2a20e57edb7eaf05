//! Servers that go away and come back while the page is open.

use sqlx::PgPool;

use crate::support::{Browser, TestResult, filled, serve};

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn while_the_server_is_away_the_page_says_so_and_recovers(pool: PgPool) -> TestResult {
    let store = filled(&pool).await?;
    let router = pgqrs_web::router(&store);
    let served = serve(router.clone(), "127.0.0.1:0").await?;
    let Some(browser) = Browser::start().await else {
        return Ok(());
    };
    browser.client.goto(&served.url).await?;
    browser.shows("main", "emails").await;
    let (url, address) = (served.url.clone(), served.url.replace("http://", ""));
    drop(served);
    browser
        .shows("#away", "The server can't be reached since")
        .await;
    browser.shows("main", "emails").await;
    assert!(browser.violations().await?.is_empty());
    browser.picture("server-away", 1_280).await?;
    let served = serve(router, &address).await?;
    assert_eq!(served.url, url);
    browser.shows("#fresh", "Updated").await;
    assert_eq!(browser.text("#away").await, "");
    browser.close().await
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn while_the_database_does_not_answer_the_page_says_so_and_recovers(
    pool: PgPool,
) -> TestResult {
    let store = filled(&pool).await?;
    let served = serve(pgqrs_web::router(&store), "127.0.0.1:0").await?;
    let Some(browser) = Browser::start().await else {
        return Ok(());
    };
    browser
        .client
        .goto(&format!("{}/workers", served.url))
        .await?;
    browser.shows("main", "mail-1.example.com").await;
    let mut locking = pool.begin().await?;
    sqlx::query("lock table pgqrs.workers in access exclusive mode")
        .execute(&mut *locking)
        .await?;
    browser.shows("#away", "No answer from the database").await;
    browser.shows("main", "mail-1.example.com").await;
    locking.rollback().await?;
    browser.shows("#fresh", "Updated").await;
    assert_eq!(browser.text("#away").await, "");
    browser.close().await
}
