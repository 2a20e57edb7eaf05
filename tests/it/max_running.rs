//! A limit of how many messages of a queue run at a time, over all consumers.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use pgqrs::{Delivery, Error, Outcome, QueueOptions, Store, Unchecked, WorkerFilter};
use serde_json::Value;
use sqlx::PgPool;
use tokio::sync::Barrier;

use crate::support::{
    TestResult, claim, connect,
    consumers::{drained, prepare, start},
    expire, one, until, with_queues,
};

/// The queue `tasks`, of which this many messages run at a time.
async fn limited(pool: &PgPool, most: u32) -> pgqrs::Result<Store> {
    let store = with_queues(pool, &["tasks", "others"]).await?;
    limit(pool, most).await?;
    Ok(store)
}

/// As the owner of the schema, who alone may.
async fn limit(pool: &PgPool, most: impl Into<Option<u32>>) -> pgqrs::Result<()> {
    let most = most.into();
    let options = QueueOptions::builder().max_running(most).build();
    let owner = Store::from(pool.clone());
    let queue = pgqrs::admin(&owner)
        .configure_queue("tasks", options)
        .await?;
    assert_eq!(queue.max_running, most);
    Ok(())
}

async fn send(store: &Store, messages: usize) -> pgqrs::Result<()> {
    let payloads: Vec<_> = (0..messages).collect();
    let enqueue = pgqrs::enqueue().messages(&payloads).to("tasks");
    enqueue.execute(store).await?;
    Ok(())
}

