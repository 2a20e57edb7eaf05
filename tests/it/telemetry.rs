//! Spans: their names are OpenTelemetry's, they say what failed, and they never hold a payload.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    sync::{Arc, Mutex},
    time::Duration,
};

use pgqrs::{Delivery, MessageId, Outcome, Queue};
use serde_json::Value;
use sqlx::PgPool;
use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
    subscriber::DefaultGuard,
};

use crate::support::{
    TestResult, claim,
    consumers::{consumer, drained, prepare, start},
    expire, one, send, with_queues,
};

/// Notes all spans and events of this thread, which is the only one of a test's runtime.
#[derive(Debug, Clone, Default)]
struct Notes(Arc<Mutex<Noted>>);

#[derive(Debug, Default)]
struct Noted {
    spans: Vec<Span>,
    entered: Vec<usize>,
    /// With the name of the span that they happened in.
    events: Vec<(Option<&'static str>, Fields)>,
}

#[derive(Debug, Clone)]
struct Span {
    name: &'static str,
    ours: bool,
    fields: Fields,
}

#[derive(Debug, Clone, Default, PartialEq)]
struct Fields(BTreeMap<&'static str, String>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }
}

impl Subscriber for Notes {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let metadata = attributes.metadata();
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        let mut noted = self.0.lock().expect("not poisoned");
        noted.spans.push(Span {
            name: metadata.name(),
            ours: metadata.target().starts_with("pgqrs"),
            fields,
        });
        Id::from_u64(noted.spans.len() as u64)
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        let mut noted = self.0.lock().expect("not poisoned");
        values.record(&mut noted.spans[span.into_u64() as usize - 1].fields);
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let mut noted = self.0.lock().expect("not poisoned");
        let within = noted.entered.last().map(|span| noted.spans[*span].name);
        noted.events.push((within, fields));
    }

    fn enter(&self, span: &Id) {
        let mut noted = self.0.lock().expect("not poisoned");
        noted.entered.push(span.into_u64() as usize - 1);
    }

    fn exit(&self, _: &Id) {
        self.0.lock().expect("not poisoned").entered.pop();
    }
}

impl Notes {
    fn start() -> (Self, DefaultGuard) {
        let notes = Self::default();
        let guard = tracing::subscriber::set_default(notes.clone());
        (notes, guard)
    }

    /// The spans of the crate since the last call, with this name.
    fn take(&self, name: &str) -> Vec<Fields> {
        let mut noted = self.0.lock().expect("not poisoned");
        // Not taken out: spans are known by their place.
        let spans = noted
            .spans
            .iter_mut()
            .filter(|span| span.ours && span.name == name);
        spans
            .map(|span| {
                span.ours = false;
                span.fields.clone()
            })
            .collect()
    }
}

/// A span's fields: what all spans of the kind have, and what this one has.
fn fields(common: &[(&'static str, &str)], more: &[(&'static str, &str)]) -> Fields {
    let system = ("messaging.system", "pgqrs");
    let all = common.iter().chain(more).chain([&system]);
    Fields(
        all.map(|(name, value)| (*name, (*value).to_owned()))
            .collect(),
    )
}

