//! Small pools, runtimes that rest or end, a pool that is closed, an unavailable server: nothing starves, and nothing hangs.

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
    // It counts as crashed two seconds after its last heartbeat.
    let registered = || consumer().heartbeat_interval(Duration::from_millis(500));
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
    assert!(senders.sent() >= HANDLED);
    senders.stop().await?;
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

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_runtime_that_rests_with_sends_under_way_holds_up_no_other_ones_sends(
    pool: PgPool,
) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let options = ConnectOptions::builder()
        .url(url(&pool))
        .retry_for(Duration::from_secs(600));
    let store = pgqrs::connect_with(options.build()).await?;
    let holder = hold_up(&pool).await?;
    // One is its own writer, the store's two writers have others, and the rest is pending behind them.
    let begun = Arc::new(Semaphore::new(0));
    let resting = spawn_blocking({
        let (store, begun) = (store.clone(), Arc::clone(&begun));
        move || -> std::io::Result<_> {
            let runtime = current_thread()?;
            let calls: Vec<_> = (0..8)
                .map(|n| {
                    let store = store.clone();
                    runtime.spawn(async move { single(&store, &format!("resting {n}")).await })
                })
                .collect();
            runtime.block_on(passed(&begun));
            Ok((runtime, calls))
        }
    });
    blocked_backends(&pool, "advanced", 3).await;
    begun.add_permits(1);
    let (runtime, calls) = resting.await??;
    holder.rollback().await?;

    // Far less than `retry_for`, or what a statement's answer is waited for.
    for n in 0..20 {
        timeout(BOUND, single(&store, &format!("driven {n}"))).await??;
    }
    // Driven again, they come to their ends.
    let driven = spawn_blocking(move || {
        runtime.block_on(async {
            let mut ends = Vec::new();
            for call in calls {
                ends.push(timeout(BOUND, call).await);
            }
            ends
        })
    });
    for end in driven.await? {
        end???;
    }
    let stored = stored(&pool).await?;
    let mut payloads: Vec<_> = stored.iter().map(|m| &*m.payload).collect();
    payloads.sort_unstable();
    payloads.dedup();
    assert_eq!((payloads.len(), stored.len()), (28, 28), "each once");
    Ok(())
}

type Call = Pin<Box<dyn Future<Output = pgqrs::Result<MessageId>> + Send>>;

/// So that it runs on this runtime, even if it is awaited on another one later.
async fn poll_once(call: &mut Call) {
    poll_fn(|context| {
        assert!(call.as_mut().poll(context).is_pending());
        Poll::Ready(())
    })
    .await;
}

fn is_not_stored(error: &Error) -> bool {
    matches!(error, Error::NotStored { source, .. } if is_of_an_ended_runtime(source))
}

