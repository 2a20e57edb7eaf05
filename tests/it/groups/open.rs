//! Transactions that hold groups and stay open.

use std::sync::{Arc, Mutex};

use pgqrs::Outcome;
use tokio::task::JoinSet;

use super::*;
use crate::support::consumers::consumer;

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_sender_s_open_transaction_holds_up_its_own_group_only(pool: PgPool) -> TestResult {
    let store = with_groups(&pool, Groups::default()).await?;
    for payload in 1..=3 {
        send(&store, "held", payload).await?;
        for group in 0..20 {
            send(&store, &format!("free-{group}"), payload).await?;
        }
    }
    let mut tx = store.begin().await?;
    let enqueue = pgqrs::enqueue().message(&4).to("tasks").group("held");
    enqueue.execute(&mut tx).await?;
    let handled = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&handled);
    let registered = consumer().concurrency(4).create(&store).await?;
    let running = crate::support::consumers::start(registered, move |delivery: Delivery<Value>| {
        let seen = Arc::clone(&seen);
        async move {
            let group = delivery.group().unwrap_or_default().to_owned();
            let mut seen = seen.lock().expect("no panic");
            seen.push((group, number(&delivery)));
            Outcome::Done
        }
    });
    // The first of the held group is handled, and can't be settled; all others are done.
    until("the other groups are done", async || {
        let left = "select count(*) from pgqrs.messages where group_key <> 'held'";
        let left: i64 = sqlx::query_scalar(left)
            .fetch_one(&pool)
            .await
            .expect("a count");
        left == 0
    })
    .await;
    let of_held = || {
        let handled = handled.lock().expect("no panic");
        let held = handled.iter().filter(|(group, _)| group == "held");
        held.map(|(_, number)| *number).collect::<Vec<_>>()
    };
    assert_eq!(of_held(), [1]);
    tx.commit().await?;
    until("the held group goes on", async || {
        count(&pool).await.is_ok_and(|left| left == 0)
    })
    .await;
    assert_eq!(of_held(), [1, 2, 3, 4], "each once");
    let report = running.stop().await?;
    assert_eq!((report.done, report.lost, report.unknown), (64, 0, 0));
    assert_counted(&pool).await
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_send_waits_for_an_open_transaction_of_its_group_and_not_for_ever(
    pool: PgPool,
) -> TestResult {
    let store = with_groups(&pool, Groups::default()).await?;
    let mut tx = store.begin().await?;
    let enqueue = pgqrs::enqueue().message(&1).to("tasks").group("held");
    enqueue.execute(&mut tx).await?;
    let mut sending = JoinSet::new();
    for place in 0..20 {
        let store = store.clone();
        sending.spawn(async move {
            let group = if place == 7 { "held" } else { "free" };
            (group, send(&store, group, place).await)
        });
    }
    while let Some(sent) = sending.join_next().await {
        let (group, sent) = sent?;
        match sent {
            Ok(_) => assert_eq!(group, "free"),
            Err(error) => {
                assert!(matches!(error, Error::KeyHeld { .. }), "{error}");
                assert_eq!(group, "held");
                assert!(error.is_retryable());
            }
        }
    }
    assert_eq!(count(&pool).await?, 19);
    tx.rollback().await?;
    send(&store, "held", 1).await?;
    assert_counted(&pool).await
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn what_was_parked_while_a_settlement_waited_is_let_in_by_it(pool: PgPool) -> TestResult {
    let store = with_groups(&pool, Groups::default()).await?;
    send(&store, "a", 1).await?;
    let first = one(&store).await?;
    let mut tx = store.begin().await?;
    let enqueue = pgqrs::enqueue().message(&2).to("tasks").group("a");
    enqueue.execute(&mut tx).await?;
    let settling = tokio::spawn({
        let store = store.clone();
        async move { first.ack(&store).await }
    });
    until("it waits for the sender", async || {
        let waits = "select count(*) from pg_stat_activity
                     where datname = current_database() and wait_event_type = 'Lock'";
        let waits: i64 = sqlx::query_scalar(waits)
            .fetch_one(&pool)
            .await
            .expect("a count");
        waits > 0
    })
    .await;
    tx.commit().await?;
    settling.await??;
    assert_counted(&pool).await?;
    assert_eq!(numbers(&ready(&store).await?), [2]);
    Ok(())
}
