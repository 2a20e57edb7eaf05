//! Registration: one running worker for each host, port and queue.

use super::*;

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_live_identity_can_be_replaced_at_once_and_its_old_handle_is_fenced(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let producer = || pgqrs::producer("my-service", 3000, "tasks");
    let old = producer().create(&store).await?;
    let new = producer().replace(true).create(&store).await?;
    assert_ne!(old.id(), new.id());
    let fenced = old.enqueue().message(&1).execute(&store).await;
    assert!(
        matches!(fenced, Err(Error::WorkerStopped { .. })),
        "{fenced:?}"
    );
    new.enqueue().message(&2).execute(&store).await?;
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_live_identity_cant_be_registered_again_and_a_stopped_one_can(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(&pool, &["tasks", "other"]).await?;
    let register = || pgqrs::producer("my-service", 3000, "tasks").create(&store);
    let first = register().await?;
    let refused = register().await.unwrap_err();
    let Error::WorkerExists {
        kind,
        hostname,
        port,
        queue,
        last_heartbeat,
        crashed_after,
    } = &refused
    else {
        panic!("{refused:?}")
    };
    assert_eq!(
        (*kind, hostname.as_str(), *port),
        (WorkerKind::Producer, "my-service", 3000)
    );
    assert_eq!(queue.as_str(), "tasks");
    assert_eq!(*crashed_after, Duration::from_secs(60));
    assert!(last_heartbeat < crashed_after, "{refused:?}");
    assert!(refused.is_retryable(), "the other may end");
    first.suspend().await?;
    assert!(matches!(register().await, Err(Error::WorkerExists { .. })));

    // Another queue, another kind, another port, another host are others.
    pgqrs::producer("my-service", 3000, "other")
        .create(&store)
        .await?;
    pgqrs::consumer("tasks")
        .identity("my-service", 3000)
        .create(&store)
        .await?;
    pgqrs::producer("my-service", 3001, "tasks")
        .create(&store)
        .await?;
    pgqrs::producer("my-other-service", 3000, "tasks")
        .create(&store)
        .await?;
    // And port 0 has no identity.
    pgqrs::producer("my-service", 0, "tasks")
        .create(&store)
        .await?;
    pgqrs::producer("my-service", 0, "tasks")
        .create(&store)
        .await?;

    first.shutdown().await?;
    let second = register().await?;
    assert_ne!(first.id(), second.id());
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn of_eight_registrations_at_once_exactly_one_wins(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let stores = [connect(&pool).await?, connect(&pool).await?, store];
    let race = async |expected_workers: usize| {
        let racers: Vec<_> = (0..8)
            .map(|racer| {
                let store = stores[racer % stores.len()].clone();
                tokio::spawn(async move {
                    pgqrs::producer("my-service", 3000, "tasks")
                        .create(&store)
                        .await
                })
            })
            .collect();
        let mut winner = None;
        for racer in racers {
            match racer.await? {
                Ok(producer) => assert!(winner.replace(producer).is_none(), "two winners"),
                Err(Error::WorkerExists { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        assert_eq!(all(&stores[0]).await?.len(), expected_workers);
        Ok::<_, Box<dyn std::error::Error>>(winner.expect("one winner"))
    };
    let first = race(1).await?;
    // And of eight that want to take over a crashed one's identity.
    silence(&pool, first.id(), 61.0).await?;
    let second = race(1).await?;
    assert_ne!(first.id(), second.id());
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_crashed_ones_identity_is_taken_over_and_its_handle_acts_on_nothing(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let register = || pgqrs::producer("my-service", 3000, "tasks").create(&store);
    let old = register().await?;
    silence(&pool, old.id(), 59.0).await?;
    assert!(matches!(register().await, Err(Error::WorkerExists { .. })));
    silence(&pool, old.id(), 2.0).await?;
    assert!(info(&store, old.id()).await?.stale);
    let new = register().await?;
    assert_ne!(old.id(), new.id());

    let outcomes = [
        old.heartbeat().await,
        old.suspend().await,
        old.resume().await,
        old.enqueue().message(&1).execute(&store).await.map(drop),
    ];
    for outcome in outcomes {
        assert!(
            matches!(outcome, Err(Error::WorkerStopped { worker }) if worker == old.id()),
            "{outcome:?}"
        );
    }
    assert_eq!(old.status().await?, WorkerStatus::Stopped);
    assert!(!old.is_healthy(Duration::from_secs(10)).await?);
    old.shutdown().await?;
    assert_eq!(new.status().await?, WorkerStatus::Ready);
    new.enqueue().message(&1).execute(&store).await?;
    assert_eq!(count(&pool).await?, 1);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn bad_input_is_typed_and_leaves_no_row(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    for hostname in ["", &"h".repeat(256), "host\nname", "host\0name"] {
        let refused = pgqrs::producer(hostname, 3000, "tasks")
            .create(&store)
            .await;
        assert!(
            matches!(refused, Err(Error::InvalidHostname { .. })),
            "{hostname:?}: {refused:?}"
        );
    }
    let refused = pgqrs::producer("my-service", 3000, "missing")
        .create(&store)
        .await;
    assert!(
        matches!(refused, Err(Error::QueueNotFound { .. })),
        "{refused:?}"
    );
    let refused = pgqrs::consumer("")
        .identity("my-service", 3000)
        .create(&store)
        .await;
    assert!(
        matches!(refused, Err(Error::InvalidQueueName(_))),
        "{refused:?}"
    );
    assert!(all(&store).await?.is_empty());

    pgqrs::producer("h".repeat(255), u16::MAX, "tasks")
        .create(&store)
        .await?;
    Ok(())
}

#[sqlx::test(migrations = false)]
async fn without_the_schema_registration_says_how_to_install_it(pool: PgPool) -> TestResult {
    let store = Store::from(pool);
    let refused = pgqrs::producer("my-service", 3000, "tasks")
        .create(&store)
        .await;
    assert!(matches!(refused, Err(Error::NotInstalled)), "{refused:?}");
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_consumer_without_an_identity_has_the_machines_host_name_beside_any_number_of_others(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let mut workers = Vec::new();
    for _ in 0..3 {
        workers.push(pgqrs::consumer("tasks").create(&store).await?);
    }
    let uname = std::process::Command::new("uname").arg("-n").output()?;
    let hostname = uname.stdout;
    let hostname = String::from_utf8(hostname)?;
    for worker in &workers {
        assert_eq!((worker.hostname(), worker.port()), (hostname.trim(), 0));
    }
    assert_eq!(all(&store).await?.len(), 3);
    Ok(())
}
