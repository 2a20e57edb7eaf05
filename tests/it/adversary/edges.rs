//! What a role, an operator, a process or a type may do besides: defaults that cut statements off, administration while
//! handlers are at work, times that no calendar has, values that panic when they are dropped.

mod values;

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
    assert!(
        !admin.reschedule("tasks", ids[0], Utc::now()).await?,
        "it is leased"
    );
    assert_eq!(
        admin.cancel("tasks", ids[19]).await?,
        Some(pgqrs::Cancelled::Waiting)
    );
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
    assert_eq!(admin.requeue_all("tasks", Duration::ZERO).await?.back, 1);
    gate.add_permits(4);
    until("four more are handled", async || {
        seen.times().values().sum::<u32>() == 12
    })
    .await;
    until("each handler has one again", async || {
        let stats = admin.queue_stats("tasks").await;
        stats.is_ok_and(|stats| stats.leased == stats.total().value.min(8))
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
