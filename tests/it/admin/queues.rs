//! Queues: created, deleted, configured and counted.

use super::*;

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn creating_a_queue_twice_is_refused_and_the_store_returns_it(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &[]).await?;
    let admin = pgqrs::admin(&store);
    let created = admin.create_queue("tasks").await?;
    assert_eq!(created.name.as_str(), "tasks");
    assert_eq!(created.max_attempts, 20);
    let refused = admin.create_queue("tasks").await;
    assert!(matches!(&refused, Err(Error::QueueExists { queue }) if queue.as_str() == "tasks"));
    assert_eq!(store.queue("tasks").await?.name().as_str(), "tasks");
    assert_eq!(admin.queue("tasks").await?, created);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn queues_are_listed_by_name(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["b", "a", "C"]).await?;
    let queues = pgqrs::admin(&store).queues().await?;
    assert_eq!(
        queues
            .iter()
            .map(|queue| queue.name.as_str())
            .collect::<Vec<_>>(),
        ["C", "a", "b"]
    );
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn eight_calls_at_once_for_a_queue_all_return_it(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &[]).await?;
    let wanting = (0..8).map(|_| {
        let store = store.clone();
        tokio::spawn(async move { store.queue("tasks").await })
    });
    for wanting in wanting.collect::<Vec<_>>() {
        assert_eq!(wanting.await??.name().as_str(), "tasks");
    }
    assert_eq!(pgqrs::admin(&store).queues().await?.len(), 1);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn calls_on_an_unknown_queue_name_it(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &[]).await?;
    let admin = pgqrs::admin(&store);
    let missing = QueueName::new("missing")?;
    let (page, id) = (Page::default(), MessageId::from(1));
    let refusals = [
        admin.queue("missing").await.unwrap_err(),
        admin.delete_queue("missing").await.unwrap_err(),
        admin.purge_queue("missing").await.unwrap_err(),
        admin.queue_stats("missing").await.unwrap_err(),
        admin.exact_queue_stats("missing").await.unwrap_err(),
        admin
            .configure_queue("missing", QueueOptions::default())
            .await
            .unwrap_err(),
        admin.dead_letter_count("missing").await.unwrap_err(),
        admin
            .requeue("missing", MessageId::from(1))
            .await
            .unwrap_err(),
        admin
            .requeue_all("missing", Duration::ZERO)
            .await
            .unwrap_err(),
        admin
            .purge_dead_letters("missing", Duration::ZERO)
            .await
            .unwrap_err(),
        admin
            .purge_archive("missing", Duration::ZERO)
            .await
            .unwrap_err(),
        admin.messages("missing", page).await.unwrap_err(),
        admin.dead_letters("missing", page).await.unwrap_err(),
        admin.archived("missing", page).await.unwrap_err(),
        admin.cancel("missing", id).await.unwrap_err(),
        admin.pause_queue("missing").await.unwrap_err(),
        admin.resume_queue("missing").await.unwrap_err(),
        admin
            .pause_until("missing", chrono::Utc::now())
            .await
            .unwrap_err(),
        admin.close_queue("missing").await.unwrap_err(),
        admin.reopen_queue("missing").await.unwrap_err(),
        admin
            .reschedule("missing", id, chrono::Utc::now())
            .await
            .unwrap_err(),
    ];
    for refused in refusals {
        assert!(
            matches!(&refused, Error::QueueNotFound { queue } if *queue == missing),
            "{refused:?}"
        );
    }
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_queue_with_messages_is_not_deleted_and_a_purged_one_is(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks", "other"]).await?;
    let admin = pgqrs::admin(&store);
    pgqrs::enqueue()
        .messages(&[1, 2])
        .to("tasks")
        .execute(&store)
        .await?;
    pgqrs::enqueue()
        .message(&3)
        .to("tasks")
        .delay(60)
        .execute(&store)
        .await?;
    pgqrs::enqueue()
        .message(&4)
        .to("other")
        .execute(&store)
        .await?;
    let _leased = pgqrs::dequeue().from("tasks").execute(&store).await?;

    let refused = admin.delete_queue("tasks").await;
    assert!(
        matches!(refused, Err(Error::QueueNotEmpty { messages: 3, .. })),
        "{refused:?}"
    );
    assert_eq!(count(&pool).await?, 4);
    assert_eq!(admin.purge_queue("tasks").await?, 3);
    admin.delete_queue("tasks").await?;
    assert!(matches!(
        admin.queue("tasks").await,
        Err(Error::QueueNotFound { .. })
    ));
    assert_eq!(count(&pool).await?, 1);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn deleting_a_queue_loses_no_message_that_is_on_its_way(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    // An enqueue whose transaction is still open: the deletion waits for it, and then sees its message.
    let mut tx = pool.begin().await?;
    pgqrs::enqueue()
        .message(&1)
        .to("tasks")
        .execute(&mut tx)
        .await?;
    let deletion = tokio::spawn({
        let store = store.clone();
        async move { pgqrs::admin(&store).delete_queue("tasks").await }
    });
    blocked_backend(&pool, "lock table pgqrs.messages").await;
    tx.commit().await?;
    let refused = deletion.await?;
    assert!(
        matches!(refused, Err(Error::QueueNotEmpty { messages: 1, .. })),
        "{refused:?}"
    );
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn an_enqueue_that_waits_for_a_deletion_finds_no_queue(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let mut deletion = pool.begin().await?;
    sqlx::raw_sql(
        "lock table pgqrs.messages in share row exclusive mode; delete from pgqrs.queues",
    )
    .execute(&mut *deletion)
    .await?;
    let enqueue = tokio::spawn({
        let store = store.clone();
        async move {
            pgqrs::enqueue()
                .message(&1)
                .to("tasks")
                .execute(&store)
                .await
        }
    });
    blocked_backend(&pool, "insert into pgqrs.messages").await;
    deletion.commit().await?;
    let refused = enqueue.await?;
    assert!(
        matches!(refused, Err(Error::QueueNotFound { .. })),
        "{refused:?}"
    );
    assert_eq!(count(&pool).await?, 0);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_deletion_gives_up_behind_a_transaction_that_stays_open(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let mut tx = pool.begin().await?;
    pgqrs::enqueue()
        .message(&1)
        .to("tasks")
        .execute(&mut tx)
        .await?;
    let refused = pgqrs::admin(&store)
        .delete_queue("tasks")
        .await
        .unwrap_err();
    assert!(
        matches!(refused, Error::Database(_)) && refused.is_retryable(),
        "{refused:?}"
    );
    // Nobody is held up any more.
    pgqrs::enqueue()
        .message(&2)
        .to("tasks")
        .execute(&store)
        .await?;
    tx.commit().await?;
    assert_eq!(count(&pool).await?, 2);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn stats_follow_enqueue_delivery_and_ack_exactly(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let admin = pgqrs::admin(&store);
    let counts = async || {
        let stats = admin.queue_stats("tasks").await?;
        Ok::<_, pgqrs::Error>((stats.ready.value, stats.delayed.value, stats.leased.value))
    };
    assert_eq!(counts().await?, (0, 0, 0));
    assert_eq!(admin.queue_stats("tasks").await?.oldest_ready, None);

    let ids = pgqrs::enqueue()
        .messages(&[1, 2, 3])
        .to("tasks")
        .execute(&store)
        .await?;
    pgqrs::enqueue()
        .messages(&[4, 5])
        .to("tasks")
        .delay(60)
        .execute(&store)
        .await?;
    assert_eq!(counts().await?, (3, 2, 0));
    age(&pool, ids[1], Duration::from_secs(600)).await?;
    let stats = admin.queue_stats("tasks").await?;
    let oldest = stats.oldest_ready.expect("three are ready");
    assert!((600..660).contains(&oldest.as_secs()), "{oldest:?}");
    assert_eq!(stats.total(), 5);

    let mut deliveries = pgqrs::dequeue()
        .from("tasks")
        .limit(2)
        .execute(&store)
        .await?;
    assert_eq!(counts().await?, (1, 2, 2));
    deliveries.pop().expect("two").ack(&store).await?;
    assert_eq!(counts().await?, (1, 2, 1));
    // The lease of the other one runs out: it is ready again.
    age(&pool, deliveries[0].id(), Duration::from_secs(60)).await?;
    assert_eq!(counts().await?, (2, 2, 0));
    Ok(())
}

/// Messages are sent, and acknowledged, by the ten: so every exact count is a multiple of ten, and lies
/// between what had surely been done before it and what may have been done by its end.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn stats_are_exact_under_load(pool: PgPool) -> TestResult {
    const PRODUCERS: u64 = 3;
    const BATCHES: u64 = 60;
    with_queues(&pool, &["tasks"]).await?;
    let store = connect(&pool).await?;
    let watcher = connect(&pool).await?;
    let [sending, sent, acking, acked]: [Arc<AtomicU64>; 4] = Default::default();
    let mut working = Vec::new();
    for _ in 0..PRODUCERS {
        let (store, sending, sent) = (store.clone(), Arc::clone(&sending), Arc::clone(&sent));
        working.push(tokio::spawn(async move {
            for _ in 0..BATCHES {
                sending.fetch_add(10, Ordering::SeqCst);
                send(&store, &[0; 10]).await?;
                sent.fetch_add(10, Ordering::SeqCst);
            }
            Ok::<_, Error>(())
        }));
    }
    for _ in 0..3 {
        let (store, acking, acked) = (store.clone(), Arc::clone(&acking), Arc::clone(&acked));
        working.push(tokio::spawn(async move {
            let mut held = Vec::new();
            for _ in 0..BATCHES {
                while held.len() < 10 {
                    held.extend(claim(&store, 10).await?);
                }
                let ten: Vec<_> = held.drain(..10).collect();
                acking.fetch_add(10, Ordering::SeqCst);
                assert!(pgqrs::ack_all(ten, &store).await?.is_empty());
                acked.fetch_add(10, Ordering::SeqCst);
            }
            // What is left over goes to the others.
            for delivery in held {
                delivery.retry_in(Duration::ZERO, &store).await?;
            }
            Ok(())
        }));
    }
    let admin = pgqrs::admin(&watcher);
    let mut looked = 0;
    while !working.iter().all(|working| working.is_finished()) {
        let (surely_sent, surely_acked) =
            (sent.load(Ordering::SeqCst), acked.load(Ordering::SeqCst));
        let stats = admin.exact_queue_stats("tasks").await?;
        let total = stats.total().value;
        let (may_be_sent, may_be_acked) = (
            sending.load(Ordering::SeqCst),
            acking.load(Ordering::SeqCst),
        );
        assert_eq!(total % 10, 0, "{stats:?}");
        assert!(total <= may_be_sent - surely_acked, "{stats:?}");
        assert!(total + may_be_acked >= surely_sent, "{stats:?}");
        assert_eq!(stats.delayed, 0);
        looked += 1;
    }
    for working in working {
        working.await??;
    }
    assert!(looked > 10, "it only looked {looked} times");
    assert_eq!(admin.queue_stats("tasks").await?.total(), 0);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn reading_writes_nothing(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let consumer = pgqrs::consumer("tasks").identity("my-service", 3001);
    let consumer = consumer.create(&store).await?;
    dead(&store, &[1, 2]).await?;
    archived(&store, &[3]).await?;
    send(&store, &[4, 5]).await?;
    let _held = consumer.dequeue().execute(&store).await?;
    let id = consumer.id();
    drop(consumer);
    let url = url(&pool);
    pool.close().await;
    let tables = ["queues", "messages", "workers", "dead_letters", "archive"];
    let mut before = Vec::new();
    for table in tables {
        before.push(changes(&url, table).await?);
    }
    let store = pgqrs::connect(&url).await?;
    let admin = pgqrs::admin(&store);
    let page = Page::builder().payload(true).build();
    for _ in 0..10 {
        admin.queue("tasks").await?;
        admin.queues().await?;
        assert_eq!(admin.queue_stats("tasks").await?.total(), 2);
        assert_eq!(admin.exact_queue_stats("tasks").await?.total(), 2);
        assert_eq!(admin.all_queue_stats().await?.len(), 1);
        assert_eq!(admin.health().await?.queues.len(), 1);
        assert_eq!(admin.messages("tasks", page).await?.len(), 2);
        assert_eq!(admin.dead_letters("tasks", page).await?.len(), 2);
        assert_eq!(admin.dead_letter_count("tasks").await?, 2);
        assert_eq!(admin.archived("tasks", page).await?.len(), 1);
        assert_eq!(admin.workers(&WorkerFilter::default()).await?.len(), 1);
        assert_eq!(admin.worker(id).await?.id, id);
        assert_eq!(admin.held_messages(id).await?.len(), 1);
        admin.verify().await?;
        store.queue("tasks").await?;
    }
    store.pool().close().await;
    let mut after = Vec::new();
    for table in tables {
        after.push(changes(&url, table).await?);
    }
    assert_eq!(before, after);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_queues_options_can_be_set_and_what_is_not_named_stays(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks", "other"]).await?;
    let admin = pgqrs::admin(&store);
    let thrice = QueueOptions::builder().max_attempts(3).build();
    assert_eq!(
        admin.configure_queue("tasks", thrice).await?.max_attempts,
        3
    );
    let unchanged = QueueOptions::default();
    assert_eq!(
        admin
            .configure_queue("tasks", unchanged)
            .await?
            .max_attempts,
        3
    );
    assert_eq!(admin.queue("tasks").await?.max_attempts, 3);
    assert_eq!(admin.queue("other").await?.max_attempts, 20);
    for attempts in [0, u32::MAX] {
        let options = QueueOptions::builder().max_attempts(attempts).build();
        let refused = admin.configure_queue("tasks", options).await.unwrap_err();
        assert!(
            matches!(refused, Error::InvalidSetting { .. }),
            "{refused:?}"
        );
        assert_eq!(
            refused.to_string(),
            format!("`max_attempts` is {attempts}, and must be from 1 to 2147483647")
        );
    }
    assert_eq!(admin.queue("tasks").await?.max_attempts, 3);
    Ok(())
}

/// Also for messages that were there before, and have had more attempts than that.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn fewer_attempts_count_at_once(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let id = send(&store, &[1]).await?[0];
    for _ in 0..3 {
        one(&store).await?.retry_in(Duration::ZERO, &store).await?;
    }
    let admin = pgqrs::admin(&store);
    let twice = QueueOptions::builder().max_attempts(2).build();
    admin.configure_queue("tasks", twice).await?;
    assert!(claim(&store, 1).await?.is_empty());
    let letters = admin.dead_letters("tasks", Page::default()).await?;
    assert_eq!((letters[0].id, letters[0].attempt), (id, 3));
    assert_eq!(places(&pool).await?, (0, 1, 0));
    Ok(())
}
