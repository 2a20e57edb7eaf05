//! Time that passes in a test.

use std::time::Duration;

use pgqrs::{
    Delivery, Outcome, cron,
    testing::{advance, assert_enqueued, drain, enqueued, refute_enqueued},
};
use sqlx::PgPool;

use super::{EMAILS, Email, email, send, store};
use crate::support::TestResult;

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn delays_come_nearer_by_what_time_passes(pool: PgPool) -> TestResult {
    let store = store(pool).await?;
    let mut tx = store.begin().await?;
    let later = pgqrs::enqueue()
        .message(&email("ada"))
        .to(EMAILS)
        .delay(3_600);
    later.execute(&mut tx).await?;
    advance(&mut tx, Duration::from_secs(3_500)).await?;
    assert!(drain(&mut tx, EMAILS, send).await?.done.is_empty());
    let waits = assert_enqueued!(tx, EMAILS);
    assert_eq!(waits.delay, Duration::from_secs(3_600), "as it was sent");
    advance(&mut tx, Duration::from_secs(100)).await?;
    assert_eq!(drain(&mut tx, EMAILS, send).await?.done.len(), 1);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn retries_come_after_their_wait(pool: PgPool) -> TestResult {
    let store = store(pool).await?;
    let mut tx = store.begin().await?;
    pgqrs::enqueue()
        .message(&email("ada"))
        .to(EMAILS)
        .execute(&mut tx)
        .await?;
    let busy = |delivery: Delivery<Email>| async move {
        match delivery.attempt() {
            1 => Outcome::RetryIn(Duration::from_secs(600), "busy".to_owned()),
            _ => Outcome::Done,
        }
    };
    assert_eq!(drain(&mut tx, EMAILS, busy).await?.failed.len(), 1);
    assert_eq!(drain(&mut tx, EMAILS, busy).await?.done.len(), 0);
    advance(&mut tx, Duration::from_secs(601)).await?;
    assert_eq!(drain(&mut tx, EMAILS, busy).await?.done.len(), 1);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_message_expires_and_a_key_is_free_after_its_time(pool: PgPool) -> TestResult {
    let store = store(pool).await?;
    let mut tx = store.begin().await?;
    let hour = Duration::from_secs(3_600);
    let expires = pgqrs::enqueue()
        .message(&email("ada"))
        .to(EMAILS)
        .expires_in(hour);
    let ids = expires.execute(&mut tx).await?;
    advance(&mut tx, 2 * hour).await?;
    let drained = drain(&mut tx, EMAILS, send).await?;
    assert_eq!((drained.done.len(), drained.dead), (0, vec![ids[0]]));
    let once = async |tx: &mut pgqrs::Transaction| {
        let once = pgqrs::enqueue().message(&email("bob")).to(EMAILS);
        once.once_within("bob", hour).execute(tx).await
    };
    let first = once(&mut tx).await?;
    drain(&mut tx, EMAILS, send).await?;
    assert_eq!(once(&mut tx).await?[0], first[0]);
    refute_enqueued!(tx, EMAILS);
    advance(&mut tx, hour).await?;
    once(&mut tx).await?;
    assert_eq!(enqueued(&mut tx, EMAILS).await?.len(), 1);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_schedule_sends_its_message_each_time_its_time_passes(pool: PgPool) -> TestResult {
    let store = store(pool.clone()).await?;
    let daily = pgqrs::schedule("welcome", EMAILS).cron(cron!("0 9 * * *"));
    daily.message(&email("ada")).install(&store).await?;
    let next = "select next_at::text from pgqrs.schedules";
    let before: String = sqlx::query_scalar(next).fetch_one(&pool).await?;
    let mut tx = store.begin().await?;
    let day = Duration::from_secs(24 * 3_600);
    for _ in 0..3 {
        refute_enqueued!(tx, EMAILS);
        assert!(drain(&mut tx, EMAILS, send).await?.done.is_empty());
        advance(&mut tx, day).await?;
        assert_eq!(drain(&mut tx, EMAILS, send).await?.done.len(), 1);
    }
    tx.rollback().await?;
    let after: String = sqlx::query_scalar(next).fetch_one(&pool).await?;
    assert_eq!(after, before);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn what_another_transaction_has_locked_is_not_waited_for(pool: PgPool) -> TestResult {
    let store = store(pool.clone()).await?;
    let later = pgqrs::enqueue().message(&email("ada")).to(EMAILS).delay(60);
    later.execute(&store).await?;
    let (mut one, mut other) = (store.begin().await?, store.begin().await?);
    advance(&mut one, Duration::from_secs(60)).await?;
    advance(&mut other, Duration::from_secs(60)).await?;
    assert_eq!(drain(&mut one, EMAILS, send).await?.done.len(), 1);
    assert_eq!(drain(&mut other, EMAILS, send).await?.done.len(), 0);
    Ok(())
}
