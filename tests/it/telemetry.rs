//! What an operator sees. Spans: their names are OpenTelemetry's, they say what failed, and they never hold a payload.

mod incident;
mod logs;
mod outage;

use std::time::Duration;

use chrono::{DateTime, Utc};
use pgqrs::{Delivery, MessageId, Outcome, Queue, UndecodablePolicy};
use serde_json::Value;
use sqlx::PgPool;
use tracing::Level;

use crate::support::{
    TestResult, claim,
    consumers::{consumer, drained, prepare, start},
    expire,
    notes::{Fields, Notes},
    one, send, until, with_queues,
};

/// A span's fields: what all spans of the kind have, and what this one has.
fn fields(common: &[&str], more: &[&str]) -> Vec<String> {
    let all = common.iter().chain(more).chain(&["messaging.system=pgqrs"]);
    let mut all: Vec<_> = all.map(|field| (*field).to_owned()).collect();
    all.sort();
    all
}

fn sorted(spans: Vec<Fields>) -> Vec<Vec<String>> {
    spans.iter().map(Fields::sorted).collect()
}

const SEND: [&str; 3] = [
    "otel.kind=producer",
    "messaging.operation.type=send",
    "messaging.operation.name=send",
];
const RECEIVE: [&str; 3] = [
    "otel.kind=consumer",
    "messaging.operation.type=receive",
    "messaging.operation.name=receive",
];
const PROCESS: [&str; 5] = [
    "otel.name=process tasks",
    "otel.kind=consumer",
    "messaging.operation.type=process",
    "messaging.operation.name=process",
    "messaging.destination.name=tasks",
];
const SETTLE: [&str; 2] = ["otel.kind=client", "messaging.operation.type=settle"];
const TASKS: &str = "messaging.destination.name=tasks";
const TAKS: &str = "messaging.destination.name=taks";
const ERROR: &str = "otel.status_code=ERROR";

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn an_enqueue_is_a_send_span(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let (notes, _guard) = Notes::start();
    let id = send(&store, &[1]).await?[0];
    let id = format!("messaging.message.id={id}");
    let one = fields(&SEND, &["otel.name=send tasks", TASKS, &id]);
    assert_eq!(sorted(notes.take("send")), [one]);
    send(&store, &[1, 2, 3]).await?;
    let count = "messaging.batch.message_count=3";
    let batch = fields(&SEND, &["otel.name=send tasks", TASKS, count]);
    assert_eq!(sorted(notes.take("send")), [batch]);

    pgqrs::enqueue()
        .message(&1)
        .to("taks")
        .execute(&store)
        .await
        .unwrap_err();
    let error = "error.type=QueueNotFound";
    let failed = fields(&SEND, &["otel.name=send taks", TAKS, error, ERROR]);
    assert_eq!(sorted(notes.take("send")), [failed]);
    Ok(())
}

