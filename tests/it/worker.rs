//! Managed workers: registered, alive, suspended, stopped, crashed; and what others see of them.

mod heartbeats;
mod identity;
mod listing;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use pgqrs::{
    Delivery, Error, Outcome, Queue, QueueName, Store, Worker, WorkerFilter, WorkerId, WorkerInfo,
    WorkerKind, WorkerStatus,
};
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::support::{
    TestResult, blocked_backend, changes, connect, consumers::start, count, newcomer,
    server::Server, terminate, until, url, with_queues,
};

async fn info(store: &Store, worker: WorkerId) -> pgqrs::Result<WorkerInfo> {
    pgqrs::admin(store).worker(worker).await
}

async fn all(store: &Store) -> pgqrs::Result<Vec<WorkerInfo>> {
    pgqrs::admin(store).workers(&WorkerFilter::default()).await
}

/// As if the worker's last heartbeat had been this long ago.
async fn silence(pool: &PgPool, worker: WorkerId, seconds: f64) -> TestResult {
    let silenced = sqlx::query(
        "update pgqrs.workers set heartbeat_at = heartbeat_at - $2 * interval '1 second' where id = $1",
    )
    .bind(worker.get())
    .bind(seconds)
    .execute(pool)
    .await?;
    assert_eq!(silenced.rows_affected(), 1);
    Ok(())
}

