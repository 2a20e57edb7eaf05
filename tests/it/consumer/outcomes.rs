//! What becomes of a message after its handler: acknowledged, failed, released, dead.

use super::*;

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
                "retry" if again => Outcome::Retry("again".to_owned()),
                "retry in" if again => {
                    Outcome::RetryIn(Duration::from_millis(1), "again".to_owned())
                }
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
            let mut seen = seen.lock().expect("not poisoned");
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
    assert_eq!(*attempts.lock().expect("not poisoned"), [1; 4]);
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
async fn what_does_not_decode_never_reaches_the_handler(pool: PgPool) -> TestResult {
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
    let run = consumer.run_with(Arc::clone(&sum), add);
    let running = tokio::spawn(run.undecodable(UndecodablePolicy::dead_letter()));
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
