//! What a caller has abandoned ends on the server too: it takes no message, stores nothing late, and leaves no backend behind.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use pgqrs::{ConnectOptions, Error, QueueOptions, Store};
use sqlx::{PgPool, Postgres, Transaction, postgres::PgPoolOptions};
use tokio::{task::JoinSet, time::timeout};

use crate::support::{
    TestResult, blocked_backends, claim,
    consumers::{Seen, consumer, drained, start},
    count, one, places, send, until, url, warm, with_queues,
};

/// For what must not take for ever.
const BOUND: Duration = Duration::from_secs(60);
const MESSAGES: &str = "lock table pgqrs.messages in share mode";
const MESSAGES_AND_WRITERS: &str = "lock table pgqrs.messages, pgqrs.writers in share mode";
/// How the statement of a claim begins.
const CLAIM: &str = "with queue as materialized";

/// A store whose backends are found by its name.
async fn named(
    pool: &PgPool,
    name: &str,
    max_connections: u32,
    retry_for: Duration,
) -> pgqrs::Result<Store> {
    let options = ConnectOptions::builder()
        .url(url(pool))
        .application_name(name)
        .max_connections(max_connections)
        .retry_for(retry_for);
    pgqrs::connect_with(options.build()).await
}

/// As `create index` does, until the transaction ends: nothing can be written.
async fn lock(pool: &PgPool, tables: &'static str) -> sqlx::Result<Transaction<'static, Postgres>> {
    let mut holder = pool.begin().await?;
    sqlx::query(tables).execute(&mut *holder).await?;
    Ok(holder)
}

/// How many backends a store has.
async fn backends(pool: &PgPool, name: &str) -> i64 {
    sqlx::query_scalar(
        "select count(*) from pg_stat_activity
         where datname = current_database() and application_name = $1",
    )
    .bind(name)
    .fetch_one(pool)
    .await
    .expect("pg_stat_activity can be read")
}

/// Until no backend of a store is in the middle of a statement or a transaction.
async fn all_ended(pool: &PgPool, name: &str) {
    until("no statement of the store is under way", async || {
        let active: i64 = sqlx::query_scalar(
            "select count(*) from pg_stat_activity
             where datname = current_database() and application_name = $1 and state <> 'idle'",
        )
        .bind(name)
        .fetch_one(pool)
        .await
        .expect("pg_stat_activity can be read");
        active == 0
    })
    .await;
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn an_abandoned_claim_ends_on_the_server_and_uses_up_no_attempt(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let store = named(&pool, "claims", 4, BOUND).await?;
    // So that its connection knows the statement, and only has to run it.
    assert!(claim(&store, 1).await?.is_empty());
    send(&store, &[1]).await?;
    let holder = lock(&pool, MESSAGES).await?;
    for is_dropped in [true, false, true, false] {
        let claiming = tokio::spawn({
            let store = store.clone();
            async move { claim(&store, 1).await.map(drop) }
        });
        blocked_backends(&pool, CLAIM, 1).await;
        if is_dropped {
            claiming.abort();
        } else {
            // Its time-out comes at once.
            tokio::time::pause();
            let claimed = timeout(BOUND, claiming).await;
            tokio::time::resume();
            let claimed = claimed??;
            assert!(
                matches!(claimed, Err(Error::ConnectionLost(_))),
                "{claimed:?}"
            );
        }
        // The lock is still held.
        all_ended(&pool, "claims").await;
    }
    holder.rollback().await?;
    assert_eq!(one(&store).await?.attempt(), 1);
    Ok(())
}

/// On a pool of the application's own, whose server doesn't look whether the client is still there.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_claim_that_was_held_up_for_too_long_makes_no_dead_letter_that_no_handler_saw(
    pool: PgPool,
) -> TestResult {
    let own = PgPoolOptions::new().max_connections(1);
    let own = own.connect_with((*pool.connect_options()).clone()).await?;
    let store = with_queues(own, &["tasks"]).await?;
    // So that its connection knows the statement: what waits is the claim, and not what prepares it.
    assert!(claim(&store, 1).await?.is_empty());
    let once = QueueOptions::builder().max_attempts(1).build();
    pgqrs::admin(&store).configure_queue("tasks", once).await?;
    send(&store, &[1, 2, 3, 4, 5]).await?;
    let holder = lock(&pool, MESSAGES).await?;
    let seen = Seen::default();
    let consumer = consumer().lease(Duration::from_secs(3)).create(&store);
    let running = start(consumer.await?, seen.handler());
    until("a claim was abandoned, and another one is under way", async || {
        // A claim of this loop waits for ten seconds.
        let late: bool = sqlx::query_scalar(
            "select count(*) > 1 and max(clock_timestamp() - xact_start) > interval '10.5 seconds'
             from pg_stat_activity
             where datname = current_database() and wait_event_type = 'Lock' and strpos(query, $1) > 0",
        )
        .bind(CLAIM)
        .fetch_one(&pool)
        .await
        .expect("pg_stat_activity can be read");
        late
    })
    .await;
    holder.rollback().await?;
    drained(&pool).await;
    let report = running.stop().await?;
    assert_eq!(places(&pool).await?, (0, 0, 0), "{report:?}");
    assert_eq!((report.done, report.dead), (5, 0));
    assert_eq!(seen.len(), 5);
    Ok(())
}

/// Sends of every kind: alone, in groups, and in a batch of several statements.
fn send_all(store: &Store) -> JoinSet<pgqrs::Result<()>> {
    let mut calls = JoinSet::new();
    for n in 0..8 {
        let store = store.clone();
        calls.spawn(async move { send(&store, &[n]).await.map(drop) });
    }
    let store = store.clone();
    calls.spawn(async move { send(&store, &[0; 2_500]).await.map(drop) });
    calls
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_send_behind_a_lock_on_messages_is_not_stored_and_never_comes_late(
    pool: PgPool,
) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let store = named(&pool, "sends", 10, Duration::from_secs(2)).await?;
    warm(&store).await?;
    let holder = lock(&pool, MESSAGES).await?;
    let mut calls = send_all(&store);
    while let Some(sent) = timeout(BOUND, calls.join_next()).await? {
        let sent = sent?;
        assert!(matches!(sent, Err(Error::NotStored { .. })), "{sent:?}");
    }
    // At once, while the server may still execute what was abandoned.
    holder.rollback().await?;
    all_ended(&pool, "sends").await;
    assert_eq!(count(&pool).await?, 1);
    send(&store, &[1]).await?;
    assert_eq!(count(&pool).await?, 2);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_send_of_unknown_outcome_comes_no_later_than_the_server_notices_that_it_was_abandoned(
    pool: PgPool,
) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let store = named(&pool, "unknown", 10, Duration::from_secs(2)).await?;
    warm(&store).await?;
    let holder = lock(&pool, MESSAGES_AND_WRITERS).await?;
    let mut calls = send_all(&store);
    let mut unknown = 0;
    while let Some(sent) = timeout(BOUND, calls.join_next()).await? {
        match sent? {
            Err(Error::OutcomeUnknown { .. }) => unknown += 1,
            // Not all of them were tried.
            Err(Error::NotStored { .. }) => {}
            sent => panic!("{sent:?}"),
        }
    }
    assert!(unknown > 0);
    // The locks are still held: nothing waits for them any more.
    all_ended(&pool, "unknown").await;
    holder.rollback().await?;
    assert_eq!(count(&pool).await?, 1);
    send(&store, &[1]).await?;
    assert_eq!(count(&pool).await?, 2);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn what_is_abandoned_during_a_long_lock_does_not_pile_up_on_the_server(
    pool: PgPool,
) -> TestResult {
    const CONNECTIONS: u32 = 4;
    const RESERVE: i64 = 2;
    /// Each is abandoned after two seconds; and the server checks every second.
    const GIVEN_UP: usize = 24;
    const CALL_TIMEOUT: Duration = Duration::from_secs(2);
    with_queues(&pool, &["tasks"]).await?;
    let store = named(&pool, "many", CONNECTIONS, 3 * CALL_TIMEOUT).await?;
    warm(&store).await?;
    let holder = lock(&pool, MESSAGES).await?;
    let (is_over, given_up) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let mut calls = JoinSet::new();
    for n in 0..8 {
        let (store, is_over, given_up) = (store.clone(), Arc::clone(&is_over), given_up.clone());
        calls.spawn(async move {
            while !is_over.load(Ordering::Relaxed) {
                if n % 2 == 0 {
                    let _ = timeout(CALL_TIMEOUT, send(&store, &[n])).await;
                } else {
                    let _ = timeout(CALL_TIMEOUT, claim(&store, 1)).await;
                }
                given_up.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let mut most = 0;
    until("many were abandoned", async || {
        most = most.max(backends(&pool, "many").await);
        given_up.load(Ordering::Relaxed) >= GIVEN_UP
    })
    .await;
    assert!(most <= 2 * i64::from(CONNECTIONS) + RESERVE, "{most}");
    is_over.store(true, Ordering::Relaxed);
    while let Some(ended) = timeout(BOUND, calls.join_next()).await? {
        ended?;
    }
    until(
        "those abandoned have ended, and the lock is still held",
        async || backends(&pool, "many").await <= i64::from(CONNECTIONS) + RESERVE,
    )
    .await;
    all_ended(&pool, "many").await;
    holder.rollback().await?;
    assert_eq!(count(&pool).await?, 1);
    Ok(())
}
