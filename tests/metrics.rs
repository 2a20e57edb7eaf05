//! What the metrics say. Recorders and meter providers are global, so these tests have a process of their own, and each has
//! queues of its own names.

#[path = "metrics/observed.rs"]
mod observed;
#[path = "metrics/recorders.rs"]
mod recorders;
#[path = "metrics/schedules.rs"]
mod schedules;

use std::{
    net::TcpListener,
    sync::Arc,
    time::{Duration, Instant},
};

use pgqrs::{Delivery, Outcome, QueueOptions, RetryPolicy, Store};
use serde_json::Value;
use sqlx::{PgPool, postgres::PgPoolOptions};
use tokio::sync::Semaphore;

use crate::recorders::{Measured, recorders};

type TestResult<T = ()> = Result<T, Box<dyn std::error::Error>>;

/// Waits until a condition holds. Fails after thirty seconds, saying what it waited for.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !holds().await {
        assert!(
            start.elapsed() < Duration::from_secs(30),
            "never came: {what}"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn with_queue(pool: &PgPool, queue: &str) -> TestResult<Store> {
    let store = Store::from(pool.clone());
    store.queue(queue.to_owned()).await?;
    let options = QueueOptions::builder().max_attempts(3).build();
    pgqrs::admin(&store)
        .configure_queue(queue.to_owned(), options)
        .await?;
    Ok(store)
}

async fn send(store: &Store, queue: &str, messages: &[&str]) -> pgqrs::Result<()> {
    let enqueue = pgqrs::enqueue().messages(messages).to(queue.to_owned());
    enqueue.execute(store).await.map(drop)
}

async fn left(pool: &PgPool) -> i64 {
    let left = sqlx::query_scalar("select count(*) from pgqrs.messages");
    left.fetch_one(pool).await.expect("counted")
}

async fn expire(pool: &PgPool) -> TestResult {
    let expire = "update pgqrs.messages set visible_at = now(), lease_until = now()";
    sqlx::query(expire).execute(pool).await?;
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn what_becomes_of_messages_is_counted_and_timed_for_both_kinds_of_recorders(
    pool: PgPool,
) -> TestResult {
    let (recorded, exported) = recorders();
    let store = with_queue(&pool, "counted").await?;
    send(&store, "counted", &["done"]).await?;
    send(&store, "counted", &["fails", "done", "hopeless"]).await?;
    send(&store, "not-there", &["lost"]).await.unwrap_err();
    let consumer = pgqrs::consumer("counted").create(&store).await?;
    let handle = consumer.handle();
    let run = consumer.run(
        async |delivery: Delivery<Value>| match delivery.raw_payload() {
            "\"fails\"" => Err("not today"),
            "\"hopeless\"" => Ok(Outcome::DeadLetter("no use".to_owned())),
            _ => Ok(Outcome::Done),
        },
    );
    let running = tokio::spawn(run.retry(RetryPolicy::fixed(Duration::ZERO)));
    until("all are settled", async || left(&pool).await == 0).await;
    let empty = "pgqrs.claim.empty{messaging.destination.name=counted}";
    until("it has found nothing", async || recorded.sum(empty) > 0).await;
    handle.stop();
    // What was measured is passed on by its end.
    running.await??;

    let of = |name: &str, rest: &str| {
        let queue = "messaging.destination.name=counted";
        let labels: Vec<_> = match rest {
            "" => vec![queue],
            rest => vec![queue, rest],
        };
        let mut labels: Vec<_> = labels
            .into_iter()
            .flat_map(|label| label.split(','))
            .collect();
        if name.starts_with("messaging.") {
            labels.push("messaging.system=pgqrs");
        }
        labels.sort_unstable();
        format!("{name}{{{}}}", labels.join(","))
    };
    let sent = of(
        "messaging.client.sent.messages",
        "messaging.operation.name=send",
    );
    assert_eq!(recorded.sum(&sent), 4);
    let refused = sent
        .replace("counted", "not-there")
        .replace('{', "{error.type=QueueNotFound,");
    assert_eq!(recorded.sum(&refused), 1);
    let processed = |rest: &str| of("messaging.process.duration", rest);
    let process = "messaging.operation.name=process";
    let many = |rest: &str| recorded.values(&processed(&format!("{process}{rest}"))).0;
    assert_eq!(
        [
            many(""),
            many(",error.type=HandlerError"),
            many(",error.type=DeadLetter")
        ],
        [2, 3, 1]
    );
    assert_eq!(
        recorded.sum(&of("messaging.client.consumed.messages", process)),
        6
    );
    let (waits, waited) = recorded.values(&of("pgqrs.message.wait.duration", ""));
    assert!(
        waits == 6 && (0.0..60.0).contains(&waited),
        "{waits} {waited}"
    );
    assert_eq!(recorded.sum(&of("pgqrs.message.retries", "")), 2);
    assert_eq!(recorded.sum(&of("pgqrs.message.dead_letters", "")), 2);
    for operation in ["send", "receive", "ack", "nack"] {
        // Not by queue: other tests have some too.
        let statements =
            format!("pgqrs.statement.messages{{messaging.operation.name={operation}}}");
        let (statements, messages) = recorded.values(&statements);
        assert!(
            statements > 0 && messages >= statements as f64,
            "{operation}: {messages} messages in {statements} statements"
        );
        let rest = format!("messaging.operation.name={operation}");
        let (many, seconds) = recorded.values(&of("messaging.client.operation.duration", &rest));
        assert!(many > 0 && seconds > 0.0, "{operation}: {many} {seconds}");
    }
    // Both kinds get the same.
    assert_eq!(recorded.with("=counted"), exported.with("=counted")?);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn lost_leases_and_redeliveries_are_counted(pool: PgPool) -> TestResult {
    let (recorded, _) = recorders();
    let store = with_queue(&pool, "leases").await?;
    send(&store, "leases", &["one", "two"]).await?;
    let dequeue = || pgqrs::dequeue().from("leases").limit(2).execute(&store);
    let first = dequeue().await?;
    expire(&pool).await?;
    let second = dequeue().await?;
    assert_eq!((first.len(), second.len()), (2, 2));
    assert_eq!(pgqrs::ack_all(first, &store).await?.len(), 2);
    for _ in 0..2 {
        expire(&pool).await?;
        drop(dequeue().await?);
    }
    let of = |name: &str| format!("{name}{{messaging.destination.name=leases}}");
    until("all is passed on", async || {
        recorded.sum(&of("pgqrs.message.dead_letters")) == 2
    })
    .await;
    assert_eq!(recorded.sum(&of("pgqrs.lease.lost")), 2);
    assert_eq!(recorded.sum(&of("pgqrs.message.redeliveries")), 4);
    // It isn't known since when they were ready.
    assert_eq!(
        recorded.values(&of("pgqrs.message.wait.duration")),
        (0, 0.0)
    );
    drop(second);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn cancelled_messages_and_what_a_queue_no_longer_keeps_are_counted(
    pool: PgPool,
) -> TestResult {
    let (recorded, exported) = recorders();
    let store = with_queue(&pool, "cleared").await?;
    let admin = pgqrs::admin(&store);
    let options = QueueOptions::builder().archive_for(Duration::ZERO).build();
    admin.configure_queue("cleared", options).await?;
    let old = "insert into pgqrs.archive (queue_id, id, priority, enqueued_at, attempt, payload)
               select id, generate_series(1, 3), 0, now(), 1, '0' from pgqrs.queues";
    sqlx::query(old).execute(&pool).await?;
    let consumer = pgqrs::consumer("cleared").create(&store).await?;
    let handle = consumer.handle();
    let running = tokio::spawn(consumer.run(async |delivery: Delivery<Value>| {
        delivery.cancelled().await;
        Outcome::Done
    }));
    let of = |name: &str| format!("{name}{{messaging.destination.name=cleared}}");
    let pruned = of("pgqrs.message.pruned");
    until("it is cleared", async || recorded.sum(&pruned) == 3).await;
    let sent = pgqrs::enqueue().message(&1).to("cleared");
    let id = sent.execute(&store).await?[0];
    until("it runs", async || {
        let leased = "select count(*) from pgqrs.messages where lease_token <> 0";
        let leased = sqlx::query_scalar(leased).fetch_one(&pool).await;
        let leased: i64 = leased.expect("counted");
        leased == 1
    })
    .await;
    let was = admin.cancel("cleared", id).await?;
    assert_eq!(was, Some(pgqrs::Cancelled::Running));
    let cancelled = of("pgqrs.message.cancellations");
    until("it is cancelled", async || recorded.sum(&cancelled) == 1).await;
    handle.stop();
    running.await??;
    assert_eq!(recorded.with("=cleared"), exported.with("=cleared")?);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn what_is_put_off_or_not_decoded_or_expired_is_counted(pool: PgPool) -> TestResult {
    let (recorded, _) = recorders();
    let store = with_queue(&pool, "limits").await?;
    send(&store, "limits", &["kept", "dropped", "later", "unknown"]).await?;
    let expired = "update pgqrs.messages set expires_at = now(), drop_if_expired = payload::text = '\"dropped\"'
                   where payload::text in ('\"kept\"', '\"dropped\"')";
    sqlx::query(expired).execute(&pool).await?;
    let consumer = pgqrs::consumer("limits").create(&store).await?;
    let handle = consumer.handle();
    let run = consumer.run(
        async |delivery: Delivery<Value>| match delivery.raw_payload() {
            "\"later\"" => Outcome::Later(Duration::from_secs(3_600)),
            _ => Outcome::Undecodable("no such kind".to_owned()),
        },
    );
    let running = tokio::spawn(run);
    until("the others wait", async || {
        let waiting =
            "select count(*) from pgqrs.messages where visible_at > now() and lease_token = 0";
        let waiting: i64 = sqlx::query_scalar(waiting)
            .fetch_one(&pool)
            .await
            .expect("counted");
        waiting == 2
    })
    .await;
    handle.stop();
    running.await??;
    let of = |name: &str| format!("pgqrs.message.{name}{{messaging.destination.name=limits}}");
    let counted = [
        "snoozes",
        "undecodable",
        "expired",
        "dead_letters",
        "retries",
    ];
    let counted = counted.map(|name| recorded.sum(&of(name)));
    assert_eq!(counted, [1, 1, 2, 1, 0]);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn gauges_follow_handlers_messages_and_connections(pool: PgPool) -> TestResult {
    let (recorded, exported) = recorders();
    let store = with_queue(&pool, "gauges").await?;
    send(&store, "gauges", &["task"; 5]).await?;
    let gate = Arc::new(Semaphore::new(0));
    let consumer = pgqrs::consumer("gauges").create(&store).await?;
    let handle = consumer.handle();
    let run = consumer.run({
        let gate = Arc::clone(&gate);
        move |_: Delivery<Value>| {
            let gate = Arc::clone(&gate);
            async move {
                gate.acquire().await.expect("never closed").forget();
                Outcome::Done
            }
        }
    });
    let running = tokio::spawn(run.concurrency(2));
    let of = |name: &str| recorded.get(&format!("{name}{{messaging.destination.name=gauges}}"));
    let are = |running: f64, prefetched: f64| {
        of("pgqrs.handlers.running") == Some(Measured::Last(running))
            && of("pgqrs.messages.prefetched") == Some(Measured::Last(prefetched))
    };
    until("two are handled", async || are(2.0, 0.0)).await;
    assert_eq!(recorded.with("=gauges"), {
        let mut exported = exported.with("=gauges")?;
        exported.retain(|series, _| recorded.get(series).is_some());
        exported
    });
    let database = pool.connect_options();
    let database = database.get_database().unwrap_or_default().to_owned();
    let connections = recorded.with(&format!("/{database}"));
    let used = connections
        .iter()
        .find(|(series, _)| series.contains("state=used"));
    assert!(
        used.is_some_and(|(_, used)| matches!(used, Measured::Last(used) if *used <= 10.0)),
        "{connections:?}"
    );
    let max = connections
        .iter()
        .find(|(series, _)| series.starts_with("db.client.connection.max"));
    let max = max.map(|(_, max)| *max);
    assert_eq!(
        max,
        Some(Measured::Last(f64::from(
            pool.options().get_max_connections()
        )))
    );
    gate.add_permits(5);
    until("all are settled", async || left(&pool).await == 0).await;
    handle.stop();
    running.await??;
    until("a consumer that has ended counts no more", async || {
        are(0.0, 0.0)
    })
    .await;
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn statements_of_sends_that_are_under_way_are_a_gauge(pool: PgPool) -> TestResult {
    let (recorded, _) = recorders();
    let store = with_queue(&pool, "writers").await?;
    send(&store, "writers", &["task"]).await?;
    let database = pool.connect_options();
    let database = database.get_database().unwrap_or_default().to_owned();
    let writers = || {
        let all = recorded.with(&format!("/{database}"));
        let mut all = all.into_iter();
        all.find_map(|(series, value)| series.starts_with("pgqrs.writers.active").then_some(value))
    };
    let mut locked = pool.begin().await?;
    sqlx::query("lock table pgqrs.messages in exclusive mode")
        .execute(&mut *locked)
        .await?;
    let waiting = tokio::spawn(async move { send(&store, "writers", &["task"]).await });
    until("a statement waits", async || {
        writers() == Some(Measured::Last(1.0))
    })
    .await;
    locked.rollback().await?;
    waiting.await??;
    until("it has ended", async || {
        writers() == Some(Measured::Last(0.0))
    })
    .await;
    Ok(())
}

#[tokio::test]
async fn a_server_that_is_away_is_a_gauge() -> TestResult {
    let (recorded, _) = recorders();
    let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
    let pool = PgPoolOptions::new().acquire_timeout(Duration::from_secs(1));
    let pool = pool.connect_lazy(&format!("postgres://127.0.0.1:{port}/away"))?;
    let store = Store::from(pool);
    pgqrs::admin(&store).queues().await.unwrap_err();
    let away = format!("pgqrs.server.away{{db.client.connection.pool.name=127.0.0.1:{port}/away}}");
    until("it is away", async || {
        recorded.get(&away) == Some(Measured::Last(1.0))
    })
    .await;
    Ok(())
}

async fn messages_go_on(pool: &PgPool, queue: &'static str) -> TestResult {
    let store = with_queue(pool, queue).await?;
    let consumer = pgqrs::consumer(queue).create(&store).await?;
    let handle = consumer.handle();
    let run = consumer.run(async |_: Delivery<Value>| Outcome::Done);
    let running = tokio::spawn(run);
    for _ in 0..10 {
        send(&store, queue, &["task"; 10]).await?;
    }
    until("all are settled", async || left(pool).await == 0).await;
    handle.stop();
    let report = running.await??;
    assert_eq!(report.done, 100);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_recorder_that_blocks_holds_up_no_message(pool: PgPool) -> TestResult {
    let (recorded, _) = recorders();
    let blocked = Arc::clone(&recorded.blocked);
    let (release, released) = std::sync::mpsc::channel::<()>();
    let blocking = std::thread::spawn(move || {
        let _held = blocked.lock();
        // Until the sender is dropped.
        let _ = released.recv();
    });
    messages_go_on(&pool, "blocks").await?;
    drop(release);
    blocking.join().map_err(|_| "it doesn't panic")?;
    // Once it is released, it has all.
    let sent = "messaging.client.sent.messages{messaging.destination.name=blocks,\
                messaging.operation.name=send,messaging.system=pgqrs}";
    until("all is passed on", async || recorded.sum(sent) == 100).await;
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_recorder_that_panics_loses_only_what_it_was_passed(pool: PgPool) -> TestResult {
    let (recorded, exported) = recorders();
    messages_go_on(&pool, "panics").await?;
    assert!(recorded.with("=panics").is_empty());
    // The other kind has it.
    let sent = "messaging.client.sent.messages{messaging.destination.name=panics,\
                messaging.operation.name=send,messaging.system=pgqrs}";
    until("it is passed on", async || {
        let exported = exported.with(sent).expect("exported");
        exported.get(sent) == Some(&Measured::Sum(100))
    })
    .await;
    // Others are still recorded.
    messages_go_on(&pool, "calm").await?;
    let calm = sent.replace("panics", "calm");
    until("all is passed on", async || recorded.sum(&calm) == 100).await;
    Ok(())
}
