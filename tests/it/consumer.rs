//! `consumer().run(..)`: what the loop does with what handlers do, and with what breaks.

use std::{
    process::Stdio,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
    time::Duration,
};

use pgqrs::{
    Delivery, Error, Outcome, Page, Queue, QueueOptions, RetryPolicy, Worker, WorkerStatus,
};
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    sync::{Barrier, Notify, Semaphore},
};

use crate::{
    examples::compiled,
    support::{
        TestResult, claim, connect,
        consumers::{Seen, consumer, drained, gate, pass, prepare, start},
        count, expire, newcomer, now, one, places, send,
        server::Server,
        until, url, with_queues,
    },
};

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn every_message_is_handled_and_acknowledged(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let payloads: Vec<u64> = (0..1_000).collect();
    send(&store, &payloads).await?;
    let seen = Seen::default();
    let running = start(consumer().create(&store).await?, seen.handler());
    drained(&pool).await;
    let report = running.stop().await?;
    assert_eq!(report.done, 1_000);
    assert_eq!((report.retried, report.dead, report.lost), (0, 0, 0));
    let once = payloads.iter().map(|n| (n.to_string(), 1));
    assert_eq!(seen.times(), once.collect());
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn acknowledgements_share_statements(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    send(&store, &(0..1_000).collect::<Vec<_>>()).await?;
    sqlx::raw_sql(
        "create sequence deletions;
         create function count_deletion() returns trigger language plpgsql as
             $$ begin perform nextval('deletions'); return null; end $$;
         create trigger count_deletion after delete on pgqrs.messages
             for each statement execute function count_deletion();",
    )
    .execute(&pool)
    .await?;
    let running = start(consumer().create(&store).await?, Seen::default().handler());
    drained(&pool).await;
    assert_eq!(running.stop().await?.done, 1_000);
    let deletions: i64 = sqlx::query_scalar("select last_value from deletions")
        .fetch_one(&pool)
        .await?;
    assert!((1..250).contains(&deletions), "{deletions} statements");
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn each_outcome_does_what_it_says(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let words = [
        "done",
        "archive",
        "retry",
        "retry in",
        "dead letter",
        "error",
    ];
    send(&store, &words).await?;
    let running = start(
        consumer().create(&store).await?,
        async |delivery: Delivery<Value>| {
            let again = delivery.attempt() == 1;
            Ok(match delivery.payload().as_str().unwrap_or_default() {
                "archive" => Outcome::Archive,
                "retry" if again => Outcome::Retry,
                "retry in" if again => Outcome::RetryIn(Duration::from_millis(1)),
                "dead letter" => Outcome::DeadLetter("no such customer".into()),
                "error" if again => return Err("the mail server is away".to_owned()),
                _ => Outcome::Done,
            })
        },
    );
    drained(&pool).await;
    let report = running.stop().await?;
    assert_eq!(
        (report.done, report.archived, report.retried, report.dead),
        (4, 1, 3, 1)
    );
    let admin = pgqrs::admin(&store);
    let archived = admin
        .archived("tasks", Page::builder().payload(true).build())
        .await?;
    assert_eq!(archived[0].payload.as_deref(), Some(r#""archive""#));
    let dead = admin.dead_letters("tasks", Page::default()).await?;
    assert_eq!(
        (dead.len(), dead[0].reason.as_str()),
        (1, "no such customer")
    );
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_released_message_comes_again_at_once_and_no_attempt_is_used(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let one_attempt = QueueOptions::builder().max_attempts(1).build();
    pgqrs::admin(&store)
        .configure_queue("tasks", one_attempt)
        .await?;
    send(&store, &["wanted later"]).await?;
    let attempts = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&attempts);
    let running = start(
        consumer().create(&store).await?,
        move |delivery: Delivery<Value>| {
            let mut seen = seen.lock().unwrap();
            seen.push(delivery.attempt());
            let outcome = if seen.len() < 4 {
                Outcome::Release
            } else {
                Outcome::Done
            };
            std::future::ready(outcome)
        },
    );
    drained(&pool).await;
    let report = running.stop().await?;
    assert_eq!((report.released, report.done, report.dead), (3, 1, 0));
    assert_eq!(*attempts.lock().unwrap(), [1; 4]);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn errors_and_panics_are_failed_attempts_and_end_as_dead_letters(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let admin = pgqrs::admin(&store);
    admin
        .configure_queue("tasks", QueueOptions::builder().max_attempts(3).build())
        .await?;
    let ids = send(&store, &["error", "panic", "fine"]).await?;
    let running = start(
        consumer().create(&store).await?,
        async |delivery: Delivery<Value>| match delivery.payload().as_str() {
            Some("error") => Err(format!("attempt {} failed", delivery.attempt())),
            Some("panic") => panic!("what a day: {}", delivery.attempt()),
            _ => Ok(()),
        },
    );
    drained(&pool).await;
    let report = running.stop().await?;
    assert_eq!((report.done, report.retried, report.dead), (1, 4, 2));
    let dead = admin
        .dead_letters("tasks", Page::builder().payload(true).build())
        .await?;
    let letters: Vec<_> = dead
        .iter()
        .map(|dead| {
            (
                dead.id,
                dead.attempt,
                dead.reason.as_str(),
                dead.last_error.as_deref(),
            )
        })
        .collect();
    assert_eq!(
        letters,
        [
            (ids[0], 3, "attempts used up", Some("attempt 3 failed")),
            (
                ids[1],
                3,
                "attempts used up",
                Some("the handler panicked: what a day: 3")
            ),
        ]
    );
    assert_eq!(dead[0].payload.as_deref(), Some(r#""error""#));
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_failed_attempt_waits_by_the_policy_and_keeps_its_error(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    send(&store, &[1]).await?;
    let policy = RetryPolicy::builder()
        .first(Duration::from_secs(100))
        .jitter(0.0)
        .build();
    let running = start(
        consumer().retry(policy).create(&store).await?,
        async |_: Delivery<Value>| Err::<(), _>("not today"),
    );
    let admin = pgqrs::admin(&store);
    until("the message waits", async || {
        admin.queue_stats("tasks").await.expect("counted").delayed == 1
    })
    .await;
    let message = &admin.messages("tasks", Page::default()).await?[0];
    assert_eq!(
        (message.attempt, message.last_error.as_deref()),
        (1, Some("not today"))
    );
    assert!(message.lease_expires_at.is_none() && message.payload.is_none());
    let waits = message.visible_at - chrono::Utc::now();
    assert!((80..=100).contains(&waits.num_seconds()), "{waits}");
    running.stop().await?;
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn what_does_not_decode_becomes_a_dead_letter_and_never_reaches_the_handler(
    pool: PgPool,
) -> TestResult {
    const NUMBERS: Queue<u32> = Queue::new("tasks");
    let store = with_queues(&pool, &["tasks"]).await?;
    send(&store, &[json!(1), json!("two"), json!(3)]).await?;
    let consumer = pgqrs::consumer(NUMBERS)
        .identity("my-service", 3001)
        .create(&store)
        .await?;
    let handle = consumer.handle();
    let sum = Arc::new(AtomicU32::new(0));
    let add = async |sum: Arc<AtomicU32>, delivery: Delivery<u32>| {
        sum.fetch_add(delivery.into_payload(), Ordering::Relaxed);
        pgqrs::Ok(())
    };
    let running = tokio::spawn(consumer.run_with(Arc::clone(&sum), add));
    drained(&pool).await;
    handle.stop();
    let report = running.await??;
    assert_eq!(
        (report.done, report.dead, sum.load(Ordering::Relaxed)),
        (2, 1, 4)
    );
    let dead = pgqrs::admin(&store)
        .dead_letters("tasks", Page::default())
        .await?;
    assert_eq!(dead[0].reason, "its payload doesn't decode");
    assert!(
        dead[0]
            .last_error
            .as_deref()
            .is_some_and(|error| error.contains("expected u32")),
        "{dead:?}"
    );
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn no_more_handlers_run_at_once_than_its_concurrency(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    pgqrs::enqueue()
        .messages(&[0; 51])
        .to("tasks")
        .execute(&store)
        .await?;
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    // Nobody passes before three are there.
    let three = Arc::new(Barrier::new(3));
    let running = start(consumer().concurrency(3).create(&store).await?, {
        let most = Arc::clone(&most);
        move |_: Delivery<Value>| {
            let (now, most) = (Arc::clone(&now), Arc::clone(&most));
            let three = Arc::clone(&three);
            async move {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                three.wait().await;
                now.fetch_sub(1, Ordering::SeqCst);
                Outcome::Done
            }
        }
    });
    drained(&pool).await;
    running.stop().await?;
    assert_eq!(most.load(Ordering::SeqCst), 3);
    Ok(())
}

/// A handler that waits at a gate.
fn wait_at(
    gate: &Arc<Semaphore>,
) -> impl Fn(Delivery<Value>) -> BoxedDone + Send + Sync + 'static + use<> {
    let gate = Arc::clone(gate);
    move |delivery| {
        let gate = Arc::clone(&gate);
        Box::pin(async move {
            pass(&gate).await;
            drop(delivery);
            Outcome::Done
        })
    }
}

type BoxedDone = std::pin::Pin<Box<dyn Future<Output = Outcome> + Send>>;

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_long_handler_keeps_its_lease(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    send(&store, &[1]).await?;
    let gate = gate();
    let lease = Duration::from_millis(150);
    let running = start(
        consumer().lease(lease).create(&store).await?,
        wait_at(&gate),
    );
    let lease_end = async || {
        let lease =
            "select lease_token, greatest(lease_until, '0001-01-01'), attempt from pgqrs.messages";
        let row: (i64, chrono::DateTime<chrono::Utc>, i32) = sqlx::query_as(lease)
            .fetch_one(&pool)
            .await
            .expect("there is one message");
        row
    };
    until("it is delivered", async || lease_end().await.0 != 0).await;
    let first = lease_end().await.1;
    // For five leases, no other consumer gets it.
    let others = newcomer(&pool);
    until("five leases have passed", async || {
        assert!(claim(&others, 1).await.expect("claimed").is_empty());
        lease_end().await.1 > first + lease * 5
    })
    .await;
    assert_eq!(lease_end().await.2, 1);
    gate.add_permits(1);
    drained(&pool).await;
    assert_eq!(running.stop().await?.done, 1);
    Ok(())
}

/// Its first handler is still at it when the message comes again, to the same consumer.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn what_a_handler_says_after_its_lease_was_lost_counts_for_nothing(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let message = send(&store, &[1]).await?[0];
    let gates = [gate(), gate()];
    let (first, second) = (Arc::clone(&gates[0]), Arc::clone(&gates[1]));
    let (begun, ended) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let (on_begin, on_end) = (Arc::clone(&begun), Arc::clone(&ended));
    let running = start(
        consumer().create(&store).await?,
        move |delivery: Delivery<Value>| {
            let gates = [Arc::clone(&first), Arc::clone(&second)];
            let (begun, ended) = (Arc::clone(&on_begin), Arc::clone(&on_end));
            async move {
                begun.fetch_add(1, Ordering::SeqCst);
                let attempt = delivery.attempt();
                pass(&gates[usize::from(attempt > 1)]).await;
                ended.fetch_add(1, Ordering::SeqCst);
                match attempt {
                    1 => Outcome::DeadLetter("too late to say so".to_owned()),
                    _ => Outcome::Done,
                }
            }
        },
    );
    let at = async |counter: &AtomicU32, what, times| {
        until(what, async || counter.load(Ordering::SeqCst) == times).await;
    };
    at(&begun, "the first handler has begun", 1).await;
    expire(&pool, message).await?;
    at(&begun, "the second handler has begun", 2).await;
    gates[0].add_permits(1);
    at(&ended, "the first handler has ended", 1).await;
    // What it has said is settled by now: this one's was said later.
    let other = send(&store, &[2]).await?[0];
    gates[0].add_permits(1);
    until("the other one is a dead letter", async || {
        let admin = pgqrs::admin(&store);
        let dead = admin.dead_letters("tasks", Page::default()).await;
        dead.expect("listed").iter().any(|dead| dead.id == other)
    })
    .await;
    assert_eq!(
        places(&pool).await?,
        (1, 1, 0),
        "the message stays with its second handler"
    );
    gates[1].add_permits(1);
    drained(&pool).await;
    let report = running.stop().await?;
    assert_eq!((report.done, report.dead, report.lost), (1, 1, 1));
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_handler_that_never_returns_times_out_if_there_is_a_limit(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    send(&store, &[1]).await?;
    let limited = consumer()
        .handler_timeout(Duration::from_millis(50))
        .create(&store)
        .await?;
    let running = start(limited, async |delivery: Delivery<Value>| {
        if delivery.attempt() < 3 {
            std::future::pending::<()>().await;
        }
        Outcome::Done
    });
    drained(&pool).await;
    let report = running.stop().await?;
    assert_eq!((report.done, report.retried), (1, 2));
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_handler_that_is_cut_off_each_time_leaves_a_dead_letter_that_says_so(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let admin = pgqrs::admin(&store);
    let twice = QueueOptions::builder().max_attempts(2).build();
    admin.configure_queue("tasks", twice).await?;
    send(&store, &[1]).await?;
    let limited = consumer().handler_timeout(Duration::from_millis(20));
    let running = start(limited.create(&store).await?, async |_: Delivery<Value>| {
        std::future::pending::<Outcome>().await
    });
    drained(&pool).await;
    let report = running.stop().await?;
    assert_eq!((report.done, report.retried, report.dead), (0, 1, 1));
    let dead = &admin.dead_letters("tasks", Page::default()).await?[0];
    assert_eq!(
        (dead.attempt, dead.last_error.as_deref()),
        (2, Some("the handler timed out after 20ms"))
    );
    Ok(())
}

/// Its lease goes on being extended, and its worker's heart goes on beating.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_handler_that_never_returns_keeps_its_message_and_its_worker_alive(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    send(&store, &[1]).await?;
    let lease = Duration::from_millis(300);
    let patient = consumer()
        .lease(lease)
        .heartbeat_interval(Duration::from_millis(50));
    let running = start(patient.create(&store).await?, async |_: Delivery<Value>| {
        std::future::pending::<Outcome>().await
    });
    let admin = pgqrs::admin(&store);
    let since = now(&pool).await?;
    until("many leases and heartbeats have passed", async || {
        let worker = admin
            .worker(running.handle.id())
            .await
            .expect("it is registered");
        assert!(!worker.stale);
        let held = admin
            .held_messages(worker.id)
            .await
            .expect("it is registered");
        let message = &admin
            .messages("tasks", Page::default())
            .await
            .expect("listed")[0];
        assert!(message.attempt <= 1);
        let kept = held.len() == 1 && message.lease_expires_at > Some(since + lease * 6);
        kept && worker.heartbeat_at > since + lease * 5
    })
    .await;
    running.task.abort();
    Ok(())
}

/// A policy of the consumer's is that of its deliveries too, when a handler settles by itself.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_nack_within_a_handler_waits_by_the_consumers_policy(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let before = now(&pool).await?;
    send(&store, &[1]).await?;
    let wait = Duration::from_secs(5_000);
    let policy = RetryPolicy::fixed(wait);
    let running = start(consumer().retry(policy).create(&store).await?, {
        let store = store.clone();
        move |delivery: Delivery<Value>| {
            let store = store.clone();
            async move { delivery.nack(&store).await }
        }
    });
    let admin = pgqrs::admin(&store);
    until("the message waits", async || {
        admin.queue_stats("tasks").await.expect("counted").delayed == 1
    })
    .await;
    let after = now(&pool).await?;
    let message = &admin.messages("tasks", Page::default()).await?[0];
    assert!((before + wait..=after + wait).contains(&message.visible_at));
    running.stop().await?;
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn an_idle_consumer_is_woken_for_what_is_requeued(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let id = send(&store, &[1]).await?[0];
    one(&store).await?.dead_letter("not yet", &store).await?;
    // It would not poll before the test times out.
    let patient = consumer().poll_interval(Duration::from_secs(3_600));
    let seen = Seen::default();
    let running = start(patient.create(&store).await?, seen.handler());
    send(&store, &[2]).await?;
    drained(&pool).await;
    assert!(pgqrs::admin(&store).requeue("tasks", id).await?);
    drained(&pool).await;
    assert_eq!(running.stop().await?.done, 2);
    assert_eq!(places(&pool).await?, (0, 0, 0));
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_graceful_stop_lets_handlers_finish_and_releases_the_rest(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    pgqrs::enqueue()
        .messages(&[0; 10])
        .to("tasks")
        .execute(&store)
        .await?;
    let gate = gate();
    let consumer = consumer().concurrency(2).create(&store).await?;
    let worker = consumer.handle();
    let signal = Arc::new(Notify::new());
    let (handler, begun) = (wait_at(&gate), Arc::new(AtomicUsize::new(0)));
    let counter = Arc::clone(&begun);
    let run = consumer.run(move |delivery| {
        counter.fetch_add(1, Ordering::SeqCst);
        handler(delivery)
    });
    let run = run.with_graceful_shutdown({
        let signal = Arc::clone(&signal);
        async move { signal.notified().await }
    });
    let running = tokio::spawn(run);
    let admin = pgqrs::admin(&store);
    // Leased ones may not have reached the loop yet, and would go back too.
    until("two are at work", async || {
        begun.load(Ordering::SeqCst) == 2
    })
    .await;
    signal.notify_one();
    // The others are back while the two still work.
    until("the rest is ready", async || {
        let stats = admin.queue_stats("tasks").await.expect("counted");
        (stats.ready, stats.leased) == (8, 2)
    })
    .await;
    assert!(!running.is_finished());
    gate.add_permits(2);
    let report = running.await??;
    assert_eq!((report.done, report.lost), (2, 0));
    assert_eq!(worker.status().await?, WorkerStatus::Stopped);
    // For those that were fetched and not begun, it doesn't count.
    let attempts: Vec<i32> = sqlx::query_scalar("select distinct attempt from pgqrs.messages")
        .fetch_all(&pool)
        .await?;
    assert_eq!(attempts, [0]);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn after_the_deadline_handlers_are_aborted_and_their_messages_released(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    pgqrs::enqueue()
        .messages(&[0; 2])
        .to("tasks")
        .execute(&store)
        .await?;
    let consumer = consumer().create(&store).await?;
    let handle = consumer.handle();
    let run = consumer
        .run(wait_at(&gate()))
        .shutdown_deadline(Duration::from_millis(50));
    let running = tokio::spawn(run);
    let admin = pgqrs::admin(&store);
    until("both are at work", async || {
        admin.queue_stats("tasks").await.expect("counted").leased == 2
    })
    .await;
    handle.stop();
    let report = running.await??;
    assert_eq!((report.released, report.done), (2, 0));
    let stats = admin.queue_stats("tasks").await?;
    assert_eq!((stats.ready, stats.leased), (2, 0));
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_handler_can_settle_in_its_own_transaction(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    sqlx::query("create table work (n bigint primary key)")
        .execute(&pool)
        .await?;
    send(&store, &[1, 2, 3]).await?;
    let running = start(consumer().create(&store).await?, {
        let pool = pool.clone();
        move |delivery: Delivery<Value>| {
            let pool = pool.clone();
            async move {
                let (n, attempt) = (delivery.payload().as_i64(), delivery.attempt());
                let mut tx = pool.begin().await?;
                sqlx::query("insert into work values ($1)")
                    .bind(n)
                    .execute(&mut *tx)
                    .await?;
                delivery.ack(&mut tx).await?;
                if attempt == 1 {
                    // Neither the work nor the acknowledgement.
                    tx.rollback().await?;
                    return Err("rolled back".into());
                }
                tx.commit().await?;
                Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
            }
        }
    });
    drained(&pool).await;
    let report = running.stop().await?;
    assert_eq!((report.done, report.retried, report.lost), (3, 3, 0));
    let work: i64 = sqlx::query_scalar("select count(*) from work")
        .fetch_one(&pool)
        .await?;
    assert_eq!(work, 3);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn it_goes_on_when_its_connections_are_killed_again_and_again(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let store = connect(&pool).await?;
    let payloads: Vec<u64> = (0..3_000).collect();
    send(&store, &payloads).await?;
    let seen = Seen::default();
    let lease = Duration::from_secs(2);
    let steady = consumer().lease(lease).prefetch(50).create(&store).await?;
    let running = start(steady, seen.handler());
    let mut left = count(&pool).await?;
    while left > 0 {
        let killed = "select pg_terminate_backend(pid) from pg_stat_activity
                      where datname = current_database() and application_name = 'pgqrs'";
        sqlx::query(killed).execute(&pool).await?;
        until("fewer are left", async || {
            count(&pool).await.expect("counted") < left.max(1)
        })
        .await;
        left = count(&pool).await?;
    }
    running.stop().await?;
    assert_eq!(seen.len(), 3_000);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_suspended_consumer_rests_and_a_stopped_one_ends(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let consumer = consumer().create(&store).await?;
    let admin = pgqrs::admin(&store);
    consumer.suspend().await?;
    let id = consumer.id();
    let running = start(consumer, async |_: Delivery<Value>| Outcome::Done);
    send(&store, &[1]).await?;
    // It would be handled within a poll; so several of them pass.
    let waited = std::time::Instant::now();
    until("ten polls have passed", async || {
        waited.elapsed() > Duration::from_millis(200)
    })
    .await;
    assert_eq!(count(&pool).await?, 1);
    admin.resume_worker(id).await?;
    drained(&pool).await;
    admin.stop_worker(id).await?;
    let report = running.task.await??;
    assert_eq!(report.done, 1);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_permanent_failure_ends_the_loop(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let running = start(
        consumer().create(&store).await?,
        async |_: Delivery<Value>| Outcome::Done,
    );
    // Dropping tables under a running loop can end in a deadlock, in which the loop wins.
    until("the schema is gone", async || {
        let mut connection = pool.acquire().await.expect("connected").detach();
        pgqrs::MIGRATOR.undo(&mut connection, 0).await.is_ok()
    })
    .await;
    let failed = running.task.await?;
    assert!(matches!(failed, Err(Error::NotInstalled)), "{failed:?}");
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn an_idle_consumer_is_woken_from_its_own_and_from_other_processes(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let elsewhere = connect(&pool).await?;
    // It would not poll before the test times out.
    let patient = consumer()
        .poll_interval(Duration::from_secs(3_600))
        .create(&store)
        .await?;
    let running = start(patient, async |_: Delivery<Value>| Outcome::Done);
    let listeners = async || {
        let listening: i64 = sqlx::query_scalar(
            "select count(*) from pg_stat_activity
             where datname = current_database() and query like 'LISTEN%'",
        )
        .fetch_one(&pool)
        .await
        .expect("counted");
        listening
    };
    until("it listens", async || listeners().await == 1).await;
    for sender in [&store, &elsewhere, &store, &elsewhere] {
        for _ in 0..10 {
            pgqrs::enqueue()
                .message(&1)
                .to("tasks")
                .execute(sender)
                .await?;
        }
        drained(&pool).await;
    }
    assert_eq!(running.stop().await?.done, 40);
    // Long before it would look by itself whether it is still needed.
    let ends = until("no session listens any more", async || {
        listeners().await == 0
    });
    tokio::time::timeout(Duration::from_secs(15), ends).await?;
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn without_a_hint_it_finds_messages_by_polling(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let running = start(
        consumer().listen(false).create(&store).await?,
        async |_: Delivery<Value>| Outcome::Done,
    );
    for n in 0..5 {
        // A transaction sends no notification.
        let mut tx = pool.begin().await?;
        pgqrs::enqueue()
            .message(&n)
            .to("tasks")
            .execute(&mut tx)
            .await?;
        tx.commit().await?;
        drained(&pool).await;
    }
    pgqrs::enqueue()
        .message(&1)
        .to("tasks")
        .delay(Duration::from_millis(30))
        .execute(&store)
        .await?;
    drained(&pool).await;
    assert_eq!(running.stop().await?.done, 6);
    Ok(())
}

/// Its attempts are used up without a settlement.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_message_that_kills_its_consumer_each_time_ends_as_a_dead_letter(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let admin = pgqrs::admin(&store);
    admin
        .configure_queue("tasks", QueueOptions::builder().max_attempts(3).build())
        .await?;
    let ids = send(&store, &["deadly"]).await?;
    for attempt in 1..=3 {
        let delivery = one(&store).await?;
        assert_eq!(delivery.attempt(), attempt);
        // The consumer dies here.
        drop(delivery);
        // While it is leased, it is no dead letter.
        assert!(claim(&store, 1).await?.is_empty());
        assert_eq!(admin.dead_letter_count("tasks").await?, 0);
        expire(&pool, ids[0]).await?;
    }
    assert!(claim(&store, 1).await?.is_empty());
    assert_eq!(count(&pool).await?, 0);
    let dead = admin.dead_letters("tasks", Page::default()).await?;
    assert_eq!(
        (dead[0].id, dead[0].attempt, dead[0].reason.as_str()),
        (ids[0], 3, "attempts used up")
    );
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn bad_options_and_absent_queues_are_refused(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    for lease in [Duration::ZERO, Duration::from_secs(86_401)] {
        let consumer = consumer().lease(lease).create(&store).await?;
        let refused = consumer.run(Seen::default().handler()).await;
        assert!(
            matches!(refused, Err(Error::LeaseOutOfRange { .. })),
            "{refused:?}"
        );
    }
    let refused = pgqrs::consumer("missing")
        .identity("my-service", 1)
        .create(&store)
        .await;
    assert!(
        matches!(refused, Err(Error::QueueNotFound { .. })),
        "{refused:?}"
    );
    Ok(())
}

/// A process of `tests/process/consumer.rs`, and what it says.
struct Process {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Process {
    fn start(pool: &PgPool) -> Result<Self, Box<dyn std::error::Error>> {
        Self::of(pool, "consumer_process")
    }

    fn of(pool: &PgPool, example: &str) -> Result<Self, Box<dyn std::error::Error>> {
        let mut child = Command::new(compiled(example))
            .env("DATABASE_URL", url(pool))
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        Ok(Self { child, lines })
    }

    /// A word, and the payload that it is about; `None` at the process's end.
    async fn said(&mut self) -> Result<Option<(String, String)>, Box<dyn std::error::Error>> {
        let line = tokio::time::timeout(Duration::from_secs(30), self.lines.next_line()).await??;
        let words = line
            .as_deref()
            .map(|line| line.split_once(' ').expect("two words"));
        Ok(words.map(|(word, payload)| (word.to_owned(), payload.to_owned())))
    }
}

/// Half of the queue is handled by a process that is then killed while it holds messages.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn what_a_killed_process_held_is_handled_by_another(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    send(&store, &(0..100).collect::<Vec<u64>>()).await?;
    let mut process = Process::start(&pool)?;
    let (seen, mut in_hand) = (Seen::default(), Vec::new());
    while in_hand.len() < 8 {
        let (word, payload) = process.said().await?.expect("it runs until it is killed");
        match word.as_str() {
            "done" => seen.note(payload),
            "hangs" => in_hand.push(payload),
            other => panic!("{other}"),
        }
    }
    // SIGKILL.
    process.child.kill().await?;
    assert_eq!(seen.len(), 50);
    assert!(pgqrs::admin(&store).queue_stats("tasks").await?.leased >= 8);

    let running = start(consumer().create(&store).await?, seen.handler());
    drained(&pool).await;
    running.stop().await?;
    let times = seen.times();
    assert_eq!(times.len(), 100);
    assert!(
        in_hand.iter().all(|payload| times[payload] == 1),
        "{in_hand:?}"
    );
    Ok(())
}

/// The process dies each time that it begins with the message, so that none reports the failure.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_message_that_kills_its_process_each_time_ends_as_a_dead_letter(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let admin = pgqrs::admin(&store);
    let thrice = QueueOptions::builder().max_attempts(3).build();
    admin.configure_queue("tasks", thrice).await?;
    let deadly = send(&store, &["deadly"]).await?[0];
    for _ in 0..3 {
        let mut process = Process::start(&pool)?;
        let last_words = process.said().await?;
        assert_eq!(
            last_words,
            Some(("dies".to_owned(), r#""deadly""#.to_owned()))
        );
        assert!(!process.child.wait().await?.success());
        assert_eq!(admin.dead_letter_count("tasks").await?, 0);
        expire(&pool, deadly).await?;
    }
    let harmless = send(&store, &["harmless"]).await?[0];
    let seen = Seen::default();
    let running = start(consumer().create(&store).await?, seen.handler());
    drained(&pool).await;
    running.stop().await?;
    assert_eq!(seen.times(), [(r#""harmless""#.to_owned(), 1)].into());
    let dead = admin.dead_letters("tasks", Page::default()).await?;
    assert_eq!(
        (
            dead.len(),
            dead[0].id,
            dead[0].attempt,
            dead[0].reason.as_str()
        ),
        (1, deadly, 3, "attempts used up")
    );
    assert_ne!(harmless, deadly);
    Ok(())
}

/// The server goes away while handlers are at work: they wait at a gate, so that it is really in the middle.
#[tokio::test]
async fn a_loop_goes_on_through_restarts_of_the_server() -> TestResult {
    const MESSAGES: usize = 10_000;
    let server = Server::start().await?;
    let options = pgqrs::ConnectOptions::builder()
        .url(server.url())
        .install(true)
        .build();
    let store = pgqrs::connect_with(options).await?;
    store.queue("tasks").await?;
    send(&store, &(0..MESSAGES).collect::<Vec<_>>()).await?;
    let (seen, gate) = (Seen::default(), gate());
    // Leases are long enough for a restart, and short enough not to be waited for in vain.
    let steady = consumer()
        .lease(Duration::from_secs(5))
        .prefetch(100)
        .create(&store)
        .await?;
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
    for mode in ["fast", "immediate", "fast"] {
        gate.add_permits(2_500);
        until("handlers wait for more", async || {
            gate.available_permits() == 0
        })
        .await;
        server.restart(mode).await?;
        assert!(seen.len() < MESSAGES);
    }
    gate.add_permits(Semaphore::MAX_PERMITS / 2);
    until("all are handled", async || seen.len() == MESSAGES).await;
    until("nothing is left", async || {
        let stats = pgqrs::admin(&store).queue_stats("tasks").await;
        stats.is_ok_and(|stats| stats.total() == 0)
    })
    .await;
    running.stop().await?;
    store.pool().close().await;
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn what_a_stores_transaction_has_sent_is_handled_as_soon_as_it_is_committed(
    pool: PgPool,
) -> TestResult {
    const NEVER: Duration = Duration::from_secs(3_600);
    let store = with_queues(&pool, &["tasks", "others"]).await?;
    let elsewhere = connect(&pool).await?;
    // One of the sender's own store, and one that only NOTIFY reaches. Neither would look again by itself.
    let own = consumer().poll_interval(NEVER).create(&store).await?;
    let other = prepare(pgqrs::consumer("others")).poll_interval(NEVER);
    let other = other.create(&elsewhere).await?;
    let (seen, seen_elsewhere) = (Seen::default(), Seen::default());
    let running = [
        start(own, seen.handler()),
        start(other, seen_elsewhere.handler()),
    ];
    until("it listens", async || {
        let listening = "select count(*) from pg_stat_activity
             where datname = current_database() and query like 'LISTEN%'";
        let listening: i64 = sqlx::query_scalar(listening)
            .fetch_one(&pool)
            .await
            .expect("counted");
        listening == 2
    })
    .await;
    for queue in ["tasks", "others"] {
        let mut tx = store.begin().await?;
        sqlx::query("select 1").execute(&mut **tx).await?;
        let enqueue = pgqrs::enqueue().message(&queue).to(queue);
        enqueue.execute(&mut tx).await?;
        tx.commit().await?;
    }
    // And one in a transaction of the pool's, whose commit the store doesn't see.
    let mut tx = pool.begin().await?;
    let enqueue = pgqrs::enqueue().message(&"foreign").to("others");
    enqueue.execute(&mut tx).await?;
    tx.commit().await?;
    store.wake("others")?;
    until("all are handled", async || {
        seen.times().len() == 1 && seen_elsewhere.times().len() == 2
    })
    .await;
    let mut tx = store.begin().await?;
    pgqrs::enqueue()
        .message(&1)
        .to("tasks")
        .execute(&mut tx)
        .await?;
    tx.rollback().await?;
    for running in running {
        running.stop().await?;
    }
    assert_eq!(count(&pool).await?, 0);
    Ok(())
}

#[cfg(unix)]
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_signal_stops_all_runs_of_a_process_that_wait_for_it(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks", "others"]).await?;
    for signal in ["-TERM", "-INT"] {
        let mut process = Process::of(&pool, "service_process")?;
        send(&store, &[1]).await?;
        // One of its consumers works, so the process waits for the signal by now. The other one may be about to begin.
        assert_eq!(process.said().await?, Some(("done".into(), "1".into())));
        let id = process.child.id().expect("it runs").to_string();
        let killed = Command::new("kill").args([signal, &id]).status().await?;
        assert!(killed.success());
        let mut stopped = Vec::new();
        while let Some((word, done)) = process.said().await? {
            assert_eq!(word, "stopped");
            stopped.push(done);
        }
        stopped.sort();
        assert_eq!(stopped, ["0", "1"], "{signal}");
        assert!(process.child.wait().await?.success(), "{signal}");
    }
    assert_eq!(count(&pool).await?, 0);
    let workers: i64 =
        sqlx::query_scalar("select count(*) from pgqrs.workers where status <> 'stopped'")
            .fetch_one(&pool)
            .await?;
    assert_eq!(workers, 0);
    Ok(())
}

#[derive(Debug)]
struct Outer(std::num::ParseIntError);

impl std::fmt::Display for Outer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the order has no number")
    }
}

impl std::error::Error for Outer {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn the_last_error_of_a_message_holds_what_led_to_it(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let later = RetryPolicy::fixed(Duration::from_secs(3_600));
    let consumer = consumer().retry(later).create(&store).await?;
    send(&store, &[1]).await?;
    let running = start(consumer, async |_: Delivery<Value>| {
        "seven".parse::<u32>().map(|_| ()).map_err(Outer)
    });
    let admin = pgqrs::admin(&store);
    let last_error = async || {
        let messages = admin.messages("tasks", Page::default()).await;
        messages.expect("listed")[0].last_error.clone()
    };
    until("it has failed", async || last_error().await.is_some()).await;
    assert_eq!(
        last_error().await.as_deref(),
        Some("the order has no number: invalid digit found in string")
    );
    running.stop().await?;
    Ok(())
}
