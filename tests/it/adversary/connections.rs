//! Small pools, runtimes that rest or end, a pool that is closed, an unavailable server: nothing starves, and nothing hangs.

mod closing;
mod runtimes;

use std::{
    fmt::Debug,
    future::{Future, poll_fn},
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::Poll,
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use pgqrs::{ConnectOptions, ConsumerHandle, Delivery, Error, MessageId, Outcome, Report, Store};
use serde_json::Value;
use sqlx::{PgPool, Postgres, Transaction};
use tokio::{
    runtime::Runtime,
    sync::Semaphore,
    task::{JoinHandle, JoinSet, spawn_blocking},
    time::timeout,
};

use crate::support::{
    TestResult, blocked_backends,
    consumers::{Seen, consumer, drained, gate, pass, prepare, start},
    count, newcomer,
    proxy::Proxy,
    send,
    server::Server,
    stored, until, url, with_queues,
};

/// For what must not take for ever.
const BOUND: Duration = Duration::from_secs(60);

/// For what is to be over at once: not after a time-out of a statement, or of the pool.
const PROMPTLY: Duration = Duration::from_secs(8);

async fn with_connections(pool: &PgPool, max_connections: u32) -> pgqrs::Result<Store> {
    let options = ConnectOptions::builder()
        .url(url(pool))
        .max_connections(max_connections);
    pgqrs::connect_with(options.build()).await
}

/// Holds up all sends, until the transaction ends.
async fn hold_up(pool: &PgPool) -> sqlx::Result<Transaction<'static, Postgres>> {
    let mut holder = pool.begin().await?;
    sqlx::query("lock table pgqrs.messages in share mode")
        .execute(&mut *holder)
        .await?;
    Ok(holder)
}

async fn single(store: &Store, payload: &str) -> pgqrs::Result<MessageId> {
    Ok(send(store, &[payload]).await?[0])
}

/// A runtime of one thread: its tasks run only while a thread is inside of `block_on`.
fn current_thread() -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
}

/// Waits at a gate, but not for ever: a test that has failed meanwhile would not end.
async fn passed(gate: &Semaphore) {
    let _ = timeout(BOUND, pass(gate)).await;
}

/// Notes the events of this thread, which is the only one of a test's runtime.
#[derive(Clone, Default)]
struct Events(Arc<Mutex<Vec<String>>>);

impl tracing::Subscriber for Events {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target().starts_with("pgqrs")
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        struct Fields(String);
        impl tracing::field::Visit for Fields {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn Debug) {
                self.0 += &format!("{}={value:?} ", field.name());
            }
        }
        let mut fields = Fields(format!("{} ", event.metadata().level()));
        event.record(&mut fields);
        self.0.lock().expect("not poisoned").push(fields.0);
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

type Handling = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// A handler that waits at a gate; and how many wait there.
fn wait_at(
    gate: &Arc<Semaphore>,
    waiting: &Arc<AtomicUsize>,
) -> impl Fn(Delivery<Value>) -> Handling + Send + Sync + 'static + use<> {
    let (gate, waiting) = (Arc::clone(gate), Arc::clone(waiting));
    move |_| {
        let gate = Arc::clone(&gate);
        waiting.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move {
            pass(&gate).await;
            Outcome::Done
        })
    }
}

/// A consumer with handlers at work, and the gates that these wait at.
struct Busy {
    handle: ConsumerHandle,
    run: JoinHandle<pgqrs::Result<Report>>,
    gate: Arc<Semaphore>,
}

/// On a queue of its own with two messages, each of which a handler waits with.
async fn busy(store: &Store, queue: &'static str, deadline: Duration) -> pgqrs::Result<Busy> {
    store.queue(queue).await?;
    let batch = pgqrs::enqueue().messages(&[1, 2]).to(queue);
    batch.execute(store).await?;
    let consumer = prepare(pgqrs::consumer(queue).identity("my-service", 3001)).concurrency(2);
    let consumer = consumer.create(store).await?;
    let (handle, gate, waiting) = (consumer.handle(), gate(), Arc::default());
    let run = consumer
        .run(wait_at(&gate, &waiting))
        .shutdown_deadline(deadline);
    let run = tokio::spawn(run);
    until("both are at work", async || {
        waiting.load(Ordering::SeqCst) == 2
    })
    .await;
    Ok(Busy { handle, run, gate })
}

