//! Handlers that take long, or never return.

use super::*;

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_long_handler_keeps_its_lease(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    send(&store, &[1]).await?;
    let gate = gate();
    let lease = Duration::from_secs(1);
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
    // For three leases, no other consumer gets it.
    let others = newcomer(&pool);
    until("three leases have passed", async || {
        assert!(claim(&others, 1).await.expect("claimed").is_empty());
        lease_end().await.1 > first + lease * 3
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
    let lease = Duration::from_secs(1);
    let patient = consumer()
        .lease(lease)
        .heartbeat_interval(Duration::from_millis(500));
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
        let kept = held.len() == 1 && message.lease_expires_at > Some(since + lease * 3);
        kept && worker.heartbeat_at > since + lease * 3
    })
    .await;
    running.task.abort();
    Ok(())
}
