//! Consumers whose process, connections or server die.

use super::*;

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn it_goes_on_when_its_connections_are_killed_again_and_again(pool: PgPool) -> TestResult {
    const MESSAGES: u64 = 1_000;
    with_queues(&pool, &["tasks"]).await?;
    let store = connect(&pool).await?;
    send(&store, &(0..MESSAGES).collect::<Vec<_>>()).await?;
    let seen = Seen::default();
    let lease = Duration::from_secs(2);
    let steady = consumer().lease(lease).prefetch(50).create(&store).await?;
    let running = start(steady, seen.handler());
    let (mut left, mut kills) = (count(&pool).await?, 0);
    while left > 0 {
        let killed = "select pg_terminate_backend(pid) from pg_stat_activity
                      where datname = current_database() and application_name = 'pgqrs'";
        sqlx::query(killed).execute(&pool).await?;
        kills += 1;
        until("fewer are left", async || {
            count(&pool).await.expect("counted") < left.max(1)
        })
        .await;
        left = count(&pool).await?;
    }
    running.stop().await?;
    assert_eq!(seen.len() as u64, MESSAGES);
    assert!(kills > 10, "killed {kills} times");
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
    let stats = pgqrs::admin(&store).queue_stats("tasks").await?;
    assert!(stats.leased.value >= 8, "{stats:?}");

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