impl Busy {
    /// How it ends, which is to be within this time and a little.
    async fn ends_within(
        self,
        limit: Duration,
    ) -> Result<pgqrs::Result<Report>, Box<dyn std::error::Error>> {
        const MARGIN: Duration = Duration::from_millis(1_500);
        let started = Instant::now();
        let ended = timeout(BOUND, self.run).await??;
        let took = started.elapsed();
        assert!(took < limit + MARGIN, "{took:?}, {ended:?}");
        Ok(ended)
    }
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn handlers_that_use_up_the_pool_lose_no_lease_and_their_worker_stays_alive(
    pool: PgPool,
) -> TestResult {
    const HANDLERS: usize = 8;
    with_queues(&pool, &["tasks"]).await?;
    let store = with_connections(&pool, 2).await?;
    let payloads: Vec<_> = (0..HANDLERS).collect();
    send(&store, &payloads).await?;
    let events = Events::default();
    let subscriber = tracing::subscriber::set_default(events.clone());
    let seen = Seen::default();
    // It counts as crashed four seconds after its last heartbeat, and they take six.
    let registered = || consumer().heartbeat_interval(Duration::from_secs(1));
    let running = start(
        registered()
            .concurrency(HANDLERS)
            .lease(Duration::from_secs(1))
            .create(&store)
            .await?,
        {
            let (store, seen) = (store.clone(), seen.clone());
            move |delivery: Delivery<Value>| {
                let (store, seen) = (store.clone(), seen.clone());
                async move {
                    seen.note(delivery.raw_payload());
                    let mut work = store.pool().begin().await?;
                    // Longer than the lease, and the last of them wait for four such.
                    sqlx::query("select pg_sleep(1.5)")
                        .execute(&mut *work)
                        .await?;
                    work.commit().await
                }
            }
        },
    );
    until("all are handled, and the worker is alive", async || {
        let taken_over = registered().create(&newcomer(&pool)).await;
        assert!(
            matches!(taken_over, Err(Error::WorkerExists { .. })),
            "{taken_over:?}"
        );
        count(&pool).await.expect("counted") == 0
    })
    .await;
    let report = running.stop().await?;
    drop(subscriber);
    assert_eq!((report.done, report.lost), (HANDLERS as u64, 0));
    assert_eq!(seen.times().values().sum::<u32>(), HANDLERS as u32);
    let events = events.0.lock().expect("not poisoned");
    let warned = events.iter().find(|event| {
        event.starts_with("WARN") && event.contains("raise `max_connections` above `concurrency`")
    });
    assert!(
        warned.is_some_and(|event| event.contains("max_connections=2")),
        "{events:?}"
    );
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn with_fewer_handlers_than_connections_there_is_no_warning(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let store = with_connections(&pool, 3).await?;
    let events = Events::default();
    let subscriber = tracing::subscriber::set_default(events.clone());
    let consumer = consumer().concurrency(2).create(&store).await?;
    let running = start(consumer, Seen::default().handler());
    send(&store, &[1]).await?;
    drained(&pool).await;
    running.stop().await?;
    drop(subscriber);
    let events = events.0.lock().expect("not poisoned");
    assert!(
        events.iter().all(|event| !event.starts_with("WARN")),
        "{events:?}"
    );
    Ok(())
}

/// The application uses all connections of the pool, so the loop's next claim waits for one.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn acknowledgements_do_not_wait_for_a_claim_that_waits_for_a_connection(
    pool: PgPool,
) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let options = ConnectOptions::builder()
        .url(url(&pool))
        .max_connections(2)
        .acquire_timeout(BOUND);
    let store = pgqrs::connect_with(options.build()).await?;
    let busy = busy(&store, "tasks", BOUND).await?;
    let all = [store.pool().acquire().await?, store.pool().acquire().await?];
    for left in [1, 0] {
        busy.gate.add_permits(1);
        until("it is acknowledged", async || {
            count(&pool).await.expect("counted") == left
        })
        .await;
    }
    drop(all);
    busy.handle.stop();
    assert_eq!(busy.ends_within(PROMPTLY).await??.done, 2);
    Ok(())
}