fn is_of_an_ended_runtime(error: &Error) -> bool {
    let Error::ConnectionLost(source) = error else {
        return false;
    };
    source
        .to_string()
        .contains("runtime that was sending has ended")
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn when_a_runtime_ends_the_callers_of_its_sends_learn_that_and_what_became_of_them(
    pool: PgPool,
) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let store = with_connections(&pool, 10).await?;
    single(&store, "before").await?;
    let holder = hold_up(&pool).await?;
    let call = |payload: &'static str| -> Call {
        let store = store.clone();
        Box::pin(async move { single(&store, payload).await })
    };
    let mut direct = call("direct");
    // As many as the store has writers.
    let mut in_flight = [call("first"), call("second")];
    let mut pending = [call("pending"), call("pending")];
    let (taken, added) = (gate(), gate());
    let ended = spawn_blocking({
        let (taken, added) = (Arc::clone(&taken), Arc::clone(&added));
        move || -> std::io::Result<_> {
            let runtime = current_thread()?;
            let calls = runtime.block_on(async move {
                // A task of this runtime's: it is its own writer, and ends with it.
                poll_once(&mut direct).await;
                tokio::spawn(direct);
                for call in &mut in_flight {
                    poll_once(call).await;
                    // Its writer takes it alone.
                    passed(&taken).await;
                }
                for call in &mut pending {
                    poll_once(call).await;
                }
                passed(&added).await;
                (in_flight, pending)
            });
            drop(runtime);
            Ok(calls)
        }
    });
    for blocked in [2, 3] {
        blocked_backends(&pool, "advanced", blocked).await;
        taken.add_permits(1);
    }
    added.add_permits(1);
    let (in_flight, pending) = ended.await??;
    for call in in_flight {
        let unknown = timeout(BOUND, call).await?.unwrap_err();
        let Error::OutcomeUnknown { ids, source } = &unknown else {
            panic!("{unknown:?}");
        };
        assert!(
            ids.len() == 1 && is_of_an_ended_runtime(source),
            "{unknown:?}"
        );
    }
    for call in pending {
        let not_stored = timeout(BOUND, call).await?.unwrap_err();
        assert!(is_not_stored(&not_stored), "{not_stored:?}");
    }
    holder.rollback().await?;
    single(&store, "after").await?;
    let stored = stored(&pool).await?;
    let times = |payload: &str| {
        let payload = format!("\"{payload}\"");
        stored.iter().filter(|m| m.payload == payload).count()
    };
    assert_eq!(
        (times("before"), times("pending"), times("after")),
        (1, 0, 1)
    );
    for payload in ["direct", "first", "second"] {
        assert!(times(payload) <= 1, "{payload}");
    }
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_send_that_waits_for_a_connection_when_its_runtime_ends_is_not_stored(
    pool: PgPool,
) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let store = with_connections(&pool, 1).await?;
    let only = store.pool().acquire().await?;
    let call = || -> Call {
        let store = store.clone();
        Box::pin(async move { single(&store, "sent").await })
    };
    let (mut direct, mut taken) = (call(), call());
    let ended = spawn_blocking(move || -> std::io::Result<_> {
        let runtime = current_thread()?;
        runtime.block_on(async {
            poll_once(&mut direct).await;
            poll_once(&mut taken).await;
            // Its writer takes it, and waits for a connection.
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
        });
        drop((runtime, direct));
        Ok(taken)
    });
    let not_stored = timeout(BOUND, ended.await??).await?.unwrap_err();
    assert!(is_not_stored(&not_stored), "{not_stored:?}");
    drop(only);
    single(&store, "sent").await?;
    assert_eq!(count(&pool).await?, 1);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_runtime_that_ends_keeps_no_connection_of_the_pool(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let store = with_connections(&pool, 4).await?;
    single(&store, "here").await?;
    for _ in 0..3 {
        let store = store.clone();
        let sent = spawn_blocking(move || {
            // It ends before its idle writer has returned its connection.
            current_thread().map(|runtime| runtime.block_on(single(&store, "there")))
        });
        sent.await???;
    }
    let mut all = Vec::new();
    for _ in 0..4 {
        all.push(timeout(BOUND, store.pool().acquire()).await??);
    }
    drop(all);
    timeout(BOUND, store.pool().close()).await?;
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_pool_that_is_closed_while_tasks_send_closes_at_once_and_they_are_refused(
    pool: PgPool,
) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let mut stored = 0;
    for max_connections in [1, 2, 10] {
        let store = with_connections(&pool, max_connections).await?;
        let mut senders = Senders::start(&store, 8);
        until("they are at it", async || senders.sent() > 200).await;
        assert_eq!(senders.refused(), 0);
        timeout(PROMPTLY, store.pool().close()).await?;
        let (sent, refused) = (senders.sent(), senders.refused());
        until("they go on, and are refused", async || {
            senders.refused() > refused + 200
        })
        .await;
        assert_eq!(senders.sent(), sent);
        senders.stop().await?;
        stored += sent;
        assert_eq!(count(&pool).await?, stored as i64);
    }
    Ok(())
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
async fn a_consumer_ends_with_closed_when_its_pool_is_closed(pool: PgPool) -> TestResult {
    const FAR: Duration = Duration::from_secs(600);
    let store = with_connections(&pool, 10).await?;
    store.queue("tasks").await?;
    let idle = start(consumer().create(&store).await?, Seen::default().handler());
    let finishing = busy(&store, "finishing", FAR).await?;
    let endless = busy(&store, "endless", Duration::from_secs(2)).await?;
    timeout(PROMPTLY, store.pool().close()).await?;
    let ended = timeout(PROMPTLY, idle.task).await??;
    assert!(matches!(ended, Err(Error::Closed)), "{ended:?}");
    let ended = endless.ends_within(Duration::from_secs(2)).await?;
    assert!(matches!(ended, Err(Error::Closed)), "{ended:?}");
    // Its handlers are waited for, but nothing that they say can be settled.
    assert!(!finishing.run.is_finished());
    finishing.gate.add_permits(2);
    let ended = timeout(PROMPTLY, finishing.run).await??;
    assert!(matches!(ended, Err(Error::Closed)), "{ended:?}");
    Ok(())
}

/// A settlement waits for a lock, on a connection of the reserve since those of the pool are in use.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_pool_is_closed_at_once_while_its_reserve_is_in_use(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let options = ConnectOptions::builder()
        .url(url(&pool))
        .application_name("reserve")
        .max_connections(2);
    let store = pgqrs::connect_with(options.build()).await?;
    let busy = busy(&store, "tasks", Duration::from_secs(5)).await?;
    let mut holder = pool.begin().await?;
    sqlx::query("select from pgqrs.messages for update")
        .execute(&mut *holder)
        .await?;
    let all = [store.pool().acquire().await?, store.pool().acquire().await?];
    busy.gate.add_permits(2);
    blocked_backends(&pool, "delete from pgqrs.messages", 1).await;
    drop(all);
    timeout(PROMPTLY, store.pool().close()).await?;
    let ended = busy.ends_within(Duration::from_secs(5)).await?;
    assert!(matches!(ended, Err(Error::Closed)), "{ended:?}");
    holder.rollback().await?;
    until("the reserve is closed too", async || {
        let left: i64 = sqlx::query_scalar(
            "select count(*) from pg_stat_activity where application_name = 'reserve'
             and datname = current_database()",
        )
        .fetch_one(&pool)
        .await
        .expect("pg_stat_activity can be read");
        left == 0
    })
    .await;
    Ok(())
}