async fn check_new(store: &Store, worker: &impl Worker, kind: WorkerKind) -> TestResult {
    assert_eq!(worker.status().await?, WorkerStatus::Ready);
    assert!(worker.is_healthy(Duration::from_secs(10)).await?);
    assert_eq!((worker.hostname(), worker.port()), ("my-service", 3000));
    assert_eq!(worker.queue().as_str(), "tasks");
    assert_eq!(worker.kind(), kind);
    let listed = info(store, worker.id()).await?;
    assert_eq!(listed.id, worker.id());
    assert_eq!(
        (listed.hostname.as_str(), listed.port),
        ("my-service", 3000)
    );
    assert_eq!((listed.kind, listed.status), (kind, WorkerStatus::Ready));
    assert_eq!(listed.queue.as_str(), "tasks");
    assert!(!listed.stale);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_new_worker_is_ready_healthy_and_listed(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let producer = pgqrs::producer("my-service", 3000, "tasks")
        .create(&store)
        .await?;
    let consumer = pgqrs::consumer("tasks")
        .identity("my-service", 3000)
        .create(&store)
        .await?;
    check_new(&store, &producer, WorkerKind::Producer).await?;
    check_new(&store, &consumer, WorkerKind::Consumer).await?;
    assert_eq!(all(&store).await?.len(), 2);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn illegal_steps_are_typed_and_change_nothing(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let producer = pgqrs::producer("my-service", 3000, "tasks")
        .create(&store)
        .await?;
    let id = producer.id();
    use WorkerStatus::{Ready, Stopped, Suspended};
    let refused = |outcome: pgqrs::Result<()>, from, to| {
        let expected = matches!(
            &outcome,
            Err(Error::InvalidTransition { worker, from: was, to: wanted })
                if *worker == id && *was == from && *wanted == to
        );
        assert!(expected, "{from} -> {to}: {outcome:?}");
    };
    refused(producer.resume().await, Ready, Ready);
    producer.suspend().await?;
    refused(producer.suspend().await, Suspended, Suspended);
    assert_eq!(producer.status().await?, Suspended);
    producer.heartbeat().await?;
    producer.resume().await?;
    assert_eq!(producer.status().await?, Ready);
    producer.suspend().await?;
    producer.shutdown().await?;
    assert_eq!(producer.status().await?, Stopped);
    producer.shutdown().await?;
    refused(producer.suspend().await, Stopped, Suspended);
    refused(producer.resume().await, Stopped, Ready);
    let refused = producer.heartbeat().await;
    assert!(
        matches!(refused, Err(Error::WorkerStopped { worker }) if worker == id),
        "{refused:?}"
    );
    assert!(!producer.is_healthy(Duration::from_secs(10)).await?);
    assert_eq!(producer.status().await?, Stopped);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_heartbeat_moves_the_time_forward(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let producer = pgqrs::producer("my-service", 3000, "tasks")
        .create(&store)
        .await?;
    silence(&pool, producer.id(), 30.0).await?;
    let before = info(&store, producer.id()).await?.heartbeat_at;
    assert!(!producer.is_healthy(Duration::from_nanos(1)).await?);
    assert!(!producer.is_healthy(Duration::from_secs(10)).await?);
    producer.heartbeat().await?;
    assert!(producer.is_healthy(Duration::from_secs(10)).await?);
    assert!(info(&store, producer.id()).await?.heartbeat_at > before);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn messages_carry_their_producer_whichever_way_they_go_through_it(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let producer = pgqrs::producer("my-service", 3000, "tasks")
        .create(&store)
        .await?;
    pgqrs::enqueue()
        .message(&1)
        .worker(&*producer)
        .execute(&store)
        .await?;
    pgqrs::enqueue()
        .worker(&producer)
        .message(&2)
        .execute(&store)
        .await?;
    producer.enqueue().message(&3).execute(&store).await?;
    producer
        .clone()
        .enqueue()
        .messages(&[4, 5])
        .delay(0)
        .execute(&store)
        .await?;
    let mut tx = pool.begin().await?;
    producer.enqueue().message(&6).execute(&mut tx).await?;
    tx.commit().await?;
    let many: Vec<_> = (7..2_007).collect();
    producer.enqueue().messages(&many).execute(&store).await?;
    let senders: Vec<Option<i64>> =
        sqlx::query_scalar("select distinct producer_id from pgqrs.messages")
            .fetch_all(&pool)
            .await?;
    assert_eq!(senders, [Some(producer.id().get())]);
    assert_eq!(count(&pool).await?, 2_006);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_suspended_or_stopped_producer_stores_nothing(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let producer = pgqrs::producer("my-service", 3000, "tasks")
        .create(&store)
        .await?;
    let id = producer.id();
    let many: Vec<_> = (0..2_000).collect();

    producer.suspend().await?;
    let refused = producer.enqueue().message(&1).execute(&store).await;
    assert!(
        matches!(refused, Err(Error::WorkerSuspended { worker }) if worker == id),
        "{refused:?}"
    );
    let refused = producer.enqueue().messages(&many).execute(&store).await;
    assert!(
        matches!(refused, Err(Error::WorkerSuspended { .. })),
        "{refused:?}"
    );
    producer.resume().await?;
    producer.enqueue().message(&1).execute(&store).await?;

    producer.shutdown().await?;
    let refused = producer.enqueue().message(&2).execute(&store).await;
    assert!(
        matches!(refused, Err(Error::WorkerStopped { worker }) if worker == id),
        "{refused:?}"
    );
    assert_eq!(count(&pool).await?, 1);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_suspension_from_elsewhere_is_seen_by_the_very_next_enqueue(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let producer = pgqrs::producer("my-service", 3000, "tasks")
        .create(&store)
        .await?;
    // Another process is another pool.
    let elsewhere = connect(&pool).await?;
    let operator = pgqrs::admin(&elsewhere);
    for round in 0..20 {
        producer.enqueue().message(&round).execute(&store).await?;
        operator.suspend_worker(producer.id()).await?;
        let refused = producer.enqueue().message(&round).execute(&store).await;
        assert!(
            matches!(refused, Err(Error::WorkerSuspended { .. })),
            "{refused:?}"
        );
        operator.resume_worker(producer.id()).await?;
    }
    assert_eq!(count(&pool).await?, 20);
    operator.stop_worker(producer.id()).await?;
    let refused = producer.enqueue().message(&1).execute(&store).await;
    assert!(
        matches!(refused, Err(Error::WorkerStopped { .. })),
        "{refused:?}"
    );
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_consumer_receives_through_itself_unless_it_is_suspended(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    pgqrs::enqueue()
        .messages(&[1, 2, 3])
        .to("tasks")
        .execute(&store)
        .await?;
    let consumer = pgqrs::consumer("tasks")
        .identity("my-service", 3001)
        .create(&store)
        .await?;
    let first = consumer.dequeue().execute(&store).await?;
    let second = pgqrs::dequeue()
        .worker(&*consumer)
        .limit(1)
        .execute(&store)
        .await?;
    let holders: Vec<Option<i64>> = sqlx::query_scalar(
        "select distinct consumer_id from pgqrs.messages where lease_token <> 0",
    )
    .fetch_all(&pool)
    .await?;
    assert_eq!(holders, [Some(consumer.id().get())]);
    let held = pgqrs::admin(&store).held_messages(consumer.id()).await?;
    assert_eq!(
        held.iter().map(|held| held.id).collect::<Vec<_>>(),
        [first[0].id(), second[0].id()]
    );
    assert_eq!(held[0].attempt, 1);
    assert_eq!(held[0].lease_expires_at, first[0].lease_expires_at());

    consumer.suspend().await?;
    let refused = consumer.dequeue().execute(&store).await;
    assert!(
        matches!(refused, Err(Error::WorkerSuspended { .. })),
        "{refused:?}"
    );
    // What it has, it may finish.
    for delivery in first.into_iter().chain(second) {
        delivery.ack(&store).await?;
    }
    assert!(
        pgqrs::admin(&store)
            .held_messages(consumer.id())
            .await?
            .is_empty()
    );
    consumer.shutdown().await?;
    let refused = consumer.dequeue().execute(&store).await;
    assert!(
        matches!(refused, Err(Error::WorkerStopped { .. })),
        "{refused:?}"
    );
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_typed_producer_and_consumer_carry_their_type(pool: PgPool) -> TestResult {
    #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    struct SendEmail {
        to: String,
    }
    const EMAILS: Queue<SendEmail> = Queue::new("emails");
    let store = with_queues(&pool, &["emails"]).await?;
    let email = SendEmail { to: "ada".into() };
    let producer = pgqrs::producer("my-service", 3000, EMAILS)
        .create(&store)
        .await?;
    producer.enqueue().message(&email).execute(&store).await?;
    pgqrs::enqueue()
        .message(&email)
        .worker(&*producer)
        .execute(&store)
        .await?;
    let consumer = pgqrs::consumer(EMAILS)
        .identity("my-service", 3001)
        .create(&store)
        .await?;
    let deliveries = consumer.dequeue().limit(2).execute(&store).await?;
    assert_eq!(deliveries.len(), 2);
    for delivery in deliveries {
        assert_eq!(*delivery.payload()?, email);
        delivery.ack(&store).await?;
    }
    Ok(())
}

/// Old or new, never neither; and the handle goes on.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_connection_killed_in_the_middle_of_a_step_leaves_the_old_state(
    pool: PgPool,
) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let store = connect(&pool).await?;
    let producer = pgqrs::producer("my-service", 3000, "tasks")
        .create(&store)
        .await?;
    type Step = fn(&pgqrs::Producer) -> pgqrs::Execute<'_, pgqrs::Result<()>>;
    let steps: [(Step, WorkerStatus, WorkerStatus); 4] = [
        (
            |producer| producer.heartbeat(),
            WorkerStatus::Ready,
            WorkerStatus::Ready,
        ),
        (
            |producer| producer.suspend(),
            WorkerStatus::Ready,
            WorkerStatus::Suspended,
        ),
        (
            |producer| producer.resume(),
            WorkerStatus::Suspended,
            WorkerStatus::Ready,
        ),
        (
            |producer| producer.shutdown(),
            WorkerStatus::Ready,
            WorkerStatus::Stopped,
        ),
    ];
    for (step, from, to) in steps {
        let mut blocker = pool.begin().await?;
        sqlx::query("select from pgqrs.workers for update")
            .execute(&mut *blocker)
            .await?;
        let call = tokio::spawn({
            let producer = producer.clone();
            async move { step(&producer).await }
        });
        let backend = blocked_backend(&pool, "pgqrs.workers").await;
        terminate(&pool, backend).await?;
        let failed = call.await?.unwrap_err();
        assert!(failed.is_retryable(), "{failed:?}");
        blocker.rollback().await?;
        assert_eq!(producer.status().await?, from);
        step(&producer).await?;
        assert_eq!(producer.status().await?, to);
    }
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_thousand_enqueues_leave_the_workers_table_unchanged(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let url = url(&pool);
    pool.close().await;
    let (inserted, updated, deleted) = changes(&url, "messages").await?;
    let store = pgqrs::connect(&url).await?;
    let producer = pgqrs::producer("my-service", 3000, "tasks")
        .create(&store)
        .await?;
    for n in 0..500 {
        pgqrs::enqueue()
            .message(&json!({"n": n}))
            .to("tasks")
            .execute(&store)
            .await?;
        producer
            .enqueue()
            .message(&json!({"n": n}))
            .execute(&store)
            .await?;
    }
    store.pool().close().await;
    assert_eq!(changes(&url, "workers").await?, (1, 0, 0));
    assert_eq!(
        changes(&url, "messages").await?,
        (inserted + 1_000, updated, deleted)
    );
    Ok(())
}

/// Notes the messages and fields of events.
#[derive(Clone, Default)]
struct Notes(Arc<Mutex<Vec<String>>>);

impl tracing::Subscriber for Notes {
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
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                self.0 += &format!("{}={value:?} ", field.name());
            }
        }
        let mut fields = Fields(String::new());
        event.record(&mut fields);
        self.0.lock().expect("not poisoned").push(fields.0);
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn every_transition_is_an_event(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let notes = Notes::default();
    let subscriber = tracing::subscriber::set_default(notes.clone());
    let producer = pgqrs::producer("my-service", 3000, "tasks")
        .create(&store)
        .await?;
    producer.suspend().await?;
    pgqrs::admin(&store).resume_worker(producer.id()).await?;
    producer.shutdown().await?;
    producer.shutdown().await?;
    drop(subscriber);
    let notes = notes.0.lock().expect("not poisoned");
    let id = producer.id();
    for (note, expected) in notes.iter().zip([
        ["worker registered", r#"kind="producer""#],
        [r#"from="ready""#, r#"to="suspended""#],
        [r#"from="suspended""#, r#"to="ready""#],
        [r#"from="ready""#, r#"to="stopped""#],
    ]) {
        assert!(
            expected.iter().all(|part| note.contains(part)),
            "{expected:?} in {note}"
        );
        assert!(note.contains(&format!("worker_id={id}")), "{note}");
        assert!(note.contains(r#"queue="tasks""#), "{note}");
    }
    assert_eq!(notes.len(), 4, "{notes:?}");
    Ok(())
}