const SEND: [(&str, &str); 3] = [
    ("otel.kind", "producer"),
    ("messaging.operation.type", "send"),
    ("messaging.operation.name", "enqueue"),
];
const RECEIVE: [(&str, &str); 3] = [
    ("otel.kind", "consumer"),
    ("messaging.operation.type", "receive"),
    ("messaging.operation.name", "dequeue"),
];
const PROCESS: [(&str, &str); 4] = [
    ("otel.kind", "consumer"),
    ("messaging.operation.type", "process"),
    ("messaging.operation.name", "process"),
    ("messaging.destination.name", "tasks"),
];
const SETTLE: [(&str, &str); 2] = [
    ("otel.kind", "client"),
    ("messaging.operation.type", "settle"),
];

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn an_enqueue_is_a_send_span(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let (notes, _guard) = Notes::start();
    let queue = ("messaging.destination.name", "tasks");
    pgqrs::enqueue()
        .message(&1)
        .to("tasks")
        .execute(&store)
        .await?;
    assert_eq!(notes.take("send"), [fields(&SEND, &[queue])]);
    send(&store, &[1, 2, 3]).await?;
    let count = ("messaging.batch.message_count", "3");
    assert_eq!(notes.take("send"), [fields(&SEND, &[queue, count])]);

    pgqrs::enqueue()
        .message(&1)
        .to("taks")
        .execute(&store)
        .await
        .unwrap_err();
    let queue = ("messaging.destination.name", "taks");
    let error = ("error.type", "QueueNotFound");
    assert_eq!(notes.take("send"), [fields(&SEND, &[queue, error])]);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_dequeue_is_a_receive_span(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    send(&store, &[1, 2, 3]).await?;
    let (notes, _guard) = Notes::start();
    let queue = ("messaging.destination.name", "tasks");
    for (limit, count) in [(2, "2"), (2, "1"), (2, "0")] {
        claim(&store, limit).await?;
        let count = ("messaging.batch.message_count", count);
        assert_eq!(notes.take("receive"), [fields(&RECEIVE, &[queue, count])]);
    }
    pgqrs::dequeue()
        .from("taks")
        .execute(&store)
        .await
        .unwrap_err();
    let queue = ("messaging.destination.name", "taks");
    let error = ("error.type", "QueueNotFound");
    assert_eq!(notes.take("receive"), [fields(&RECEIVE, &[queue, error])]);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn each_way_to_settle_is_a_settle_span(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
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
        ("ack", ids[5], Some("LeaseLost")),
    ];
    let expected = expected.map(|(verb, id, error): (_, MessageId, _)| {
        let id = id.get().to_string();
        let mut more = vec![
            ("messaging.operation.name", verb),
            ("messaging.message.id", &id),
        ];
        more.extend(error.map(|error| ("error.type", error)));
        fields(&SETTLE, &more)
    });
    assert_eq!(notes.take("settle"), expected);

    pgqrs::ack_all(vec![next(), next()], &store).await?;
    let verb = ("messaging.operation.name", "ack");
    let count = ("messaging.batch.message_count", "2");
    assert_eq!(notes.take("settle"), [fields(&SETTLE, &[verb, count])]);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_handler_runs_in_a_process_span(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let (notes, _guard) = Notes::start();
    let id = send(&store, &[1]).await?[0].get().to_string();
    let running = start(
        consumer().create(&store).await?,
        async |delivery: Delivery<Value>| {
            tracing::info!("at work");
            match delivery.attempt() {
                1 => Err("not today"),
                _ => Ok(Outcome::Done),
            }
        },
    );
    drained(&pool).await;
    running.stop().await?;
    let message = ("messaging.message.id", id.as_str());
    assert_eq!(
        notes.take("process"),
        [
            fields(
                &PROCESS,
                &[message, ("attempt", "1"), ("error.type", "handler")]
            ),
            fields(&PROCESS, &[message, ("attempt", "2")]),
        ]
    );
    assert!(!notes.take("receive").is_empty() && !notes.take("settle").is_empty());
    // What a handler says is said within its span.
    let noted = notes.0.lock().expect("not poisoned");
    let at_work = noted.events.iter().filter(|(_, fields)| {
        fields
            .0
            .get("message")
            .is_some_and(|message| message == "at work")
    });
    let within: Vec<_> = at_work.map(|(within, _)| *within).collect();
    assert_eq!(within, [Some("process"); 2]);
    Ok(())
}

/// Whatever is done with it, at whatever level, by whichever crate.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_dequeue_that_stops_at_its_bytes_says_so(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    send(&store, &["x".repeat(1_000), "y".repeat(1_000)]).await?;
    let (notes, _guard) = Notes::start();
    let stopped = || {
        let noted = notes.0.lock().expect("not poisoned");
        let events = noted.events.iter().map(|(_, fields)| fields.0.clone());
        let events = events.filter(|fields| fields.contains_key("max_bytes"));
        events.collect::<Vec<_>>()
    };
    let dequeue = || {
        pgqrs::dequeue()
            .from("tasks")
            .limit(10_000)
            .max_bytes(1_500)
    };
    assert_eq!(dequeue().execute(&store).await?.len(), 1);
    let event = &stopped()[..];
    assert_eq!(event.len(), 1, "{event:?}");
    let of = |field: &str| event[0].get(field).map(String::as_str);
    assert_eq!([of("messages"), of("max_bytes")], [Some("1"), Some("1500")]);
    assert_eq!(of("messaging.destination.name"), Some("tasks"));
    // All that there is.
    assert_eq!(dequeue().execute(&store).await?.len(), 1);
    assert_eq!(stopped().len(), 1);
    Ok(())
}

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
            1 => Outcome::Retry,
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
        .create(&store)
        .await?;
    let handle = typed.handle();
    let run = typed.run(async |_: Delivery<u32>| Outcome::Done);
    let run = tokio::spawn(run);
    drained(&pool).await;
    handle.stop();
    assert_eq!(run.await??.dead, 1);

    let noted = format!("{:?}", notes.0.lock().expect("not poisoned"));
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
