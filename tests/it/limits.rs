//! What limits a single message: its own number of attempts, and the time by which it must have been started.

use std::time::Duration;

use pgqrs::{Delivery, MessageId, Page, QueueOptions, Store};
use serde_json::Value;
use sqlx::PgPool;

use crate::support::{
    TestResult, claim,
    consumers::{consumer, start},
    expire, newcomer,
    notes::Notes,
    one, places, send, until, with_queues,
};

async fn with_attempts(pool: &PgPool, attempts: u32) -> pgqrs::Result<Store> {
    let store = with_queues(pool, &["tasks"]).await?;
    let options = QueueOptions::builder().max_attempts(attempts).build();
    let admin = pgqrs::admin(&store);
    admin.configure_queue("tasks", options).await?;
    Ok(store)
}

async fn set_attempts(pool: &PgPool, id: MessageId, attempts: i32) -> TestResult {
    sqlx::query("update pgqrs.messages set max_attempts = $2 where id = $1")
        .bind(id.get())
        .bind(attempts)
        .execute(pool)
        .await?;
    Ok(())
}

/// Since a second ago.
async fn set_expired(pool: &PgPool, id: MessageId, is_dropped: bool) -> TestResult {
    sqlx::query(
        "update pgqrs.messages set expires_at = now() - interval '1 second', drop_if_expired = $2
         where id = $1",
    )
    .bind(id.get())
    .bind(is_dropped)
    .execute(pool)
    .await?;
    Ok(())
}

/// The id, attempt and reason of each dead letter.
async fn dead(store: &Store) -> pgqrs::Result<Vec<(MessageId, u32, String)>> {
    let dead = pgqrs::admin(store)
        .dead_letters("tasks", Page::default())
        .await?;
    Ok(dead
        .into_iter()
        .map(|dead| (dead.id, dead.attempt, dead.reason))
        .collect())
}

