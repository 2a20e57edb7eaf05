//! Messages that a handler puts off, and the reasons of those that it has retried.

use super::*;

const LONG: Duration = Duration::from_secs(3_600);

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_message_that_is_put_off_uses_no_attempt_and_counts_how_often(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let one_attempt = QueueOptions::builder().max_attempts(1).build();
    let admin = pgqrs::admin(&store);
    admin.configure_queue("tasks", one_attempt).await?;
    send(&store, &["not now"]).await?;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let running = start(consumer().create(&store).await?, {
        let seen = Arc::clone(&seen);
        move |delivery: Delivery<Value>| {
            let counts = (delivery.attempt(), delivery.snoozes());
            seen.lock().expect("not poisoned").push(counts);
            std::future::ready(match delivery.snoozes() {
                3 => Outcome::Done,
                _ => Outcome::Later(Duration::ZERO),
            })
        }
    });
    drained(&pool).await;
    let report = running.stop().await?;
    assert_eq!((report.snoozed, report.done, report.dead), (3, 1, 0));
    assert_eq!(report.retried + report.lost + report.released, 0);
    assert_eq!(
        *seen.lock().expect("not poisoned"),
        [(1, 0), (1, 1), (1, 2), (1, 3)]
    );
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_message_that_is_put_off_waits_for_as_long_as_was_asked(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let before = now(&pool).await?;
    send(&store, &[1]).await?;
    let running = start(
        consumer().create(&store).await?,
        async |_: Delivery<Value>| Outcome::Later(LONG),
    );
    let admin = pgqrs::admin(&store);
    until("the message waits", async || {
        admin.queue_stats("tasks").await.expect("counted").delayed == 1
    })
    .await;
    let after = now(&pool).await?;
    running.stop().await?;
    let message = &admin.messages("tasks", Page::default()).await?[0];
    assert!((before + LONG..=after + LONG).contains(&message.visible_at));
    assert_eq!((message.attempt, message.snoozes), (0, 1));
    assert_eq!((&message.last_error, message.consumer), (&None, None));
    assert_eq!(message.lease_expires_at, None);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn one_whose_lease_was_lost_is_not_put_off(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let id = send(&store, &[1]).await?[0];
    let (seen, gate) = (Seen::default(), gate());
    let running = start(
        consumer().lease(LONG).concurrency(1).create(&store).await?,
        {
            let (seen, gate) = (seen.clone(), Arc::clone(&gate));
            move |delivery: Delivery<Value>| {
                let (seen, gate) = (seen.clone(), Arc::clone(&gate));
                async move {
                    seen.note(delivery.raw_payload());
                    pass(&gate).await;
                    Outcome::Later(Duration::ZERO)
                }
            }
        },
    );
    until("it is being handled", async || seen.len() == 1).await;
    expire(&pool, id).await?;
    let other = one(&newcomer(&pool)).await?;
    assert_eq!((other.attempt(), other.snoozes()), (2, 0));
    gate.add_permits(1);
    let report = running.stop().await?;
    assert_eq!((report.snoozed, report.lost), (0, 1));
    let message = &pgqrs::admin(&store)
        .messages("tasks", Page::default())
        .await?[0];
    assert_eq!((message.attempt, message.snoozes), (2, 0));
    other.ack(&store).await?;
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn the_reason_of_a_retry_is_kept_as_the_last_error(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    send(&store, &["retry", "retry in", "without a reason"]).await?;
    let policy = RetryPolicy::builder().first(LONG).jitter(0.0).build();
    let running = start(
        consumer().retry(policy).create(&store).await?,
        async |delivery: Delivery<Value>| match delivery.payload().as_str() {
            Some("retry") => Outcome::Retry("the printer is out of paper".to_owned()),
            Some("retry in") => Outcome::RetryIn(LONG, "the mailbox is full".to_owned()),
            _ => Outcome::Retry(String::new()),
        },
    );
    let admin = pgqrs::admin(&store);
    until("all of them wait", async || {
        admin.queue_stats("tasks").await.expect("counted").delayed == 3
    })
    .await;
    running.stop().await?;
    let messages = admin.messages("tasks", Page::default()).await?;
    let errors: Vec<_> = messages
        .iter()
        .map(|message| message.last_error.as_deref())
        .collect();
    assert_eq!(
        errors,
        [
            Some("the printer is out of paper"),
            Some("the mailbox is full"),
            None
        ]
    );
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn one_that_its_handler_has_put_off_in_a_transaction_is_put_off_once(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    send(&store, &[1]).await?;
    let running = start(consumer().create(&store).await?, {
        let pool = pool.clone();
        move |delivery: Delivery<Value>| {
            let pool = pool.clone();
            async move {
                let mut tx = pool.begin().await?;
                delivery.later(LONG, &mut tx).await?;
                tx.commit().await?;
                Ok::<_, Box<dyn std::error::Error + Send + Sync>>(Outcome::Later(Duration::ZERO))
            }
        }
    });
    let admin = pgqrs::admin(&store);
    until("the message waits", async || {
        admin.queue_stats("tasks").await.expect("counted").delayed == 1
    })
    .await;
    let report = running.stop().await?;
    assert_eq!((report.done, report.snoozed, report.lost), (1, 0, 0));
    let message = &admin.messages("tasks", Page::default()).await?[0];
    assert_eq!((message.attempt, message.snoozes), (0, 1));
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_message_of_a_chunk_can_be_put_off_alone(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let ids = send(&store, &[1, 2, 3]).await?;
    let consumer = consumer().create(&store).await?;
    let handle = consumer.handle();
    let run = consumer.run_chunks(3, LONG, move |chunk: pgqrs::Chunk<Value>| {
        chunk.later(1, LONG);
        handle.stop();
        std::future::ready(Outcome::Done)
    });
    let report = run.await?;
    assert_eq!((report.done, report.snoozed), (2, 1));
    let left = &pgqrs::admin(&store)
        .messages("tasks", Page::default())
        .await?[..];
    assert_eq!(left.len(), 1);
    assert_eq!(
        (left[0].id, left[0].attempt, left[0].snoozes),
        (ids[1], 0, 1)
    );
    Ok(())
}
