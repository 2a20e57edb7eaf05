//! `admin()`: queues and what they hold.

use std::time::Duration;

use pgqrs::{Error, QueueName};
use sqlx::PgPool;

use crate::support::{TestResult, age, blocked_backend, changes, count, url, with_queues};

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn the_same_queue_twice_says_that_it_exists_and_the_store_gives_it_back(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(pool, &[]).await?;
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
    let store = with_queues(pool, &["b", "a", "C"]).await?;
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
async fn eight_at_once_who_want_a_queue_all_get_it(pool: PgPool) -> TestResult {
    let store = with_queues(pool, &[]).await?;
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
    let store = with_queues(pool, &[]).await?;
    let admin = pgqrs::admin(&store);
    let missing = QueueName::new("missing")?;
    let refusals = [
        admin.queue("missing").await.unwrap_err(),
        admin.delete_queue("missing").await.unwrap_err(),
        admin.purge_queue("missing").await.unwrap_err(),
        admin.queue_stats("missing").await.unwrap_err(),
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
    let store = with_queues(pool.clone(), &["tasks", "other"]).await?;
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
    let store = with_queues(pool.clone(), &["tasks"]).await?;
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
    let store = with_queues(pool.clone(), &["tasks"]).await?;
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
    let store = with_queues(pool.clone(), &["tasks"]).await?;
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
    let store = with_queues(pool.clone(), &["tasks"]).await?;
    let admin = pgqrs::admin(&store);
    let counts = async || {
        let stats = admin.queue_stats("tasks").await?;
        Ok::<_, pgqrs::Error>((stats.ready, stats.delayed, stats.leased))
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

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn reading_writes_nothing(pool: PgPool) -> TestResult {
    let store = with_queues(pool.clone(), &["tasks"]).await?;
    pgqrs::enqueue()
        .messages(&[1, 2])
        .to("tasks")
        .execute(&store)
        .await?;
    let url = url(&pool);
    pool.close().await;
    let tables = ["queues", "messages", "workers", "dead_letters", "archive"];
    let mut before = Vec::new();
    for table in tables {
        before.push(changes(&url, table).await?);
    }
    let store = pgqrs::connect(&url).await?;
    let admin = pgqrs::admin(&store);
    admin.queue("tasks").await?;
    admin.queues().await?;
    admin.queue_stats("tasks").await?;
    admin.verify().await?;
    store.queue("tasks").await?;
    store.pool().close().await;
    let mut after = Vec::new();
    for table in tables {
        after.push(changes(&url, table).await?);
    }
    assert_eq!(before, after);
    Ok(())
}
