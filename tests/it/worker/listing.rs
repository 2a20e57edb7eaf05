//! Lists of workers, and their removal.

use super::*;

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn workers_are_listed_by_queue_status_and_kind(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks", "emails"]).await?;
    let tasks = pgqrs::producer("a", 1, "tasks").create(&store).await?;
    let emails = pgqrs::producer("a", 1, "emails").create(&store).await?;
    let consumer = pgqrs::consumer("emails")
        .identity("a", 1)
        .create(&store)
        .await?;
    emails.suspend().await?;
    let admin = pgqrs::admin(&store);
    let ids = async |filter: WorkerFilter| -> pgqrs::Result<Vec<WorkerId>> {
        Ok(admin
            .workers(&filter)
            .await?
            .iter()
            .map(|worker| worker.id)
            .collect())
    };
    let of = |queue: &'static str| QueueName::new(queue);
    let filter = WorkerFilter::builder;
    assert_eq!(
        ids(filter().build()).await?,
        [tasks.id(), emails.id(), consumer.id()]
    );
    assert_eq!(
        ids(filter().queue(of("emails")?).build()).await?,
        [emails.id(), consumer.id()]
    );
    assert_eq!(
        ids(filter().status(WorkerStatus::Suspended).build()).await?,
        [emails.id()]
    );
    assert_eq!(
        ids(filter().kind(WorkerKind::Consumer).build()).await?,
        [consumer.id()]
    );
    let both = filter()
        .queue(of("emails")?)
        .status(WorkerStatus::Ready)
        .build();
    assert_eq!(ids(both).await?, [consumer.id()]);
    assert!(
        ids(filter().status(WorkerStatus::Stopped).build())
            .await?
            .is_empty()
    );
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn ended_workers_are_removed_by_age_whatever_they_sent(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let admin = pgqrs::admin(&store);
    let mut ids = Vec::new();
    for port in 1..=4 {
        let producer = pgqrs::producer("my-service", port, "tasks")
            .create(&store)
            .await?;
        producer.enqueue().message(&port).execute(&store).await?;
        ids.push(producer.id());
        if port <= 2 {
            producer.shutdown().await?;
        }
    }
    let hour = Duration::from_secs(3_600);
    assert_eq!(admin.remove_ended_workers(hour).await?, 0);
    // Stopped long ago; stopped just now; crashed long ago; lives.
    silence(&pool, ids[0], 3_700.0).await?;
    silence(&pool, ids[2], 3_700.0).await?;
    assert_eq!(admin.remove_ended_workers(hour).await?, 2);
    let left: Vec<_> = all(&store).await?.iter().map(|worker| worker.id).collect();
    assert_eq!(left, [ids[1], ids[3]]);
    // Their messages are still there, with their keys.
    assert_eq!(count(&pool).await?, 4);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_worker_with_messages_in_flight_can_be_removed(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let admin = pgqrs::admin(&store);
    let consumer = pgqrs::consumer("tasks")
        .identity("my-service", 3001)
        .create(&store)
        .await?;
    pgqrs::enqueue()
        .message(&1)
        .to("tasks")
        .execute(&store)
        .await?;
    let delivery = consumer
        .dequeue()
        .execute(&store)
        .await?
        .pop()
        .expect("one");
    admin.remove_worker(consumer.id()).await?;
    assert!(matches!(
        consumer.heartbeat().await,
        Err(Error::WorkerStopped { .. })
    ));
    delivery.ack(&store).await?;
    let missing = consumer.id();
    let refusals = [
        admin.remove_worker(missing).await,
        admin.suspend_worker(missing).await,
        admin.resume_worker(missing).await,
        admin.stop_worker(missing).await,
        admin.worker(missing).await.map(drop),
        admin.held_messages(missing).await.map(drop),
    ];
    for refused in refusals {
        assert!(
            matches!(refused, Err(Error::WorkerNotFound { worker }) if worker == missing),
            "{refused:?}"
        );
    }
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn with_its_queue_a_worker_goes_too(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let producer = pgqrs::producer("my-service", 3000, "tasks")
        .create(&store)
        .await?;
    let admin = pgqrs::admin(&store);
    admin.delete_queue("tasks").await?;
    store.queue("tasks").await?;
    let refused = producer.enqueue().message(&1).execute(&store).await;
    assert!(
        matches!(refused, Err(Error::WorkerStopped { .. })),
        "{refused:?}"
    );
    assert!(all(&store).await?.is_empty());
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn rows_of_workers_without_a_heartbeat_for_a_day_are_deleted_by_the_next_one(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let day = Duration::from_secs(24 * 60 * 60);
    let producer = |port| pgqrs::producer("my-service", port, "tasks");
    let stopped = producer(1).create(&store).await?;
    stopped.shutdown().await?;
    let crashed = producer(2).create(&newcomer(&pool)).await?;
    let recent = producer(3).create(&store).await?;
    // It counts as crashed after four days only.
    let rare = producer(4).heartbeat_interval(day).create(&store).await?;
    let age = async |worker: WorkerId, hours: i64| {
        sqlx::query(
            "update pgqrs.workers set heartbeat_at = now() - $2 * interval '1 hour' where id = $1",
        )
        .bind(worker.get())
        .bind(hours)
        .execute(&pool)
        .await
    };
    let ids = [stopped.id(), crashed.id(), recent.id(), rare.id()];
    // No heartbeat of theirs comes any more.
    drop((stopped, crashed));
    for (id, hours) in ids.into_iter().zip([25, 25, 23, 25]) {
        age(id, hours).await?;
    }
    let new = producer(5).create(&store).await?;
    let mut left: Vec<WorkerId> = all(&store).await?.iter().map(|worker| worker.id).collect();
    left.sort();
    assert_eq!(left, [ids[2], ids[3], new.id()]);
    Ok(())
}