async fn claimed(store: &Store) -> pgqrs::Result<Vec<Delivery<Value, Unchecked>>> {
    claim(store, 100).await
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn no_more_are_claimed_than_the_limit_says(pool: PgPool) -> TestResult {
    let store = limited(&pool, 3).await?;
    let elsewhere = connect(&pool).await?;
    send(&store, 20).await?;
    let mut held = claimed(&store).await?;
    assert_eq!(held.len(), 3);
    assert!(claimed(&elsewhere).await?.is_empty());
    // Each end of a lease returns its slot at once.
    for how in [
        "ack", "archive", "retry", "later", "dead", "cancel", "expired",
    ] {
        let delivery = held.pop().expect("one is held");
        let id = delivery.id();
        match how {
            "ack" => delivery.ack(&store).await?,
            "archive" => delivery.archive(&store).await?,
            "retry" => delivery.retry_in(Duration::from_secs(3600), &store).await?,
            "later" => delivery.later(Duration::from_secs(3600), &store).await?,
            "dead" => delivery.dead_letter("no use", &store).await?,
            "cancel" => {
                let cancelled = pgqrs::admin(&store).cancel("tasks", id).await?;
                assert!(cancelled.is_some());
            }
            _ => expire(&pool, id).await?,
        }
        let next = claimed(&elsewhere).await?;
        assert_eq!(next.len(), 1, "{how}");
        held.extend(next);
        assert!(claimed(&store).await?.is_empty(), "{how}");
    }
    // A lease that has run out is lost with its slot, however late its consumer extends it.
    let late = held.remove(0);
    expire(&pool, late.id()).await?;
    let next = claimed(&elsewhere).await?;
    assert_eq!(next.len(), 1);
    held.extend(next);
    let lost = late.extend(Duration::from_secs(60)).await;
    assert!(matches!(lost, Err(Error::LeaseLost { .. })), "{lost:?}");
    // A lease that is extended keeps its slot.
    held[0].extend(Duration::from_secs(3600)).await?;
    assert!(claimed(&store).await?.is_empty());
    // Other queues don't count.
    pgqrs::enqueue()
        .message(&1)
        .to("others")
        .execute(&store)
        .await?;
    let other: Vec<Delivery<Value, Unchecked>> =
        pgqrs::dequeue().from("others").execute(&store).await?;
    assert_eq!(other.len(), 1);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_limit_is_changed_and_removed_while_messages_run(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    send(&store, 20).await?;
    // What was claimed before there was a limit isn't known.
    claimed_of(&store, 1).await?.remove(0).ack(&store).await?;
    limit(&pool, 4).await?;
    let mut held = claimed(&store).await?;
    assert_eq!(held.len(), 4);
    limit(&pool, 2).await?;
    for left in (2..4).rev() {
        held.remove(0).ack(&store).await?;
        assert_eq!(held.len(), left);
        assert!(claimed(&store).await?.is_empty(), "{left} still run");
    }
    held.remove(0).ack(&store).await?;
    held.extend(claimed(&store).await?);
    assert_eq!(held.len(), 2);
    limit(&pool, 5).await?;
    assert_eq!(claimed(&store).await?.len(), 3);
    limit(&pool, None).await?;
    assert_eq!(claimed(&store).await?.len(), 11);
    let refused = limit(&pool, 0).await;
    assert!(matches!(refused, Err(Error::InvalidSetting { .. })));
    // A queue is deleted with its slots.
    let owner = Store::from(pool.clone());
    pgqrs::admin(&owner).purge_queue("tasks").await?;
    pgqrs::admin(&owner).delete_queue("tasks").await?;
    let left: i64 = sqlx::query_scalar("select count(*) from pgqrs.slots")
        .fetch_one(&pool)
        .await?;
    assert_eq!(left, 0);
    Ok(())
}

async fn claimed_of(store: &Store, limit: u32) -> pgqrs::Result<Vec<Delivery<Value, Unchecked>>> {
    claim(store, limit).await
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn concurrent_claims_never_exceed_the_limit_at_any_isolation_level(
    pool: PgPool,
) -> TestResult {
    let store = limited(&pool, 5).await?;
    send(&store, 400).await?;
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let handled = Arc::new(AtomicUsize::new(0));
    let mut tasks = Vec::new();
    for at in 0..8 {
        let name = pool.connect_options().get_database().map(str::to_owned);
        if at == 0 {
            // For new sessions.
            let level = format!(
                "alter database {} set default_transaction_isolation = 'repeatable read'",
                format_args!("\"{}\"", name.unwrap_or_default())
            );
            sqlx::query(sqlx::AssertSqlSafe(level))
                .execute(&pool)
                .await?;
        }
        let store = connect(&pool).await?;
        let (running, most) = (Arc::clone(&running), Arc::clone(&most));
        let handled = Arc::clone(&handled);
        tasks.push(tokio::spawn(async move {
            while handled.load(Ordering::SeqCst) < 400 {
                let deliveries = match claim(&store, 3).await {
                    Ok(deliveries) => deliveries,
                    // At this isolation level, claims at the same time conflict.
                    Err(error) => {
                        assert!(error.is_retryable(), "{error:?}");
                        continue;
                    }
                };
                let now = running.fetch_add(deliveries.len(), Ordering::SeqCst) + deliveries.len();
                most.fetch_max(now, Ordering::SeqCst);
                for delivery in deliveries {
                    handled.fetch_add(1, Ordering::SeqCst);
                    // Before its slot is given back.
                    running.fetch_sub(1, Ordering::SeqCst);
                    delivery.ack(&store).await.expect("acknowledged");
                }
            }
        }));
    }
    for task in tasks {
        task.await?;
    }
    let most = most.load(Ordering::SeqCst);
    assert!(most <= 5, "{most} at a time");
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn consumers_of_several_processes_share_the_limit_and_wake_each_other(
    pool: PgPool,
) -> TestResult {
    let store = limited(&pool, 3).await?;
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let all = Arc::new(Barrier::new(3));
    let mut runs = Vec::new();
    for port in 1..=3 {
        let elsewhere = connect(&pool).await?;
        let consumer = pgqrs::consumer("tasks").identity("host", port);
        // It would not poll before the test times out.
        let consumer = prepare(consumer).poll_interval(Duration::from_secs(3_600));
        let (running, most) = (Arc::clone(&running), Arc::clone(&most));
        let all = Arc::clone(&all);
        let handler = move |_: Delivery<Value>| {
            let (running, most) = (Arc::clone(&running), Arc::clone(&most));
            let all = Arc::clone(&all);
            async move {
                let now = running.fetch_add(1, Ordering::SeqCst) + 1;
                most.fetch_max(now, Ordering::SeqCst);
                // As many as the limit says do run at once.
                all.wait().await;
                running.fetch_sub(1, Ordering::SeqCst);
                Outcome::Done
            }
        };
        runs.push(start(consumer.create(&elsewhere).await?, handler));
    }
    send(&store, 120).await?;
    drained(&pool).await;
    let mut done = 0;
    for run in runs {
        done += run.stop().await?.done;
    }
    assert_eq!(done, 120);
    assert_eq!(most.load(Ordering::SeqCst), 3);
    assert!(
        pgqrs::admin(&store)
            .workers(&WorkerFilter::default())
            .await?
            .len()
            <= 3
    );
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_queue_without_a_limit_takes_no_slots(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    send(&store, 3).await?;
    one(&store).await?.ack(&store).await?;
    let slots: i64 = sqlx::query_scalar("select count(*) from pgqrs.slots")
        .fetch_one(&pool)
        .await?;
    assert_eq!(slots, 0);
    until("all are handled", async || {
        for delivery in claimed(&store).await.expect("a claim") {
            delivery.ack(&store).await.expect("acknowledged");
        }
        crate::support::count(&pool)
            .await
            .is_ok_and(|left| left == 0)
    })
    .await;
    Ok(())
}