/// Tasks that send in a loop until they are stopped; how many were sent, and how many refused with `Closed`.
struct Senders {
    is_over: Arc<AtomicBool>,
    sent: Arc<AtomicUsize>,
    refused: Arc<AtomicUsize>,
    tasks: JoinSet<pgqrs::Result<()>>,
}

impl Senders {
    fn start(store: &Store, tasks: usize) -> Self {
        let mut senders = Self {
            is_over: Arc::default(),
            sent: Arc::default(),
            refused: Arc::default(),
            tasks: JoinSet::new(),
        };
        for _ in 0..tasks {
            let store = store.clone();
            let is_over = Arc::clone(&senders.is_over);
            let (sent, refused) = (Arc::clone(&senders.sent), Arc::clone(&senders.refused));
            senders.tasks.spawn(async move {
                while !is_over.load(Ordering::Relaxed) {
                    match single(&store, "sent").await {
                        Ok(_) => sent.fetch_add(1, Ordering::Relaxed),
                        Err(Error::Closed) => refused.fetch_add(1, Ordering::Relaxed),
                        Err(error) => return Err(error),
                    };
                    tokio::task::yield_now().await;
                }
                Ok(())
            });
        }
        senders
    }

    fn sent(&self) -> usize {
        self.sent.load(Ordering::Relaxed)
    }

    fn refused(&self) -> usize {
        self.refused.load(Ordering::Relaxed)
    }

    async fn stop(&mut self) -> TestResult {
        self.is_over.store(true, Ordering::Relaxed);
        while let Some(ended) = timeout(BOUND, self.tasks.join_next()).await? {
            ended??;
        }
        Ok(())
    }
}

/// Sends must not keep a small pool's connections to themselves.
async fn take_turns(pool: PgPool, max_connections: u32) -> TestResult {
    const HANDLED: usize = 1_000;
    with_queues(&pool, &["tasks"]).await?;
    let store = with_connections(&pool, max_connections).await?;
    let registered = || consumer().heartbeat_interval(Duration::from_millis(500));
    let handled = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&handled);
    let running = start(registered().create(&store).await?, move |_| {
        counter.fetch_add(1, Ordering::Relaxed);
        std::future::ready(Outcome::Done)
    });
    let mut senders = Senders::start(&store, 16);
    until("the consumer gets on", async || {
        let taken_over = registered().create(&newcomer(&pool)).await;
        assert!(
            matches!(taken_over, Err(Error::WorkerExists { .. })),
            "{taken_over:?}"
        );
        // What else there is to call.
        pgqrs::admin(&store)
            .queue("tasks")
            .await
            .expect("a connection in turn");
        handled.load(Ordering::Relaxed) >= HANDLED
    })
    .await;
    // A message may be handled before its sender knows that it is stored.
    senders.stop().await?;
    assert!(senders.sent() >= HANDLED);
    assert_eq!(senders.refused(), 0);
    let report = running.stop().await?;
    assert_eq!((report.lost, report.unknown), (0, 0), "{report:?}");
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn sends_and_a_consumer_share_a_pool_of_one_connection(pool: PgPool) -> TestResult {
    take_turns(pool, 1).await
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn sends_and_a_consumer_share_a_pool_of_two_connections(pool: PgPool) -> TestResult {
    take_turns(pool, 2).await
}
