//! Cancelling messages at each moment of a delivery's life: either it is cancelled or it is done, and never both.

mod forms;
mod moments;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use pgqrs::{Cancelled, Delivery, Error, MessageId, Outcome, Store};
use serde_json::Value;
use sqlx::PgPool;
use tokio::sync::Semaphore;

use crate::support::{
    TestResult, blocked_backend, claim, connect,
    consumers::{Running, consumer, drained, gate, pass, start},
    count, expire, newcomer, one, places, send, until, with_queues,
};

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_waiting_message_goes_and_to_the_archive_if_asked(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks", "other"]).await?;
    let admin = pgqrs::admin(&store);
    let ids = send(&store, &[0, 1, 2]).await?;
    let delayed = pgqrs::enqueue().message(&3).to("tasks").delay(60);
    let delayed = delayed.execute(&store).await?[0];
    assert_eq!(
        admin.cancel("other", ids[1]).await?,
        None,
        "it is of another queue"
    );
    assert_eq!(count(&pool).await?, 4);
    let waiting = Some(Cancelled::Waiting);
    assert_eq!(admin.cancel("tasks", ids[1]).await?, waiting);
    assert_eq!(admin.cancel("tasks", ids[1]).await?, None, "it is gone");
    assert_eq!(admin.cancel("tasks", delayed).archive(true).await?, waiting);
    assert_eq!(places(&pool).await?, (2, 0, 1));
    let archived = admin.archived("tasks", pgqrs::Page::default()).await?;
    assert_eq!((archived[0].id, archived[0].attempt), (delayed, 0));
    // One that waits for another attempt.
    one(&store).await?.nack(&store).await?;
    assert_eq!(admin.cancel("tasks", ids[0]).await?, waiting);
    // A dead letter isn't cancelled.
    one(&store).await?.dead_letter("in a test", &store).await?;
    assert_eq!(admin.cancel("tasks", ids[2]).await?, None);
    assert_eq!(places(&pool).await?, (0, 1, 1));
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_claimed_message_loses_its_lease_and_can_not_be_settled(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let admin = pgqrs::admin(&store);
    let ids = send(&store, &[0, 1, 2, 3]).await?;
    let mut held = claim(&store, 4).await?;
    // Even if its lease has run out: its handler may still be at work.
    expire(&pool, ids[0]).await?;
    for id in &*ids {
        let cancelled = admin.cancel("tasks", *id).archive(true).await?;
        assert_eq!(cancelled, Some(Cancelled::Running));
    }
    assert_eq!(places(&pool).await?, (0, 0, 4));
    let lost = [
        held.remove(0).ack(&store).await,
        held.remove(0).nack(&store).await,
        held.remove(0).dead_letter("in a test", &store).await,
        held[0].extend(Duration::from_secs(60)).await,
    ];
    for lost in lost {
        assert!(matches!(lost, Err(Error::LeaseLost { .. })), "{lost:?}");
    }
    assert_eq!(places(&pool).await?, (0, 0, 4));
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn messages_are_cancelled_by_their_keys(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks", "other"]).await?;
    let admin = pgqrs::admin(&store);
    // Of more than 255 bytes, a key is stored as its hash.
    let long = "k".repeat(300);
    let to = |queue: &'static str| pgqrs::enqueue().message(&0).to(queue);
    let ids = [
        to("tasks").unique("a").execute(&store).await?[0],
        to("tasks")
            .unique_until_claimed("a")
            .execute(&store)
            .await?[0],
        to("tasks").unique(&long).execute(&store).await?[0],
    ];
    to("other").unique("a").execute(&store).await?;
    assert!(admin.cancel_by_key("tasks", "no such").await?.is_empty());
    let held = one(&store).await?;
    let cancelled = admin.cancel_by_key("tasks", "a").archive(true).await?;
    let expected = [(ids[0], Cancelled::Running), (ids[1], Cancelled::Waiting)];
    assert_eq!(cancelled, expected);
    assert_eq!(places(&pool).await?, (2, 0, 2));
    let lost = held.ack(&store).await;
    assert!(matches!(lost, Err(Error::LeaseLost { .. })), "{lost:?}");
    let cancelled = admin.cancel_by_key("tasks", long).await?;
    assert_eq!(cancelled, [(ids[2], Cancelled::Waiting)]);
    // What is free again.
    let again = to("tasks").unique("a").execute(&store).await?;
    assert!(again.outcomes().all(|sent| sent.new));
    admin.cancel("tasks", again[0]).await?;
    // A claimed message has no waiting key any more.
    to("tasks")
        .unique_until_claimed("c")
        .execute(&store)
        .await?;
    let _held = one(&store).await?;
    assert!(admin.cancel_by_key("tasks", "c").await?.is_empty());
    // Of a key that is unique within a time, the message is cancelled, and the key stays taken.
    let day = Duration::from_secs(24 * 60 * 60);
    let within = async |window| to("tasks").once_within("d", window).execute(&store).await;
    let first = within(day).await?[0];
    let cancelled = admin.cancel_by_key("tasks", "d").await?;
    assert_eq!(cancelled, [(first, Cancelled::Waiting)]);
    let again = within(day).await?;
    assert!(again[0] == first && again.outcomes().all(|sent| !sent.new));
    assert!(admin.cancel_by_key("tasks", "d").await?.is_empty());
    for none in ["", "a\0b"] {
        assert!(admin.cancel_by_key("tasks", none).await?.is_empty());
    }
    let refused = admin.cancel_by_key("missing", "c").await;
    assert!(matches!(refused, Err(Error::QueueNotFound { .. })));
    Ok(())
}

/// What became of handlers that wait until they are let go.
#[derive(Clone)]
struct Handlers {
    begun: Arc<Semaphore>,
    /// The last one that began.
    current: Arc<AtomicI64>,
    leave: Arc<Semaphore>,
    noticed: Arc<AtomicU64>,
    dropped: Arc<AtomicU64>,
}

struct CountDrop(Arc<AtomicU64>);

impl Drop for CountDrop {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Handlers {
    fn new() -> Self {
        Self {
            begun: gate(),
            current: Arc::default(),
            leave: gate(),
            noticed: Arc::default(),
            dropped: Arc::default(),
        }
    }

    fn start(
        &self,
        consumer: impl Into<crate::support::consumers::Prepared<pgqrs::Consumer>>,
    ) -> Running {
        let these = self.clone();
        start(consumer, move |delivery: Delivery<Value>| {
            let these = these.clone();
            async move {
                let on_drop = CountDrop(Arc::clone(&these.dropped));
                let cancelled = delivery.cancelled();
                these.current.store(delivery.id().get(), Ordering::Relaxed);
                these.begun.add_permits(1);
                tokio::select! {
                    () = pass(&these.leave) => {}
                    () = cancelled => {
                        these.noticed.fetch_add(1, Ordering::Relaxed);
                        pass(&these.leave).await;
                    }
                }
                // It has come to its end, and was not dropped.
                std::mem::forget(on_drop);
                Outcome::Done
            }
        })
    }

    async fn noticed(&self, times: u64) {
        until("the handler has noticed", async || {
            self.noticed.load(Ordering::Relaxed) == times
        })
        .await;
    }

    async fn dropped(&self, times: u64) {
        until("the handler is dropped", async || {
            self.dropped.load(Ordering::Relaxed) == times
        })
        .await;
    }
}

const FOREVER: Duration = Duration::from_secs(3_600);

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_running_handler_notices_and_may_finish_within_the_grace_time(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    // Another process: only a NOTIFY can tell the consumer, whose leases are extended long after the test.
    let admin = pgqrs::admin(&connect(&pool).await?);
    let handlers = Handlers::new();
    let patient = consumer().lease(FOREVER).cancel_grace(FOREVER);
    let running = handlers.start(patient.create(&store).await?);
    listening(&pool).await;
    let ids = send(&store, &[1, 2]).await?;
    pass(&handlers.begun).await;
    pass(&handlers.begun).await;
    assert_eq!(
        admin.cancel("tasks", ids[0]).await?,
        Some(Cancelled::Running)
    );
    handlers.noticed(1).await;
    handlers.leave.add_permits(2);
    drained(&pool).await;
    let report = running.stop().await?;
    assert_eq!((report.done, report.cancelled, report.lost), (1, 1, 0));
    assert_eq!(handlers.dropped.load(Ordering::Relaxed), 0);
    Ok(())
}

/// Waits until a consumer listens.
async fn listening(pool: &PgPool) {
    until("it listens", async || {
        let listening: i64 = sqlx::query_scalar(
            "select count(*) from pg_stat_activity
             where datname = current_database() and query like 'LISTEN%'",
        )
        .fetch_one(pool)
        .await
        .expect("counted");
        listening == 1
    })
    .await;
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn after_the_grace_time_the_handler_is_dropped(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let admin = pgqrs::admin(&store);
    let handlers = Handlers::new();
    let hasty = consumer()
        .lease(FOREVER)
        .cancel_grace(Duration::from_millis(50));
    let running = handlers.start(hasty.create(&store).await?);
    let id = send(&store, &[1]).await?[0];
    pass(&handlers.begun).await;
    assert_eq!(admin.cancel("tasks", id).await?, Some(Cancelled::Running));
    handlers.dropped(1).await;
    assert_eq!(handlers.noticed.load(Ordering::Relaxed), 1);
    // Its slot is free.
    handlers.leave.add_permits(8);
    send(&store, &[2; 8]).await?;
    drained(&pool).await;
    let report = running.stop().await?;
    assert_eq!((report.done, report.cancelled, report.lost), (8, 1, 0));
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn without_a_notification_it_is_noticed_when_the_lease_is_extended(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let elsewhere = connect(&pool).await?;
    let handlers = Handlers::new();
    let deaf = consumer()
        .listen(false)
        .lease(Duration::from_millis(600))
        .cancel_grace(Duration::ZERO);
    let running = handlers.start(deaf.create(&store).await?);
    let id = send(&store, &[1]).await?[0];
    pass(&handlers.begun).await;
    let cancelled = pgqrs::admin(&elsewhere).cancel("tasks", id).await?;
    assert_eq!(cancelled, Some(Cancelled::Running));
    handlers.dropped(1).await;
    let report = running.stop().await?;
    assert_eq!((report.cancelled, report.lost), (1, 0));
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_prefetched_message_that_is_cancelled_never_starts(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let admin = pgqrs::admin(&store);
    let handlers = Handlers::new();
    let running = handlers.start(
        consumer()
            .concurrency(1)
            .lease(FOREVER)
            .cancel_grace(FOREVER)
            .create(&store)
            .await?,
    );
    let leased = "select id from pgqrs.messages where lease_token <> 0";
    let mut held: Vec<i64> = Vec::new();
    let mut sent = 0;
    // On a busy machine, handlers may seem too slow to claim ahead for.
    while held.len() < 2 {
        // A fast start, so that it claims ahead.
        handlers.leave.add_permits(300);
        send(&store, &[0; 300]).await?;
        drained(&pool).await;
        assert!(sent < 6_000, "it never claims ahead");
        send(&store, &[1; 300]).await?;
        sent += 600;
        until("its handler runs", async || {
            held = sqlx::query_scalar(leased)
                .fetch_all(&pool)
                .await
                .expect("read");
            held.contains(&handlers.current.load(Ordering::Relaxed))
        })
        .await;
        if held.len() < 2 {
            handlers.leave.add_permits(300);
            drained(&pool).await;
        }
    }
    // The one that runs is the last, so that all notices have arrived with its own.
    let current = handlers.current.load(Ordering::Relaxed);
    held.retain(|id| *id != current);
    held.push(current);
    for id in &held {
        let cancelled = admin.cancel("tasks", MessageId::from(*id)).await?;
        assert_eq!(cancelled, Some(Cancelled::Running));
    }
    handlers.noticed(1).await;
    handlers.leave.add_permits(300);
    drained(&pool).await;
    let report = running.stop().await?;
    assert_eq!(report.done as usize, sent - held.len());
    assert_eq!((report.cancelled, report.lost), (1, 0));
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_cancellation_waits_for_the_transaction_that_acknowledges_the_message(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    for commits in [true, false] {
        let id = send(&store, &[1]).await?[0];
        let held = one(&store).await?;
        let mut transaction = pool.begin().await?;
        held.ack(&mut transaction).await?;
        let admin = pgqrs::admin(&store);
        let cancelling = tokio::spawn(async move { admin.cancel("tasks", id).await });
        blocked_backend(&pool, "delete from pgqrs.messages").await;
        let expected = if commits {
            transaction.commit().await?;
            None
        } else {
            transaction.rollback().await?;
            Some(Cancelled::Running)
        };
        assert_eq!(cancelling.await??, expected);
        assert_eq!(count(&pool).await?, 0);
    }
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_made_up_notice_cancels_nothing(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let handlers = Handlers::new();
    let hasty = consumer()
        .cancel_grace(Duration::ZERO)
        .create(&store)
        .await?;
    let running = handlers.start(hasty);
    listening(&pool).await;
    let id = send(&store, &[1]).await?[0];
    pass(&handlers.begun).await;
    let notices = "select pg_notify('pgqrs_cancelled', concat_ws(' ', queue_id, id, lease_token)) from pgqrs.messages
                   union all select pg_notify('pgqrs_cancelled', payload)
                   from unnest(array['', 'a b c', '1 2', '99999999999999999999 1 1']) payload";
    sqlx::query(notices).execute(&pool).await?;
    // One that is true comes after them.
    let second = send(&store, &[2]).await?[0];
    pass(&handlers.begun).await;
    let admin = pgqrs::admin(&connect(&pool).await?);
    assert_eq!(
        admin.cancel("tasks", second).await?,
        Some(Cancelled::Running)
    );
    handlers.dropped(1).await;
    handlers.leave.add_permits(1);
    drained(&pool).await;
    let report = running.stop().await?;
    assert_eq!((report.done, report.cancelled), (1, 1), "{id}");
    Ok(())
}
