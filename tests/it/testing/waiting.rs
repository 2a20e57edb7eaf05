//! Waiting until all is handled, and a PostgreSQL of the test run's own.

use std::time::Duration;

use pgqrs::{
    Delivery, Error, Outcome, RetryPolicy, SchemaVersion,
    testing::{NotEmpty, postgres, refute_enqueued, wait_until_empty},
};
use sqlx::PgPool;

use super::{EMAILS, Email, email, send, store};
use crate::support::TestResult;

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn it_returns_once_the_consumer_has_handled_all(pool: PgPool) -> TestResult {
    let store = store(pool.clone()).await?;
    let emails: Vec<_> = (0..50).map(|number| email(&number.to_string())).collect();
    pgqrs::enqueue()
        .messages(&emails)
        .to(EMAILS)
        .execute(&store)
        .await?;
    let consumer = pgqrs::consumer(EMAILS).create(&store).await?;
    let handle = consumer.handle();
    let run = tokio::spawn(async move { consumer.run(send).await });
    wait_until_empty(&pool, EMAILS, Duration::from_secs(30)).await?;
    refute_enqueued!(&store, EMAILS);
    handle.stop();
    assert_eq!(run.await??.done, 50);
    Ok(())
}

async fn busy(_: Delivery<Email>) -> Outcome {
    Outcome::Retry("no route".to_owned())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn after_the_time_out_the_error_says_what_is_left(pool: PgPool) -> TestResult {
    let store = store(pool).await?;
    pgqrs::enqueue()
        .message(&email("ada"))
        .to(EMAILS)
        .execute(&store)
        .await?;
    let consumer = pgqrs::consumer(EMAILS).create(&store).await?;
    let handle = consumer.handle();
    let hour = RetryPolicy::fixed(Duration::from_secs(3_600));
    let run = tokio::spawn(consumer.run(busy).retry(hour));
    crate::support::until("it has failed", async || {
        let stats = pgqrs::admin(&store).queue_stats(EMAILS).await;
        stats.is_ok_and(|stats| stats.delayed == 1)
    })
    .await;
    let left = wait_until_empty(&store, EMAILS, Duration::ZERO).await;
    let error = left.expect_err("it waits for its retry");
    let text = error.to_string();
    assert!(
        text.starts_with(
            "after 0ns, queue `emails` still has 1 message and 0 dead letters\n  message "
        ),
        "{text}"
    );
    assert!(text.contains(", delayed by 00:"), "{text}");
    assert!(
        text.ends_with(r#", attempt 1, no route: {"to":"ada"}"#),
        "{text}"
    );
    handle.stop();
    run.await??;
    let missing = wait_until_empty(&store, "invoices", Duration::ZERO).await;
    assert!(
        matches!(missing, Err(NotEmpty::Pgqrs(Error::QueueNotFound { .. }))),
        "{missing:?}"
    );
    Ok(())
}

#[tokio::test]
async fn each_database_of_the_runs_own_postgres_is_new_and_has_the_schema() -> TestResult {
    let (one, other) = (postgres().await?, postgres().await?);
    assert_ne!(one.url(), other.url());
    for database in [&one, &other] {
        database.store().queue(EMAILS).await?;
    }
    let ada = pgqrs::enqueue().message(&email("ada")).to(EMAILS);
    ada.execute(&one.store()).await?;
    refute_enqueued!(&other.store(), EMAILS);
    let version = pgqrs::admin(&one.store()).verify().await?;
    assert!(matches!(version, SchemaVersion::UpToDate { .. }));
    Ok(())
}