/// A span's fields, without the one that says how long the claim took.
fn timed(spans: Vec<Fields>) -> Vec<Vec<String>> {
    let mut spans = sorted(spans);
    for span in &mut spans {
        let before = span.len();
        span.retain(|field| !field.starts_with("pgqrs.claim.duration=0."));
        assert_eq!(span.len(), before - 1, "{span:?}");
    }
    spans
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_dequeue_is_a_receive_span_if_it_finds_messages(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let ids = send(&store, &[1, 2, 3, 4]).await?;
    let (notes, _guard) = Notes::start();
    let first = format!("messaging.message.id={}", ids[0]);
    let counts = [
        "messaging.batch.message_count=2",
        "messaging.batch.message_count=1",
    ];
    for (limit, messages) in [(1, first.as_str()), (2, counts[0]), (2, counts[1])] {
        claim(&store, limit).await?;
        let span = fields(&RECEIVE, &["otel.name=receive tasks", TASKS, messages]);
        assert_eq!(timed(notes.take("receive")), [span]);
    }
    claim(&store, 2).await?;
    assert_eq!(notes.take("receive"), []);
    pgqrs::dequeue()
        .from("taks")
        .execute(&store)
        .await
        .unwrap_err();
    let error = "error.type=QueueNotFound";
    let failed = fields(&RECEIVE, &["otel.name=receive taks", TAKS, error, ERROR]);
    assert_eq!(timed(notes.take("receive")), [failed]);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn each_way_to_settle_is_a_settle_span(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks", "others"]).await?;
    let ids = send(&store, &[0; 8]).await?;
    let mut deliveries = claim(&store, 8).await?.into_iter();
    let mut next = || deliveries.next().expect("eight");
    let (notes, _guard) = Notes::start();
    next().ack(&store).await?;
    next().archive(&store).await?;
    next().nack(&store).await?;
    next().retry_in(Duration::ZERO, &store).await?;
    next().dead_letter("no", &store).await?;
    // Its lease is lost.
    expire(&pool, ids[5]).await?;
    claim(&store, 8).await?;
    next().ack(&store).await.unwrap_err();
    let expected = [
        ("ack", ids[0], None),
        ("archive", ids[1], None),
        ("nack", ids[2], None),
        ("nack", ids[3], None),
        ("dead_letter", ids[4], None),
        ("ack", ids[5], Some("error.type=LeaseLost")),
    ];
    let expected = expected.map(|(verb, id, error): (_, MessageId, _)| {
        let id = format!("messaging.message.id={id}");
        let name = format!("messaging.operation.name={verb}");
        let span = format!("otel.name={verb} tasks");
        let mut more = vec![TASKS, &name, &span, &id];
        more.extend(error.into_iter().flat_map(|error| [error, ERROR]));
        fields(&SETTLE, &more)
    });
    assert_eq!(sorted(notes.take("settle")), expected);

    pgqrs::ack_all(vec![next(), next()], &store).await?;
    let batch = [
        "messaging.operation.name=ack",
        "messaging.batch.message_count=2",
        TASKS,
        "otel.name=ack tasks",
    ];
    assert_eq!(sorted(notes.take("settle")), [fields(&SETTLE, &batch)]);
    // Of several queues: without any of them.
    let mut both = Vec::new();
    for queue in ["tasks", "others"] {
        let enqueue = pgqrs::enqueue().message(&1).to(queue);
        enqueue.execute(&store).await?;
        both.extend(pgqrs::dequeue().from(queue).execute(&store).await?);
    }
    pgqrs::ack_all(both, &store).await?;
    let batch = [
        "messaging.operation.name=ack",
        "messaging.batch.message_count=2",
        "otel.name=ack",
    ];
    assert_eq!(sorted(notes.take("settle")), [fields(&SETTLE, &batch)]);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_handler_runs_in_a_process_span_which_says_how_it_failed(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let (notes, _guard) = Notes::start();
    let id = send(&store, &[1]).await?[0];
    let running = start(
        consumer()
            .handler_timeout(Duration::from_millis(50))
            .create(&store)
            .await?,
        async |delivery: Delivery<Value>| {
            tracing::info!("at work");
            match delivery.attempt() {
                1 => Err("not today"),
                2 => panic!("on purpose"),
                3 => std::future::pending().await,
                4 => Ok(Outcome::Retry("again".to_owned())),
                5 => Ok(Outcome::RetryIn(Duration::ZERO, "again".to_owned())),
                _ => Ok(Outcome::DeadLetter("no use".to_owned())),
            }
        },
    );
    drained(&pool).await;
    let worker = format!("pgqrs.worker.id={}", running.handle.id());
    running.stop().await?;
    let id = format!("messaging.message.id={id}");
    let spans = [
        (1, "HandlerError"),
        (2, "HandlerPanic"),
        (3, "HandlerTimeout"),
        (4, "Retry"),
        (5, "Retry"),
        (6, "DeadLetter"),
    ];
    let expected = spans.map(|(attempt, error)| {
        let attempt = format!("pgqrs.message.attempt={attempt}");
        let error = format!("error.type={error}");
        fields(&PROCESS, &[&id, &worker, &attempt, &error, ERROR])
    });
    assert_eq!(sorted(notes.take("process")), expected);
    let settled: Vec<_> = notes.take("settle");
    let names = settled.iter().filter_map(|span| span.get("otel.name"));
    assert_eq!(names.collect::<Vec<_>>(), ["nack tasks"; 6]);
    // What a handler says is said within its span.
    let events = notes.events().into_iter();
    let at_work = events.filter(|event| event.message() == "at work");
    let within: Vec<_> = at_work.map(|event| event.within).collect();
    assert_eq!(within, [Some("process"); 6]);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_consumer_with_nothing_to_do_has_neither_spans_nor_events(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let claimed = async || -> Option<DateTime<Utc>> {
        let last = "select max(query_start) from pg_stat_activity
                    where datname = current_database() and strpos(query, 'skip locked') > 0
                        and pid <> pg_backend_pid()";
        let last = sqlx::query_scalar(last).fetch_one(&pool).await;
        last.expect("pg_stat_activity can be read")
    };
    let (notes, guard) = Notes::start();
    let running = start(
        consumer().create(&store).await?,
        async |_: Delivery<Value>| Outcome::Done,
    );
    notes.until("consumer started", 1).await;
    drop(guard);
    until("it looks for messages", async || claimed().await.is_some()).await;
    let (notes, _guard) = Notes::start();
    for _ in 0..3 {
        let before = claimed().await;
        until("it looks again", async || claimed().await > before).await;
    }
    let mut events = notes.events();
    events.retain(|event| event.target.starts_with("pgqrs") && event.level <= Level::DEBUG);
    assert!(events.is_empty(), "{events:?}");
    for name in ["receive", "settle", "process"] {
        assert!(!notes.has_span(name), "{name}");
    }
    running.stop().await?;
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_dequeue_that_stops_at_its_bytes_says_so(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    send(&store, &["x".repeat(1_000), "y".repeat(1_000)]).await?;
    let (notes, _guard) = Notes::start();
    let stopped = || notes.lines("stopped at its limit of bytes");
    let dequeue = || {
        pgqrs::dequeue()
            .from("tasks")
            .limit(10_000)
            .max_bytes(1_500)
    };
    assert_eq!(dequeue().execute(&store).await?.len(), 1);
    assert_eq!(
        stopped(),
        [
            "INFO  a dequeue stopped at its limit of bytes before that of messages: the next one returns the rest \
             queue=\"tasks\" messages=1 max_bytes=1500"
        ]
    );
    // All that there is.
    assert_eq!(dequeue().execute(&store).await?.len(), 1);
    assert_eq!(stopped().len(), 1);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_takeover_names_the_worker_that_was_replaced(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let (notes, _guard) = Notes::start();
    let register = || pgqrs::consumer("tasks").identity("mailer", 1).replace(true);
    let first = register().create(&store).await?.id();
    let second = register().create(&store).await?.id();
    assert_eq!(
        notes.lines("in the place of"),
        [format!(
            "INFO  worker registered, in the place of another with its host and port queue=\"tasks\" \
             worker_id={second} kind=\"consumer\" hostname=\"mailer\" port=1 previous_worker_id={first}"
        )]
    );
    Ok(())
}

/// Whatever is done with it, at whatever level, by whichever crate.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn no_payload_is_ever_recorded(pool: PgPool) -> TestResult {
    const NUMBERS: Queue<u32> = Queue::new("tasks");
    let store = with_queues(&pool, &["tasks"]).await?;
    let (notes, _guard) = Notes::start();
    send(&store, &["a secret"; 6]).await?;
    one(&store).await?.ack(&store).await?;
    one(&store).await?.archive(&store).await?;
    one(&store).await?.retry_in(Duration::ZERO, &store).await?;
    one(&store).await?.dead_letter("in a test", &store).await?;
    let delivery = one(&store).await?;
    delivery.extend(Duration::from_secs(60)).await?;
    tracing::info!(?delivery, "a delivery in an event");
    expire(&pool, delivery.id()).await?;
    pgqrs::ack_all(claim(&store, 10).await?, &store).await?;
    let unsettled = delivery.ack(&store).await.unwrap_err();
    tracing::info!(?unsettled, error = %unsettled, "a delivery in an event");

    // Some are handled; another doesn't decode.
    send(&store, &["a secret"; 2]).await?;
    let running = start(
        consumer().create(&store).await?,
        async |delivery: Delivery<Value>| match delivery.attempt() {
            1 => Outcome::Retry("again".to_owned()),
            _ => Outcome::Done,
        },
    );
    drained(&pool).await;
    running.stop().await?;
    pgqrs::enqueue()
        .message(&"a secret")
        .to("tasks")
        .execute(&store)
        .await?;
    let typed = prepare(pgqrs::consumer(NUMBERS).identity("my-service", 1))
        .listen(false)
        .undecodable(UndecodablePolicy::dead_letter())
        .create(&store)
        .await?;
    let handle = typed.handle();
    let run = typed.run(async |_: Delivery<u32>| Outcome::Done);
    let run = tokio::spawn(run);
    drained(&pool).await;
    handle.stop();
    assert_eq!(run.await??.dead, 1);

    let noted = notes.all();
    for name in [
        "send",
        "receive",
        "process",
        "settle",
        "a delivery in an event",
    ] {
        assert!(noted.contains(name), "{name} was not recorded");
    }
    assert!(!noted.contains("secret"), "{noted}");
    Ok(())
}