#[tokio::test]
async fn while_the_server_is_away_a_consumer_ends_within_its_deadline() -> TestResult {
    let (two, five, far) = (
        Duration::from_secs(2),
        Duration::from_secs(5),
        Duration::from_secs(25),
    );
    let server = Server::start().await?;
    let options = || {
        let options = ConnectOptions::builder().url(server.url());
        pgqrs::connect_with(options.install(true).build())
    };
    let (store, closed) = (options().await?, options().await?);
    let within_two = busy(&store, "two", two).await?;
    let within_five = busy(&store, "five", five).await?;
    let after_close = busy(&closed, "closed", two).await?;
    let aborted = busy(&store, "aborted", far).await?;
    let stopped_and_aborted = busy(&store, "twice", far).await?;
    server.down("immediate")?;
    // One of the two has finished, and can't be settled.
    for busy in [
        &within_two,
        &within_five,
        &after_close,
        &aborted,
        &stopped_and_aborted,
    ] {
        busy.gate.add_permits(1);
    }
    timeout(BOUND, closed.pool().close()).await?;
    for busy in [
        &within_two,
        &within_five,
        &after_close,
        &stopped_and_aborted,
    ] {
        busy.handle.stop();
    }
    for busy in [&aborted, &stopped_and_aborted] {
        busy.handle.abort();
    }
    let (within_two, within_five, after_close, aborted, stopped_and_aborted) = tokio::try_join!(
        within_two.ends_within(two),
        within_five.ends_within(five),
        after_close.ends_within(two),
        aborted.ends_within(two),
        stopped_and_aborted.ends_within(two),
    )?;
    assert!(after_close.is_err() || after_close.is_ok_and(|report| report.unknown == 2));
    for ended in [within_two, within_five, aborted, stopped_and_aborted] {
        let report = ended?;
        assert_eq!((report.unknown, report.done), (2, 0), "{report:?}");
    }
    Ok(())
}