const USED_UP: &str = "attempts used up";

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_messages_own_number_of_attempts_overrides_that_of_its_queue(pool: PgPool) -> TestResult {
    let store = with_attempts(&pool, 2).await?;
    let ids = send(&store, &[1, 2, 3]).await?;
    set_attempts(&pool, ids[0], 1).await?;
    set_attempts(&pool, ids[1], 3).await?;
    let mut limits = Vec::new();
    for _ in 0..3 {
        for delivery in claim(&store, 3).await? {
            limits.push((delivery.attempt(), delivery.max_attempts()));
            delivery.retry_in(Duration::ZERO, &store).await?;
        }
    }
    assert_eq!(limits, [(1, 1), (1, 3), (1, 2), (2, 3), (2, 2), (3, 3)]);
    let expected = [(ids[0], 1), (ids[1], 3), (ids[2], 2)];
    let expected = expected.map(|(id, attempt)| (id, attempt, USED_UP.to_owned()));
    assert_eq!(dead(&store).await?, expected);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn it_counts_for_one_whose_consumers_crash(pool: PgPool) -> TestResult {
    let store = with_attempts(&pool, 2).await?;
    let ids = send(&store, &[1, 2]).await?;
    set_attempts(&pool, ids[0], 1).await?;
    set_attempts(&pool, ids[1], 3).await?;
    let (notes, _guard) = Notes::start();
    for attempt in 1..=4 {
        let claimed = claim(&newcomer(&pool), 10).await?;
        let claimed: Vec<_> = claimed.iter().map(Delivery::id).collect();
        match attempt {
            1 => assert_eq!(claimed, *ids),
            2 | 3 => assert_eq!(claimed, ids[1..]),
            _ => assert!(claimed.is_empty()),
        }
        for id in claimed {
            expire(&pool, id).await?;
        }
    }
    let expected = [(ids[0], 1), (ids[1], 3)];
    let letters = expected.map(|(id, attempt)| (id, attempt, USED_UP.to_owned()));
    assert_eq!(dead(&store).await?, letters);
    let lines = expected.map(|(id, attempts)| {
        format!(
            "ERROR message moved to the dead letters queue=\"tasks\" message_id={id} attempt={attempts} \
             max_attempts={attempts} reason=\"attempts used up\" \
             error=\"its last delivery was not settled: the consumer crashed, its lease ran out, or its handler was aborted\""
        )
    });
    assert_eq!(notes.lines("dead letters"), lines);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn it_is_in_each_event_about_the_message(pool: PgPool) -> TestResult {
    let store = with_attempts(&pool, 20).await?;
    let id = send(&store, &[1]).await?[0];
    set_attempts(&pool, id, 2).await?;
    let (notes, _guard) = Notes::start();
    let running = start(
        consumer().create(&store).await?,
        async |_: Delivery<Value>| Err::<(), _>("not today"),
    );
    until("it is a dead letter", async || {
        places(&pool).await.expect("counted") == (0, 1, 0)
    })
    .await;
    notes.until("dead letters", 1).await;
    running.stop().await?;
    let lines = [notes.lines("attempt failed"), notes.lines("dead letters")].concat();
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(
        lines.iter().all(|line| line.contains(" max_attempts=2 ")),
        "{lines:?}"
    );
    // The last one isn't announced as one that is followed by another.
    assert!(lines[0].contains("retry_in") && !lines[1].contains("retry_in"));
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_message_that_was_not_started_in_time_is_never_delivered(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let ids = send(&store, &[1, 2, 3]).await?;
    set_expired(&pool, ids[0], false).await?;
    set_expired(&pool, ids[1], true).await?;
    let (notes, _guard) = Notes::start();
    // One claim finds both, and the one behind them.
    assert_eq!(one(&store).await?.id(), ids[2]);
    assert_eq!(places(&pool).await?, (1, 1, 0));
    assert_eq!(dead(&store).await?, [(ids[0], 0, "expired".to_owned())]);
    let about = |id| format!("queue=\"tasks\" message_id={id} attempt=0 max_attempts=20");
    let (first, second) = (about(ids[0]), about(ids[1]));
    assert_eq!(
        notes.lines("attempt=0"),
        [
            format!("ERROR message moved to the dead letters {first} reason=\"expired\""),
            format!("INFO  message expired: it was dropped, as its sender asked {second}"),
        ]
    );
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_message_that_was_started_in_time_is_retried_after_it(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let id = send(&store, &[1]).await?[0];
    let started = one(&store).await?;
    set_expired(&pool, id, true).await?;
    started.retry_in(Duration::ZERO, &store).await?;
    let again = one(&store).await?;
    assert_eq!((again.id(), again.attempt()), (id, 2));
    expire(&pool, id).await?;
    assert_eq!(one(&newcomer(&pool)).await?.attempt(), 3);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_message_that_was_only_put_off_expires(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let id = send(&store, &[1]).await?[0];
    one(&store).await?.later(Duration::ZERO, &store).await?;
    set_expired(&pool, id, false).await?;
    assert!(claim(&store, 10).await?.is_empty());
    assert_eq!(dead(&store).await?, [(id, 0, "expired".to_owned())]);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn one_that_is_requeued_does_not_expire_again_and_keeps_its_number_of_attempts(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let id = send(&store, &[1]).await?[0];
    set_attempts(&pool, id, 7).await?;
    set_expired(&pool, id, true).await?;
    let admin = pgqrs::admin(&store);
    let listed = &admin.messages("tasks", Page::default()).await?[0];
    assert!(listed.expires_at.is_some() && listed.max_attempts == Some(7));
    set_expired(&pool, id, false).await?;
    assert!(claim(&store, 10).await?.is_empty());
    let listed = &admin.dead_letters("tasks", Page::default()).await?[0];
    assert_eq!((&*listed.reason, listed.max_attempts), ("expired", Some(7)));
    assert!(admin.requeue("tasks", id).await?.back == 1);
    let listed = &admin.messages("tasks", Page::default()).await?[0];
    assert_eq!((listed.expires_at, listed.max_attempts), (None, Some(7)));
    let delivery = one(&store).await?;
    assert_eq!((delivery.id(), delivery.max_attempts()), (id, 7));
    Ok(())
}
