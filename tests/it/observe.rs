//! `store.observe(interval)`: what it reads, and that an outage neither ends it nor is hidden.

use std::time::Duration;

use pgqrs::{Access, ConnectOptions, Error, Observer, Store};
use sqlx::PgPool;
use tokio::runtime::Handle;

use crate::{
    grants::as_role,
    support::{TestResult, send, server::Server, until, with_queues},
};

const SECOND: Duration = Duration::from_secs(1);

/// How many messages are ready, as it was read last.
fn ready(observer: &Observer) -> Option<u64> {
    let latest = observer.latest()?;
    Some(latest.queues.first()?.ready.value)
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn queues_are_read_at_once_and_again_at_each_interval(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    send(&store, &[1]).await?;
    // Less than a second counts as one.
    let mut observer = store.observe(Duration::ZERO).await?;
    assert_eq!(ready(&observer), Some(1));
    let first = observer.changed().await?;
    assert_eq!(observer.latest().map(|latest| latest.at), Some(first.at));
    let changed = observer.changed().await?;
    assert!(changed.at - first.at >= chrono::TimeDelta::milliseconds(800));
    send(&store, &[2, 3]).await?;
    until("the new messages are counted", async || {
        let seen = observer.changed().await.expect("read");
        seen.queues[0].ready == 3
    })
    .await;
    assert_eq!(ready(&observer), Some(3));
    assert!(observer.error().is_none());

    store.pool().close().await;
    until("it ends with the store", async || {
        matches!(observer.changed().await, Err(Error::Closed))
    })
    .await;
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_dropped_observer_stops(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let tasks = || Handle::current().metrics().num_alive_tasks();
    // Far more than there are tasks of the pool, which come and go.
    const OBSERVERS: usize = 50;
    let mut observers = Vec::new();
    for _ in 0..OBSERVERS {
        observers.push(store.observe(SECOND).await?);
    }
    let before = tasks();
    assert!(before >= OBSERVERS);
    drop(observers);
    until("their tasks have ended", async || {
        tasks() + OBSERVERS <= before
    })
    .await;
    Ok(())
}

#[tokio::test]
async fn an_outage_is_survived_and_reported() -> TestResult {
    let server = Server::start().await?;
    let options = ConnectOptions::builder()
        .url(server.url())
        .acquire_timeout(SECOND)
        .install(true);
    let store: Store = pgqrs::connect_with(options.build()).await?;
    store.queue("tasks").await?;
    let mut observer = store.observe(SECOND).await?;
    assert_eq!(ready(&observer), Some(0));
    server.down("immediate")?;
    until("the outage is reported", async || {
        observer.error().is_some()
    })
    .await;
    assert_eq!(ready(&observer), Some(0), "the last that was read");
    let down = observer.changed().await.expect_err("it is still down");
    assert!(down.is_retryable(), "{down:?}");
    // One that begins meanwhile is no error either.
    let late = store.observe(SECOND).await?;
    assert!(late.latest().is_none() && late.error().is_some());
    server.up()?;
    until("it reads again", async || {
        observer.error().is_none() && late.latest().is_some()
    })
    .await;
    assert!(observer.changed().await.is_ok());
    store.pool().close().await;
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_role_that_may_not_read_the_queues_is_refused_at_once(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    as_role(&pool, Some(Access::Producer), async |store, _| {
        let refused = store.observe(SECOND).await;
        assert!(
            matches!(refused, Err(Error::PermissionDenied { .. })),
            "{refused:?}"
        );
        Ok(())
    })
    .await?;
    for access in [Access::Consumer, Access::Operator] {
        as_role(&pool, Some(access), async |store, _| {
            assert_eq!(ready(&store.observe(SECOND).await?), Some(0));
            Ok(())
        })
        .await?;
    }
    Ok(())
}