/// The server takes what it is sent, and says nothing any more.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn while_the_server_is_silent_a_consumer_ends_within_its_deadline(
    pool: PgPool,
) -> TestResult {
    let deadline = Duration::from_secs(3);
    let (proxy, url) = Proxy::before(&pool).await?;
    let store = pgqrs::connect(&url).await?;
    let stopped = busy(&store, "stopped", deadline).await?;
    let aborted = busy(&store, "aborted", BOUND).await?;
    proxy.swallow();
    for busy in [&stopped, &aborted] {
        busy.gate.add_permits(1);
    }
    stopped.handle.stop();
    aborted.handle.abort();
    let (stopped, aborted) = tokio::try_join!(
        stopped.ends_within(deadline),
        aborted.ends_within(Duration::from_secs(2)),
    )?;
    for ended in [stopped, aborted] {
        assert_eq!(ended?.unknown, 2);
    }
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn an_abort_ends_a_consumer_at_once_and_releases_its_messages(pool: PgPool) -> TestResult {
    let store = with_connections(&pool, 10).await?;
    let at_once = Duration::from_secs(2);
    let first = busy(&store, "first", BOUND).await?;
    let second = busy(&store, "second", BOUND).await?;
    second.handle.stop();
    until("it stops, and waits for its handlers", async || {
        let stopping = pgqrs::admin(&store).queue_stats("second").await;
        stopping.is_ok_and(|stats| stats.leased == 2) && !second.run.is_finished()
    })
    .await;
    first.handle.abort();
    second.handle.abort();
    let (first, second) =
        tokio::try_join!(first.ends_within(at_once), second.ends_within(at_once))?;
    for ended in [first, second] {
        let report = ended?;
        assert_eq!((report.released, report.unknown), (2, 0), "{report:?}");
    }
    for queue in ["first", "second"] {
        let stats = pgqrs::admin(&store).queue_stats(queue).await?;
        assert_eq!((stats.ready, stats.leased), (2, 0));
        // Its identity is free.
        pgqrs::consumer(queue)
            .identity("my-service", 3001)
            .create(&store)
            .await?;
    }
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_store_of_a_pool_is_made_outside_of_a_runtime(pool: PgPool) -> TestResult {
    let store = std::thread::spawn(move || Store::from(pool)).join();
    let store = store.map_err(|_| "it panicked")?;
    store.queue("tasks").await?;
    single(&store, "sent").await?;
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_runtime_that_ends_takes_no_other_ones_heartbeats_along(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let store = with_connections(&pool, 10).await?;
    // Its heartbeats begin on this runtime, and those of others join them.
    let runtime = Runtime::new()?;
    let first = runtime.spawn({
        let store = store.clone();
        async move { pgqrs::producer("host", 1, "tasks").create(&store).await }
    });
    let _first = first.await??;
    let often = consumer().heartbeat_interval(Duration::from_millis(100));
    let running = start(often.create(&store).await?, Seen::default().handler());
    runtime.shutdown_background();
    let heartbeat = async || -> sqlx::Result<DateTime<Utc>> {
        sqlx::query_scalar("select heartbeat_at from pgqrs.workers where kind = 'consumer'")
            .fetch_one(&pool)
            .await
    };
    for _ in 0..3 {
        let last = heartbeat().await?;
        until("there is another heartbeat", async || {
            heartbeat().await.is_ok_and(|now| now > last)
        })
        .await;
    }
    running.stop().await?;
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_runtime_that_ends_does_not_keep_other_consumers_from_being_woken(
    pool: PgPool,
) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let store = with_connections(&pool, 10).await?;
    let listeners = async || -> i64 {
        let listening = "select count(*) from pg_stat_activity
             where datname = current_database() and query like 'LISTEN%'";
        let counted = sqlx::query_scalar(listening).fetch_one(&pool).await;
        counted.expect("counted")
    };
    let mut registered = Vec::new();
    for port in [1, 2] {
        let builder = prepare(pgqrs::consumer("tasks").identity("my-service", port));
        // It claims now and then, but finds nothing in time by itself.
        registered.push(builder.poll_interval(BOUND).create(&store).await?);
    }
    // The first one starts to listen, for both.
    let runtime = Runtime::new()?;
    let seen = Seen::default();
    let first = registered.remove(0).run(seen.handler());
    let first = runtime.spawn(first);
    until("one listens", async || listeners().await == 1).await;
    let second = start(registered.remove(0), seen.handler());
    runtime.shutdown_background();
    assert!(first.await.is_err());
    until("no session listens", async || listeners().await == 0).await;
    // What this store sends wakes it without LISTEN, and then it listens again.
    send(&store, &["first"]).await?;
    drained(&pool).await;
    until("it listens again", async || listeners().await == 1).await;
    send(&with_connections(&pool, 2).await?, &["second"]).await?;
    until("it was woken by another", async || seen.len() == 2).await;
    second.stop().await?;
    Ok(())
}
