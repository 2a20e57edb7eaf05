//! What the server sees of each public call: one statement, and nothing ahead of it.

use pgqrs::{ConnectOptions, Store};
use serde_json::json;
use sqlx::PgPool;

use crate::support::{
    TestResult, connect, count,
    proxy::{Proxy, Sent},
    until, with_queues,
};

/// What a warm connection sends for one statement.
const ONE_STATEMENT: [Sent; 4] = [Sent::Bind, Sent::Execute, Sent::Close, Sent::Sync];

/// A store whose traffic goes through the proxy.
async fn through_proxy(pool: &PgPool) -> Result<(Store, Proxy), Box<dyn std::error::Error>> {
    let (proxy, url) = Proxy::before(pool).await?;
    // One connection: once it is warm, every call finds it so.
    let options = ConnectOptions::builder()
        .url(url)
        .max_connections(1)
        .build();
    Ok((pgqrs::connect_with(options).await?, proxy))
}

/// Its connection is tested on the way back to the pool, in the background.
fn alone() -> Vec<Sent> {
    [&ONE_STATEMENT[..], &[Sent::Sync]].concat()
}

/// After an enqueue of what is ready comes a hint for other processes, in the background.
fn with_hint() -> Vec<Sent> {
    [alone(), alone()].concat()
}

/// Calls twice: once to warm up, and once to see what is sent until nothing more comes. What a new writer
/// does at first, it does in the first call: it draws ids, and prunes rows of old writers.
async fn sent_by(
    store: &Store,
    proxy: &Proxy,
    mut call: impl AsyncFnMut() -> TestResult,
) -> Result<Vec<Sent>, Box<dyn std::error::Error>> {
    call().await?;
    settled(store, proxy).await;
    proxy.take_sent();
    call().await?;
    Ok(settled(store, proxy).await)
}

