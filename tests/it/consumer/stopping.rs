//! How a run ends, and what it leaves.

use super::*;

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
        (stats.ready.value, stats.leased.value) == (8, 2)
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
    // No claim is under way at the deadline that could get what is released.
    let consumer = consumer().concurrency(2).prefetch(0).create(&store).await?;
    let handle = consumer.handle();
    let run = consumer
        .run(wait_at(&gate()))
        .shutdown_deadline(Duration::from_secs(1));
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
    assert_eq!((stats.ready.value, stats.leased.value), (2, 0));
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
    // In between, a part of it is gone.
    assert!(
        matches!(failed, Err(Error::NotInstalled | Error::SchemaOutdated)),
        "{failed:?}"
    );
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

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_consumer_that_its_last_handler_stops_ends_at_once(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    // Whether the loop hears of the stop first, or of the handler's end.
    for _ in 0..20 {
        let enqueue = pgqrs::enqueue().message(&0).to("tasks");
        enqueue.execute(&store).await?;
        let consumer = pgqrs::consumer("tasks").create(&store).await?;
        let (handle, settles) = (consumer.handle(), store.clone());
        let run = consumer
            .run(move |delivery: Delivery<Value>| {
                let (handle, store) = (handle.clone(), settles.clone());
                async move {
                    delivery.ack(&store).await.expect("its lease is held");
                    handle.stop();
                    Outcome::Done
                }
            })
            .concurrency(1)
            .prefetch(0)
            .poll_interval(Duration::from_secs(3_600))
            .shutdown_deadline(Duration::from_secs(3_600));
        let run = tokio::spawn(run);
        until("it has ended", async || run.is_finished()).await;
        assert_eq!(run.await??.done, 1);
    }
    Ok(())
}
