//! Messages that a consumer can't decode: they wait for one that can, and for an hour at most.

use super::*;
use crate::support::notes::Notes;
use pgqrs::{QueuedMessage, Report, Store};

const NUMBERS: Queue<u32> = Queue::new("tasks");

/// A consumer that only knows numbers, until this holds.
async fn numbers_until(
    store: &Store,
    policy: UndecodablePolicy,
    holds: impl AsyncFnMut() -> bool,
) -> Result<Report, Box<dyn std::error::Error>> {
    let consumer = prepare(pgqrs::consumer(NUMBERS))
        .undecodable(policy)
        .poll_interval(Duration::from_millis(20))
        .create(store)
        .await?;
    let handle = consumer.handle();
    let running = tokio::spawn(consumer.run(async |_: Delivery<u32>| Outcome::Done));
    until("the consumer of numbers has done its part", holds).await;
    handle.stop();
    Ok(running.await??)
}

async fn message(store: &Store) -> pgqrs::Result<QueuedMessage> {
    let admin = pgqrs::admin(store);
    Ok(admin.messages("tasks", Page::default()).await?.remove(0))
}

async fn is_seen(store: &Store) -> bool {
    let message = message(store).await.expect("listed");
    message.undecodable_since.is_some() && message.lease_expires_at.is_none()
}

/// As if it had been seen first this long ago; and it is ready again.
async fn seen_ago(pool: &PgPool, id: pgqrs::MessageId, ago: Duration) -> TestResult {
    sqlx::query(
        "update pgqrs.messages set undecodable_since = now() - $2 * interval '1 second' where id = $1",
    )
    .bind(id.get())
    .bind(ago.as_secs_f64())
    .execute(pool)
    .await?;
    expire(pool, id).await
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_payload_that_does_not_decode_waits_for_a_minute_and_uses_no_attempt(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let one_attempt = QueueOptions::builder().max_attempts(1).build();
    let admin = pgqrs::admin(&store);
    admin.configure_queue("tasks", one_attempt).await?;
    let before = now(&pool).await?;
    send(&store, &["two"]).await?;
    let policy = UndecodablePolicy::default();
    let report = numbers_until(&store, policy, async || is_seen(&store).await).await?;
    let after = now(&pool).await?;
    assert_eq!((report.undecodable, report.dead, report.retried), (1, 0, 0));
    let message = message(&store).await?;
    let minute = Duration::from_secs(60);
    assert!((before + minute..=after + minute).contains(&message.visible_at));
    assert!((Some(before)..=Some(after)).contains(&message.undecodable_since));
    assert_eq!((message.attempt, message.snoozes), (0, 0));
    let error = message.last_error.unwrap_or_default();
    assert!(error.contains("expected u32"), "{error}");
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn it_becomes_a_dead_letter_an_hour_after_it_was_first_seen(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let id = send(&store, &["two"]).await?[0];
    let policy = UndecodablePolicy::default();
    seen_ago(&pool, id, Duration::from_secs(59 * 60)).await?;
    let first = message(&store).await?.undecodable_since;
    let waits = async || message(&store).await.expect("listed").visible_at > chrono::Utc::now();
    let report = numbers_until(&store, policy, waits).await?;
    assert_eq!((report.undecodable, report.dead), (1, 0));
    assert_eq!(message(&store).await?.undecodable_since, first);

    seen_ago(&pool, id, Duration::from_secs(61 * 60)).await?;
    let is_dead = async || count(&pool).await.expect("counted") == 0;
    let report = numbers_until(&newcomer(&pool), policy, is_dead).await?;
    assert_eq!((report.undecodable, report.dead), (0, 1));
    let dead = pgqrs::admin(&store)
        .dead_letters("tasks", Page::default())
        .await?;
    assert_eq!(dead[0].reason, "its payload doesn't decode");
    let error = dead[0].last_error.as_deref().unwrap_or_default();
    assert!(error.contains("expected u32"), "{error}");
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_newer_version_handles_what_an_older_one_beside_it_puts_back(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    send(&store, &[json!("new"), json!(1)]).await?;
    let wait = Duration::from_millis(1);
    let policy = UndecodablePolicy::builder().wait(wait).build();
    let newer = newcomer(&pool);
    let attempts = Arc::new(Mutex::new(Vec::new()));
    let mut running = None;
    let report = numbers_until(&store, policy, async || {
        if running.is_none() && is_seen(&store).await {
            let attempts = Arc::clone(&attempts);
            let consumer = consumer().create(&newer).await.expect("registered");
            running = Some(start(consumer, move |delivery: Delivery<Value>| {
                attempts
                    .lock()
                    .expect("not poisoned")
                    .push(delivery.attempt());
                std::future::ready(Outcome::Done)
            }));
        }
        running.is_some() && count(&pool).await.expect("counted") == 0
    })
    .await?;
    let newer = running.expect("it runs").stop().await?;
    assert!(report.undecodable > 0);
    assert_eq!(report.done + newer.done, 2);
    assert_eq!(report.dead + newer.dead, 0);
    let attempts = attempts.lock().expect("not poisoned");
    assert!(attempts.iter().all(|attempt| *attempt == 1), "{attempts:?}");
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn its_hour_begins_anew_once_it_was_decoded(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let id = send(&store, &["two"]).await?[0];
    seen_ago(&pool, id, Duration::from_secs(61 * 60)).await?;
    one(&store).await?.nack(&store).await?;
    assert_eq!(message(&store).await?.undecodable_since, None);
    seen_ago(&pool, id, Duration::from_secs(61 * 60)).await?;
    one(&newcomer(&pool))
        .await?
        .later(Duration::ZERO, &store)
        .await?;
    assert_eq!(message(&store).await?.undecodable_since, None);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_handler_can_find_that_it_does_not_know_a_payload(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let (notes, _guard) = Notes::start();
    send(&store, &["new"]).await?;
    let running = start(
        consumer().create(&store).await?,
        async |delivery: Delivery<Value>| {
            Outcome::Undecodable(format!("no handler for {}", delivery.payload()))
        },
    );
    until("it waits", async || is_seen(&store).await).await;
    let report = running.stop().await?;
    assert_eq!((report.undecodable, report.dead), (1, 0));
    let message = message(&store).await?;
    assert_eq!(message.attempt, 0);
    assert_eq!(
        message.last_error.as_deref(),
        Some("no handler for \"new\"")
    );
    let lines = notes.lines("doesn't decode");
    assert_eq!(lines.len(), 1, "{lines:?}");
    // The reason may quote the payload.
    assert!(
        lines[0].ends_with("error=\"the handler doesn't know such a payload\""),
        "{lines:?}"
    );
    Ok(())
}