/// What was sent, once all connections are idle and nothing was sent for some ticks.
async fn settled(store: &Store, proxy: &Proxy) -> Vec<Sent> {
    let (mut quiet, mut sent) = (0, Vec::new());
    until("nothing is sent any more", async || {
        let idle = store.pool().num_idle() as u32 == store.pool().size();
        let more = proxy.take_sent();
        quiet = if idle && more.is_empty() {
            quiet + 1
        } else {
            0
        };
        sent.extend(more);
        quiet == 6
    })
    .await;
    sent
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn an_enqueue_is_one_statement_and_no_ping_goes_ahead_of_it(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let (store, proxy) = through_proxy(&pool).await?;
    let many: Vec<_> = (0..500).map(|n| json!({"n": n})).collect();

    let single = sent_by(&store, &proxy, async || {
        pgqrs::enqueue()
            .message(&json!({"n": 1}))
            .to("tasks")
            .execute(&store)
            .await?;
        Ok(())
    });
    assert_eq!(single.await?, with_hint(), "single");
    let batch = sent_by(&store, &proxy, async || {
        pgqrs::enqueue()
            .messages(&many)
            .to("tasks")
            .execute(&store)
            .await?;
        Ok(())
    });
    assert_eq!(batch.await?, with_hint(), "a batch of 500");
    let delayed = sent_by(&store, &proxy, async || {
        pgqrs::enqueue()
            .message(&json!({"n": 1}))
            .to("tasks")
            .delay(300)
            .execute(&store)
            .await?;
        Ok(())
    });
    assert_eq!(delayed.await?, alone(), "delayed");
    assert_eq!(count(&pool).await?, 2 * (1 + 500 + 1));
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn an_enqueue_in_a_transaction_adds_one_statement_to_it(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let (store, proxy) = through_proxy(&pool).await?;
    let mut tx = store.pool().begin().await?;
    pgqrs::enqueue()
        .message(&1)
        .to("tasks")
        .execute(&mut tx)
        .await?;
    proxy.take_sent();
    pgqrs::enqueue()
        .message(&2)
        .to("tasks")
        .execute(&mut tx)
        .await?;
    assert_eq!(proxy.take_sent(), ONE_STATEMENT);
    tx.commit().await?;
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_dequeue_and_an_ack_are_one_statement_each(pool: PgPool) -> TestResult {
    let direct = with_queues(&pool, &["tasks"]).await?;
    let (store, proxy) = through_proxy(&pool).await?;
    pgqrs::enqueue()
        .messages(&[1, 2])
        .to("tasks")
        .execute(&direct)
        .await?;
    let mut deliveries = Vec::new();

    let claim = sent_by(&store, &proxy, async || {
        deliveries.extend(pgqrs::dequeue().from("tasks").execute(&store).await?);
        Ok(())
    });
    assert_eq!(claim.await?, alone(), "dequeue");
    assert_eq!(deliveries.len(), 2);
    let ack = sent_by(&store, &proxy, async || {
        let delivery = deliveries.pop().expect("one for each call");
        Ok(delivery.ack(&store).await?)
    });
    assert_eq!(ack.await?, alone(), "ack");

    let empty = sent_by(&store, &proxy, async || {
        assert!(
            pgqrs::dequeue()
                .from("tasks")
                .execute(&store)
                .await?
                .is_empty()
        );
        Ok(())
    });
    assert_eq!(empty.await?, alone(), "a dequeue that finds nothing");
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn reading_calls_of_the_admin_are_one_statement_each(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let (store, proxy) = through_proxy(&pool).await?;
    let admin = pgqrs::admin(&store);
    let queue = sent_by(&store, &proxy, async || {
        Ok(admin.queue("tasks").await.map(drop)?)
    })
    .await?;
    let queues = sent_by(&store, &proxy, async || {
        Ok(admin.queues().await.map(drop)?)
    })
    .await?;
    let stats = sent_by(&store, &proxy, async || {
        Ok(admin.queue_stats("tasks").await.map(drop)?)
    })
    .await?;
    let exact = sent_by(&store, &proxy, async || {
        Ok(admin.exact_queue_stats("tasks").await.map(drop)?)
    })
    .await?;
    let all_stats = sent_by(&store, &proxy, async || {
        Ok(admin.all_queue_stats().await.map(drop)?)
    })
    .await?;
    let verify = sent_by(&store, &proxy, async || {
        Ok(admin.verify().await.map(drop)?)
    })
    .await?;
    let get = sent_by(&store, &proxy, async || {
        Ok(store.queue("tasks").await.map(drop)?)
    })
    .await?;
    for (call, sent) in [
        ("queue", queue),
        ("queues", queues),
        ("queue_stats", stats),
        ("exact_queue_stats", exact),
        ("all_queue_stats", all_stats),
        ("verify", verify),
        ("store.queue", get),
    ] {
        assert_eq!(sent, alone(), "{call}");
    }
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn an_empty_batch_sends_nothing(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let (store, proxy) = through_proxy(&pool).await?;
    let none: [u32; 0] = [];
    proxy.take_sent();
    let ids = pgqrs::enqueue()
        .messages(&none)
        .to("tasks")
        .execute(&store)
        .await?;
    assert!(ids.is_empty());
    assert_eq!(proxy.take_sent(), []);
    Ok(())
}

/// The proxy notices the difference: a pool with sqlx's own settings pings before each use.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_ping_would_be_seen(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let (ours, proxy) = through_proxy(&pool).await?;
    let theirs = PgPool::connect_with((*ours.pool().connect_options()).clone()).await?;
    let store = Store::from(theirs);
    let sent = sent_by(&store, &proxy, async || {
        pgqrs::enqueue()
            .message(&1)
            .to("tasks")
            .execute(&store)
            .await?;
        Ok(())
    });
    assert_eq!(sent.await?[0], Sent::Sync);
    connect(&pool).await?;
    Ok(())
}
