//! What a role, an operator, a process or a type may do besides: defaults that cut statements off, administration while
//! handlers are at work, times that no calendar has, values that panic when they are dropped.

use std::{
    collections::BTreeMap,
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    process::Stdio,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, Utc};
use pgqrs::{
    ConnectOptions, Delivery, Error, MessageId, Outcome, Page, Queue, QueueOptions, RetryPolicy,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    task::JoinHandle,
    time::timeout,
};

use crate::{
    examples::compiled,
    faults::{self, Ledger},
    sends::{BOUND, alter, end_sessions, forget, hold_up, sending, user},
    support::{
        TestResult, blocked_backend, claim,
        consumers::{Seen, consumer, drained, gate, pass, prepare, start},
        count, newcomer,
        proxy::Proxy,
        scale, send,
        server::Server,
        until, until_within, with_queues,
    },
};

/// When those statements began that wait for a lock.
async fn waiting_since(pool: &PgPool) -> Option<(DateTime<Utc>, DateTime<Utc>)> {
    let (first, last) = sqlx::query_as(
        "select min(query_start), max(query_start) from pg_stat_activity
         where datname = current_database() and wait_event_type = 'Lock'",
    )
    .fetch_one(pool)
    .await
    .expect("pg_stat_activity can be read");
    Option::zip(first, last)
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn whatever_a_role_has_for_its_defaults_all_is_sent_and_handled(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let (user, to) = user(&pool).await?;
    for (setting, cuts_off) in [
        ("statement_timeout = '2s'", true),
        ("lock_timeout = '500ms'", true),
        ("idle_in_transaction_session_timeout = '2s'", false),
        ("default_transaction_isolation = 'serializable'", false),
        ("default_transaction_isolation = 'repeatable read'", false),
        ("default_transaction_deferrable = on", false),
        ("search_path = ''", false),
        ("datestyle = 'German'", false),
        ("timezone = 'Australia/Eucla'", false),
        ("bytea_output = 'escape'", false),
        ("enable_indexscan = off", false),
    ] {
        alter(
            &pool,
            &format!("alter role {user} reset all; alter role {user} set {setting}"),
        )
        .await?;
        let options = ConnectOptions::builder().url(&to).retry_for(BOUND);
        let store = pgqrs::connect_with(options.build()).await?;
        let seen = Seen::default();
        let running = start(consumer().create(&store).await?, seen.handler());
        // As `create index` would.
        let holder = hold_up(&pool).await?;
        let batch = {
            let store = store.clone();
            tokio::spawn(async move { send(&store, &(1_000..3_500).collect::<Vec<_>>()).await })
        };
        let calls: Vec<_> = (0..64).map(|n| sending(&store, json!(n))).collect();
        blocked_backend(&pool, "pgqrs.messages").await;
        if cuts_off {
            let (_, last) = waiting_since(&pool).await.expect("some wait");
            until("all that waited were cut off, and wait again", async || {
                waiting_since(&pool)
                    .await
                    .is_some_and(|(first, _)| first > last)
            })
            .await;
        }
        holder.rollback().await?;
        for call in calls {
            timeout(BOUND, call).await???;
        }
        assert_eq!(timeout(BOUND, batch).await???.len(), 2_500);
        drained(&pool).await;
        let report = running.stop().await?;
        assert_eq!(
            (report.done, report.lost),
            (2_564, 0),
            "{setting}: {report:?}"
        );
        assert!(seen.times().values().all(|times| *times == 1), "{setting}");
        assert_eq!(seen.len(), 2_564, "{setting}");
        store.pool().close().await;
    }
    forget(&pool, &user).await
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn while_a_role_may_only_read_sends_wait_and_a_loop_goes_on(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let (user, to) = user(&pool).await?;
    let connect = async |retry_for| {
        let options = ConnectOptions::builder().url(&to).retry_for(retry_for);
        pgqrs::connect_with(options.build()).await
    };
    let store = connect(BOUND).await?;
    let hasty = connect(Duration::from_millis(500)).await?;
    let seen = Seen::default();
    let running = start(consumer().create(&store).await?, seen.handler());
    send(&store, &[1]).await?;
    drained(&pool).await;
    let only_reads = format!("alter role {user} set default_transaction_read_only = on");
    alter(&pool, &only_reads).await?;
    end_sessions(&pool).await?;
    let refused = timeout(BOUND, send(&hasty, &[2])).await?.unwrap_err();
    assert!(
        matches!(
            refused,
            Error::NotStored { .. } | Error::OutcomeUnknown { .. }
        ),
        "{refused:?}"
    );
    let other = pgqrs::consumer("tasks").identity("other", 3002);
    let refused = other.create(&hasty).await.unwrap_err();
    assert!(
        matches!(refused, Error::Database(_)) && refused.is_retryable(),
        "{refused:?}"
    );
    let waits = sending(&store, json!(3));
    // Nothing keeps what others send from this role's consumer but that it can't claim it.
    send(&newcomer(&pool), &[4]).await?;
    assert!(!waits.is_finished() && !running.task.is_finished());
    alter(&pool, &format!("alter role {user} reset all")).await?;
    timeout(BOUND, waits).await???;
    drained(&pool).await;
    running.stop().await?;
    assert_eq!(
        seen.times().into_keys().collect::<Vec<_>>(),
        ["1", "3", "4"]
    );
    for store in [store, hasty] {
        store.pool().close().await;
    }
    forget(&pool, &user).await
}

async fn listens(direct: &PgPool) {
    until("the consumer listens", async || {
        let listening: sqlx::Result<i64> = sqlx::query_scalar(
            "select count(*) from pg_stat_activity where query ilike 'listen%' and state = 'idle'",
        )
        .fetch_one(direct)
        .await;
        listening.is_ok_and(|listening| listening == 1)
    })
    .await;
}

/// It polls so seldom that only a hint wakes it.
#[tokio::test]
async fn a_consumer_that_listens_is_notified_again_after_each_restart() -> TestResult {
    let server = Arc::new(Server::start().await?);
    let direct = faults::direct(&server).await?;
    let proxy = Proxy::start("127.0.0.1", server.port()).await?;
    let connect = async |port: u16| {
        pgqrs::connect(&format!("postgres://postgres@127.0.0.1:{port}/postgres")).await
    };
    let (sender, store) = (connect(server.port()).await?, connect(proxy.port()).await?);
    let seen = Seen::default();
    let idle = consumer().poll_interval(Duration::from_secs(60 * 60));
    let running = start(idle.create(&store).await?, seen.handler());
    let mut sent = 0;
    let mut send_one = async || {
        sent += 1;
        send(&sender, &[sent]).await.map(|_| sent)
    };
    for mode in ["fast", "immediate"].repeat(scale()) {
        // A crash would undo a claim whose message is handled and not acknowledged yet, and it would come again.
        drained(&direct).await;
        listens(&direct).await;
        server.restart_beside(mode).await?;
        // While it still looks for the server.
        let sent = send_one().await?;
        until("it is handled", async || seen.len() == sent).await;
        listens(&direct).await;
        let sent = send_one().await?;
        until("it is handled", async || seen.len() == sent).await;
    }
    // What is sent while it can't reach the server, it finds when it can again. In a transaction, which sends no notification.
    listens(&direct).await;
    drained(&direct).await;
    proxy.fail_over(1);
    let mut tx = direct.begin().await?;
    let enqueue = pgqrs::enqueue().message(&"not announced").to("tasks");
    enqueue.execute(&mut tx).await?;
    tx.commit().await?;
    let sent = seen.len() + 1;
    proxy.fail_over(server.port());
    until("it is handled", async || seen.len() == sent).await;
    running.stop().await?;
    assert!(seen.times().values().all(|times| *times == 1));
    Ok(())
}

/// A process of `tests/process/`, and the task that notes what it says.
struct Process {
    child: Child,
    listening: JoinHandle<()>,
}

impl Process {
    fn start(
        program: &str,
        n: usize,
        url: &str,
        ledger: &Arc<Ledger>,
    ) -> Result<Self, Box<dyn std::error::Error>> {
        let mut child = Command::new(compiled(program))
            .arg(n.to_string())
            .env("DATABASE_URL", url)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let mut lines = BufReader::new(child.stdout.take().ok_or("no output")?).lines();
        let ledger = Arc::clone(ledger);
        let listening = tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                faults::note_line(&line, &ledger);
            }
        });
        Ok(Self { child, listening })
    }

    /// SIGKILL. What it has said before still counts.
    async fn kill(mut self) -> TestResult {
        assert!(self.child.try_wait()?.is_none(), "it ended by itself");
        self.child.kill().await?;
        Ok(timeout(BOUND, self.listening).await??)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_processes_on_one_queue_lose_nothing_and_store_nothing_twice() -> TestResult {
    const PROCESSES: usize = 50;
    let server = Server::start().await?;
    server.down("fast")?;
    server.set("max_connections=500".to_owned());
    server.up()?;
    let direct = faults::direct(&server).await?;
    let ledger = Arc::new(Ledger::default());
    let start = |program: &str| -> Result<Vec<_>, _> {
        (0..PROCESSES / 2)
            .map(|n| Process::start(program, n, &server.url(), &ledger))
            .collect()
    };
    let producers = start("producer_process")?;
    let handlers = start("handler_process")?;
    let wanted = 2_000 * scale();
    let is_enough = until_within(BOUND * 5 * u32::try_from(scale())?, async || {
        ledger.sent.load(Ordering::Relaxed) >= wanted
    });
    assert!(is_enough.await, "they send too slowly");
    for producer in producers {
        producer.kill().await?;
    }
    let is_drained = until_within(BOUND * 2, async || {
        count(&direct).await.is_ok_and(|left| left == 0)
    });
    assert!(is_drained.await, "messages are left");
    for handler in handlers {
        handler.kill().await?;
    }
    let summary = faults::check(&ledger, &direct).await?;
    println!("tried: {PROCESSES} processes; {summary}");
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn administration_while_handlers_run_loses_nothing_else(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let admin = pgqrs::admin(&store);
    let (seen, gate) = (Seen::default(), gate());
    let steady = consumer()
        .concurrency(8)
        .lease(Duration::from_secs(3))
        .create(&store)
        .await?;
    let worker = steady.id();
    let running = start(steady, {
        let (seen, gate) = (seen.clone(), Arc::clone(&gate));
        move |delivery: Delivery<Value>| {
            let (seen, gate) = (seen.clone(), Arc::clone(&gate));
            async move {
                pass(&gate).await;
                seen.note(delivery.raw_payload());
                match delivery.raw_payload() {
                    "2" => Outcome::DeadLetter("as requested".to_owned()),
                    _ => Outcome::Done,
                }
            }
        }
    });
    let ids = send(&store, &(0..20).collect::<Vec<_>>()).await?;
    until("each handler has one", async || {
        admin
            .queue_stats("tasks")
            .await
            .is_ok_and(|stats| stats.leased == 8)
    })
    .await;
    assert_eq!(admin.held_messages(worker).await?.len(), 8);
    let refused = admin.delete_queue("tasks").await.unwrap_err();
    assert!(
        matches!(refused, Error::QueueNotEmpty { messages: 20, .. }),
        "{refused:?}"
    );
    assert!(!admin.cancel("tasks", ids[0]).await?, "it is leased");
    assert!(
        !admin.reschedule("tasks", ids[0], Utc::now()).await?,
        "it is leased"
    );
    assert!(admin.cancel("tasks", ids[19]).await?, "it is not leased");
    // From now on those that handlers have may fail no more.
    let once = QueueOptions::builder().max_attempts(1).build();
    admin.configure_queue("tasks", once).await?;
    gate.add_permits(8);
    until("the first eight are handled", async || seen.len() == 8).await;
    until("one is a dead letter", async || {
        admin
            .dead_letter_count("tasks")
            .await
            .is_ok_and(|dead| dead == 1)
    })
    .await;
    // Requeued while others are handled, it is handled again, with all of its attempts.
    assert_eq!(admin.requeue_all("tasks", Duration::ZERO).await?, 1);
    gate.add_permits(4);
    until("four more are handled", async || {
        seen.times().values().sum::<u32>() == 12
    })
    .await;
    until("each handler has one again", async || {
        let stats = admin.queue_stats("tasks").await;
        stats.is_ok_and(|stats| stats.leased == stats.total().min(8))
    })
    .await;
    // All that is left is purged under the handlers that have it, which don't notice.
    assert!(admin.purge_queue("tasks").await? > 0);
    assert_eq!(count(&pool).await?, 0);
    send(&store, &[100, 101]).await?;
    gate.add_permits(100);
    drained(&pool).await;
    until("the new ones are handled", async || {
        let times = seen.times();
        times.contains_key("100") && times.contains_key("101")
    })
    .await;
    assert!(!running.task.is_finished());
    // With the queue, its consumers come to their end.
    until("the queue is deleted", async || {
        admin
            .purge_dead_letters("tasks", Duration::ZERO)
            .await
            .is_ok()
            && admin.delete_queue("tasks").await.is_ok()
    })
    .await;
    let ended = timeout(BOUND, running.task).await??;
    assert!(
        matches!(ended, Err(Error::QueueNotFound { .. })) || ended.is_ok(),
        "{ended:?}"
    );
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn an_import_without_an_end_holds_a_chunk_and_can_be_stopped(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let pulled = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&pulled);
    let numbers = (0_u64..).inspect(move |_| {
        counter.fetch_add(1, Ordering::Relaxed);
    });
    let mut import = pgqrs::enqueue().to("tasks").import(numbers);
    for chunks in 1..=5 * scale() as u64 {
        let stored = import.next(&store).await?.expect("there is no end");
        assert_eq!(stored.len(), 1_000);
        // Nothing is read ahead.
        assert_eq!(pulled.load(Ordering::Relaxed), chunks * 1_000);
    }
    let sent = import.sent() as i64;
    drop(import);
    send(&store, &["afterwards"]).await?;
    assert_eq!(count(&pool).await?, sent + 1);
    Ok(())
}

/// Can't be written, and panics.
struct Unwritable(u32);

impl Serialize for Unwritable {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        assert_ne!(self.0, 3, "not this one");
        self.0.serialize(serializer)
    }
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_panic_in_an_iterator_or_a_payload_leaves_import_and_store_whole(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let numbers = (0..10).inspect(|n| assert_ne!(*n, 3, "not this one"));
    let mut of_iterator = pgqrs::enqueue().to("tasks").import(numbers);
    let mut of_payload = pgqrs::enqueue().to("tasks").import((0..10).map(Unwritable));
    let panics = catch_unwind(AssertUnwindSafe(|| drop(of_iterator.next(&store))));
    assert!(panics.is_err());
    let panics = catch_unwind(AssertUnwindSafe(|| drop(of_payload.next(&store))));
    assert!(panics.is_err());
    assert_eq!(count(&pool).await?, 0);
    // What was read before the panic isn't lost, nor what comes after it.
    assert_eq!(
        of_iterator.next(&store).await?.expect("the others").len(),
        9
    );
    assert!(of_iterator.next(&store).await?.is_none());
    assert_eq!(of_payload.next(&store).await?.expect("the others").len(), 9);
    assert!(of_payload.next(&store).await?.is_none());
    // In a task that it ends, and in calls without an import.
    let task = tokio::spawn({
        let store = store.clone();
        async move {
            pgqrs::enqueue()
                .message(&Unwritable(3))
                .to("tasks")
                .execute(&store)
                .await
        }
    });
    assert!(task.await.is_err_and(|error| error.is_panic()));
    let batch: Vec<_> = (0..10).map(Unwritable).collect();
    let panics = catch_unwind(AssertUnwindSafe(|| {
        drop(
            pgqrs::enqueue()
                .messages(&batch)
                .to("tasks")
                .execute(&store),
        );
    }));
    assert!(panics.is_err());
    send(&store, &["afterwards"]).await?;
    assert_eq!(count(&pool).await?, 19);
    Ok(())
}

async fn set_time(pool: &PgPool, message: MessageId, time: &str) -> TestResult {
    let set = "update pgqrs.messages set visible_at = $2::timestamptz where id = $1";
    let set = sqlx::query(set).bind(message.get()).bind(time);
    assert_eq!(set.execute(pool).await?.rows_affected(), 1);
    Ok(())
}

async fn set_lease(pool: &PgPool, message: MessageId, until: &str) -> TestResult {
    let set = "update pgqrs.messages set lease_until = $2::timestamptz where id = $1";
    let set = sqlx::query(set).bind(message.get()).bind(until);
    assert_eq!(set.execute(pool).await?.rows_affected(), 1);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_time_that_no_calendar_has_is_ready_or_never_ready_and_breaks_nothing(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let admin = pgqrs::admin(&store);
    let ids = send(&store, &[0, 1, 2, 3]).await?;
    for (id, time) in ids
        .iter()
        .zip(["-infinity", "infinity", "4700-01-01 BC", "1960-01-01"])
    {
        set_time(&pool, *id, time).await?;
    }
    let listed = admin.messages("tasks", Page::default()).await?;
    assert_eq!(listed.len(), 4);
    assert!(listed[0].visible_at <= listed[3].visible_at);
    assert!(listed[3].visible_at < DateTime::UNIX_EPOCH && listed[1].visible_at > Utc::now());
    let stats = admin.queue_stats("tasks").await?;
    assert_eq!((stats.ready, stats.delayed, stats.leased), (3, 1, 0));
    let oldest = stats.oldest_ready.expect("three are ready");
    assert!(
        oldest > Duration::from_secs(2_000 * 365 * 24 * 60 * 60),
        "{oldest:?}"
    );
    // By a store that hasn't looked, and by one that has, which may look past it for a moment.
    let delivered = claim(&newcomer(&pool), 10).await?;
    let delivered: Vec<_> = delivered.iter().map(Delivery::id).collect();
    assert_eq!(delivered, [ids[0], ids[2], ids[3]]);
    assert!(claim(&store, 10).await?.is_empty());
    set_lease(&pool, ids[0], "-infinity").await?;
    until("it is delivered again", async || {
        let again = claim(&store, 1).await.expect("claimed");
        again.iter().any(|delivery| delivery.id() == ids[0])
    })
    .await;
    // One that is parked for ever can be moved, and cancelled.
    assert!(admin.reschedule("tasks", ids[1], Utc::now()).await?);
    let delivery = claim(&newcomer(&pool), 1)
        .await?
        .pop()
        .expect("it is ready");
    assert_eq!(delivery.id(), ids[1]);
    set_lease(&pool, ids[1], "infinity").await?;
    delivery.extend(Duration::from_secs(60)).await?;
    delivery.ack(&store).await?;
    let parked = send(&store, &["parked"]).await?[0];
    set_time(&pool, parked, "infinity").await?;
    assert!(admin.cancel("tasks", parked).await?);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_lease_that_was_set_to_infinity_is_extended_and_settled(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let admin = pgqrs::admin(&store);
    let gate = gate();
    let steady = consumer()
        .lease(Duration::from_secs(1))
        .create(&store)
        .await?;
    let worker = steady.id();
    let seen = Seen::default();
    let running = start(steady, {
        let (seen, gate) = (seen.clone(), Arc::clone(&gate));
        move |delivery: Delivery<Value>| {
            let (seen, gate) = (seen.clone(), Arc::clone(&gate));
            async move {
                pass(&gate).await;
                seen.note(delivery.raw_payload());
                Outcome::Done
            }
        }
    });
    let ids = send(&store, &[0, 1, 2]).await?;
    until("all are leased", async || {
        admin
            .queue_stats("tasks")
            .await
            .is_ok_and(|stats| stats.leased == 3)
    })
    .await;
    set_lease(&pool, ids[0], "infinity").await?;
    let leases = async || -> Result<BTreeMap<_, _>, Error> {
        let held = admin.held_messages(worker).await?;
        Ok(held
            .into_iter()
            .map(|held| (held.id, held.lease_expires_at))
            .collect())
    };
    let before = leases().await?;
    // Twice, so that an extension has included the one without an end.
    for _ in 0..2 {
        let before = leases().await?;
        until("the others are extended", async || {
            let now = leases().await.expect("read");
            now.get(&ids[1]) > before.get(&ids[1]) && now.get(&ids[2]) > before.get(&ids[2])
        })
        .await;
    }
    let after = leases().await?;
    assert_eq!(after.len(), 3);
    assert_eq!(after[&ids[0]], before[&ids[0]], "it is never shortened");
    gate.add_permits(3);
    drained(&pool).await;
    let report = running.stop().await?;
    assert_eq!((report.done, report.lost), (3, 0), "{report:?}");
    assert!(seen.times().values().all(|times| *times == 1));
    Ok(())
}

/// Panics when it is dropped, unless it is even.
struct Fragile(u32);

impl<'de> Deserialize<'de> for Fragile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        u32::deserialize(deserializer).map(Self)
    }
}

impl Drop for Fragile {
    fn drop(&mut self) {
        assert!(
            self.0.is_multiple_of(2) || std::thread::panicking(),
            "{} panics when it is dropped",
            self.0
        );
    }
}

const FRAGILE: Queue<Fragile> = Queue::new("tasks");

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_payload_that_panics_when_it_is_dropped_stops_no_loop(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let admin = pgqrs::admin(&store);
    let twice = QueueOptions::builder().max_attempts(2).build();
    admin.configure_queue("tasks", twice).await?;
    let handled = Arc::new(Mutex::new(Vec::new()));
    let steady = prepare(pgqrs::consumer(FRAGILE).identity("my-service", 3001))
        .concurrency(2)
        .retry(RetryPolicy::fixed(Duration::ZERO))
        .poll_interval(Duration::from_millis(20))
        .handler_timeout(Duration::from_millis(200))
        .create(&store)
        .await?;
    let (handle, noting) = (steady.handle(), Arc::clone(&handled));
    let run = steady.run(move |delivery: Delivery<Fragile>| {
        let handled = Arc::clone(&noting);
        async move {
            let number = delivery.payload().0;
            handled
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(number);
            match number % 8 {
                // Dropped at its end.
                1 => {}
                // Dropped at its time-out, and at the abort.
                3 => std::future::pending().await,
                // Dropped ahead of its end, on another thread.
                5 => {
                    let dropped = tokio::task::spawn_blocking(move || drop(delivery)).await;
                    assert!(dropped.is_err());
                }
                // Never dropped.
                7 => mem::forget(delivery),
                _ => {}
            }
            Ok::<_, Error>(())
        }
    });
    let task = tokio::spawn(run.shutdown_deadline(Duration::from_secs(5)));
    let numbers = 40 * u32::try_from(scale())?;
    send(&store, &(0..numbers).collect::<Vec<_>>()).await?;
    // Twice as many attempts as it has handlers are cut off, many times over.
    let is_drained = until_within(BOUND * u32::try_from(scale())?, async || {
        count(&pool).await.is_ok_and(|left| left == 0)
    });
    assert!(is_drained.await, "it handles no more");
    let dead = admin.dead_letters("tasks", Page::default()).await?;
    let of = |rest: u32| move |number: &u32| number % 8 == rest;
    let dead_numbers: Vec<u32> = {
        let page = Page::builder().limit(1_000).payload(true).build();
        let dead = admin.dead_letters("tasks", page).await?;
        let payloads = dead.iter().filter_map(|dead| dead.payload.as_deref());
        payloads
            .filter_map(|payload| payload.parse().ok())
            .collect()
    };
    assert!(
        dead_numbers
            .iter()
            .all(|number| of(1)(number) || of(3)(number)),
        "{dead_numbers:?}"
    );
    assert_eq!(dead_numbers.len(), numbers as usize / 4);
    assert!(
        dead.iter()
            .all(|dead| dead.last_error.is_some() && dead.attempt == 2)
    );
    {
        let handled = handled.lock().unwrap_or_else(PoisonError::into_inner);
        let times = |number: u32| handled.iter().filter(|handled| **handled == number).count();
        for number in 0..numbers {
            let wanted = if of(1)(&number) || of(3)(&number) {
                2
            } else {
                1
            };
            assert_eq!(times(number), wanted, "{number}");
        }
    }
    // Its end aborts a handler that has one.
    send(&store, &[3]).await?;
    until("a handler has it", async || {
        handled.lock().unwrap_or_else(PoisonError::into_inner).len() as u32 > numbers * 5 / 4
    })
    .await;
    handle.abort();
    timeout(BOUND, task).await???;
    Ok(())
}
