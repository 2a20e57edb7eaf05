//! `enqueue()`: what is stored, in which order, and what is not.

mod batches;
mod statement;
mod times;

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use pgqrs::{Error, Priority, Queue, Statement, Store, When};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgConnection, PgPool};

use crate::support::{
    TestResult, blocked_backend, changes, count, expire, stored, terminate, url, with_queues,
};

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn one_message_gets_one_positive_id(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let ids = pgqrs::enqueue()
        .message(&json!({"n": 1}))
        .to("tasks")
        .execute(&store)
        .await?;
    assert_eq!(ids.len(), 1);
    assert!(ids[0].get() > 0);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn calls_can_come_in_any_order(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let urgent = Priority::Urgent;
    pgqrs::enqueue()
        .message(&1)
        .to("tasks")
        .delay(60)
        .priority(urgent)
        .execute(&store)
        .await?;
    pgqrs::enqueue()
        .to("tasks")
        .message(&1)
        .priority(urgent)
        .delay(60)
        .execute(&store)
        .await?;
    pgqrs::enqueue()
        .delay(60)
        .priority(urgent)
        .to("tasks")
        .message(&1)
        .execute(&store)
        .await?;
    pgqrs::enqueue()
        .priority(urgent)
        .messages(&[1])
        .delay(60)
        .to("tasks")
        .execute(&store)
        .await?;
    for message in stored(&pool).await? {
        assert_eq!((message.payload.as_str(), message.priority), ("1", 0));
        assert_eq!(
            message.visible_at - message.enqueued_at,
            TimeDelta::seconds(60)
        );
    }
    assert_eq!(count(&pool).await?, 4);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn the_builder_can_be_kept_and_sent_to_another_task(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let enqueue = {
        let short_lived = vec![String::from("hello")];
        pgqrs::enqueue().messages(&short_lived)
    };
    let ids = tokio::spawn(async move { enqueue.to("tasks").execute(&store).await }).await??;
    assert_eq!(ids.len(), 1);
    assert_eq!(stored(&pool).await?[0].payload, r#""hello""#);
    Ok(())
}

/// Compiles: with a lifetime in `Executor`, "implementation is not general enough".
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_call_on_each_kind_of_executor_can_be_spawned(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let on_store = tokio::spawn({
        let store = store.clone();
        async move {
            pgqrs::enqueue()
                .message(&1)
                .to("tasks")
                .execute(&store)
                .await
        }
    });
    let on_pool = tokio::spawn({
        let pool = pool.clone();
        async move {
            pgqrs::enqueue()
                .message(&2)
                .to("tasks")
                .execute(&pool)
                .await
        }
    });
    let on_pooled_connection = tokio::spawn({
        let pool = pool.clone();
        async move {
            let mut connection = pool.acquire().await?;
            pgqrs::enqueue()
                .message(&3)
                .to("tasks")
                .execute(&mut connection)
                .await
        }
    });
    let on_connection = tokio::spawn({
        let pool = pool.clone();
        async move {
            let mut connection = pool.acquire().await?.detach();
            pgqrs::enqueue()
                .message(&4)
                .to("tasks")
                .execute(&mut connection)
                .await
        }
    });
    let on_transaction = tokio::spawn({
        let pool = pool.clone();
        async move {
            let mut tx = pool.begin().await?;
            let ids = pgqrs::enqueue()
                .message(&5)
                .to("tasks")
                .execute(&mut tx)
                .await?;
            tx.commit().await?;
            Ok::<_, pgqrs::Error>(ids)
        }
    });
    let mut ids = HashSet::new();
    for call in [
        on_store,
        on_pool,
        on_pooled_connection,
        on_connection,
        on_transaction,
    ] {
        ids.extend(call.await??);
    }
    assert_eq!(ids.len(), 5);
    assert_eq!(count(&pool).await?, 5);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn in_the_callers_transaction_it_is_invisible_until_commit_and_gone_after_rollback(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let mut tx = pool.begin().await?;
    pgqrs::enqueue()
        .message(&"kept")
        .to("tasks")
        .execute(&mut tx)
        .await?;
    assert_eq!(count(&pool).await?, 0);
    assert!(
        pgqrs::dequeue()
            .from("tasks")
            .execute(&store)
            .await?
            .is_empty()
    );
    tx.commit().await?;
    assert_eq!(count(&pool).await?, 1);

    let mut tx = pool.begin().await?;
    pgqrs::enqueue()
        .message(&"dropped")
        .to("tasks")
        .execute(&mut tx)
        .await?;
    let large: Vec<_> = (0..1_500).collect();
    pgqrs::enqueue()
        .messages(&large)
        .to("tasks")
        .execute(&mut tx)
        .await?;
    pgqrs::enqueue()
        .message(&"dropped too")
        .to("tasks")
        .execute(&mut *tx)
        .await?;
    tx.rollback().await?;
    assert_eq!(count(&pool).await?, 1);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn the_callers_transaction_goes_on_after_an_unknown_queue(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let mut tx = pool.begin().await?;
    let refused = pgqrs::enqueue()
        .message(&1)
        .to("taks")
        .execute(&mut tx)
        .await;
    assert!(matches!(refused, Err(Error::QueueNotFound { .. })));
    pgqrs::enqueue()
        .message(&1)
        .to("tasks")
        .execute(&mut tx)
        .await?;
    tx.commit().await?;
    assert_eq!(count(&pool).await?, 1);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn an_unknown_queue_is_named_with_the_remedy(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let refused = pgqrs::enqueue()
        .message(&1)
        .to("taks")
        .execute(&store)
        .await
        .unwrap_err();
    assert!(matches!(&refused, Error::QueueNotFound { queue } if queue.as_str() == "taks"));
    assert!(!refused.is_retryable());
    assert!(
        refused.to_string().contains(r#"create_queue("taks")"#),
        "{refused}"
    );
    let batch: Vec<_> = (0..2_000).collect();
    let refused = pgqrs::enqueue()
        .messages(&batch)
        .to("taks")
        .execute(&store)
        .await;
    assert!(matches!(refused, Err(Error::QueueNotFound { .. })));
    assert_eq!(count(&pool).await?, 0);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_name_that_cant_be_a_queues_is_refused(pool: PgPool) -> TestResult {
    let store = Store::from(pool.clone());
    for name in ["", " tasks", "tasks\n", &"q".repeat(129)] {
        let refused = pgqrs::enqueue().message(&1).to(name).execute(&store).await;
        assert!(
            matches!(refused, Err(Error::InvalidQueueName(_))),
            "{name:?}: {refused:?}"
        );
        let refused = pgqrs::dequeue().from(name).execute(&store).await;
        assert!(
            matches!(refused, Err(Error::InvalidQueueName(_))),
            "{name:?}: {refused:?}"
        );
        let refused = store.queue(name).await;
        assert!(
            matches!(refused, Err(Error::InvalidQueueName(_))),
            "{name:?}: {refused:?}"
        );
    }
    Ok(())
}

#[sqlx::test(migrations = false)]
async fn without_the_schema_it_says_how_to_install_it(pool: PgPool) -> TestResult {
    let store = Store::from(pool);
    let refused = pgqrs::enqueue()
        .message(&1)
        .to("tasks")
        .execute(&store)
        .await
        .unwrap_err();
    assert!(matches!(refused, Error::NotInstalled));
    assert!(refused.to_string().contains("install()"), "{refused}");
    let refused = pgqrs::dequeue()
        .from("tasks")
        .execute(&store)
        .await
        .unwrap_err();
    assert!(matches!(refused, Error::NotInstalled));
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_schema_that_lacks_a_column_is_called_outdated(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    sqlx::query("alter table pgqrs.messages drop column priority")
        .execute(&pool)
        .await?;
    let refused = pgqrs::enqueue()
        .message(&1)
        .to("tasks")
        .execute(&store)
        .await;
    assert!(matches!(refused, Err(Error::SchemaOutdated)), "{refused:?}");
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn names_that_sql_would_trip_over_are_just_names(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &[]).await?;
    for name in [
        "'; drop table pgqrs.messages; --",
        "Robert\"",
        "%_\\",
        "größe/キュー 📮",
        "$1",
    ] {
        store.queue(name).await?;
        pgqrs::enqueue()
            .message(&name)
            .to(name)
            .execute(&store)
            .await?;
        let deliveries = pgqrs::dequeue().from(name).execute(&store).await?;
        assert_eq!(deliveries[0].payload()?, name);
    }
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_typed_queue_returns_its_type(pool: PgPool) -> TestResult {
    #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    struct SendEmail {
        to: String,
        attachments: Vec<u8>,
    }
    const EMAILS: Queue<SendEmail> = Queue::new("emails");
    let store = Store::from(pool);
    let emails = store.queue(EMAILS).await?;
    let message = |to: &str| SendEmail {
        to: to.into(),
        attachments: vec![1, 2, 3],
    };
    pgqrs::enqueue()
        .message(&message("ada"))
        .to(EMAILS)
        .execute(&store)
        .await?;
    pgqrs::enqueue()
        .to(&EMAILS)
        .messages(&[message("bob")])
        .execute(&store)
        .await?;
    pgqrs::enqueue()
        .message(&message("eve"))
        .to(&emails)
        .execute(&store)
        .await?;
    pgqrs::enqueue()
        .message(&message("zoe"))
        .to("emails")
        .execute(&store)
        .await?;
    let deliveries = pgqrs::dequeue()
        .from(EMAILS)
        .limit(10)
        .execute(&store)
        .await?;
    for (delivery, name) in deliveries.iter().zip(["ada", "bob", "eve", "zoe"]) {
        let email: &SendEmail = delivery.payload()?;
        assert_eq!(*email, message(name));
    }
    assert_eq!(deliveries.len(), 4);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_thousand_enqueues_touch_no_table_but_messages(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let url = url(&pool);
    pool.close().await;
    let tables = ["queues", "workers", "dead_letters", "archive"];
    let mut before = Vec::new();
    for table in tables {
        before.push(changes(&url, table).await?);
    }
    let (inserted, updated, deleted) = changes(&url, "messages").await?;
    let store = pgqrs::connect(&url).await?;
    for n in 0..1_000 {
        pgqrs::enqueue()
            .message(&n)
            .to("tasks")
            .execute(&store)
            .await?;
    }
    store.pool().close().await;
    let mut after = Vec::new();
    for table in tables {
        after.push(changes(&url, table).await?);
    }
    assert_eq!(before, after);
    // And the counters do count.
    assert_eq!(
        changes(&url, "messages").await?,
        (inserted + 1_000, updated, deleted)
    );
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn on_a_pool_a_connection_killed_in_the_middle_is_retryable_and_the_next_call_works(
    pool: PgPool,
) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let theirs = PgPool::connect(&url(&pool)).await?;
    let mut blocker = pool.begin().await?;
    sqlx::query("lock table pgqrs.messages")
        .execute(&mut *blocker)
        .await?;
    let call = tokio::spawn({
        let theirs = theirs.clone();
        async move {
            pgqrs::enqueue()
                .message(&1)
                .to("tasks")
                .execute(&theirs)
                .await
        }
    });
    let backend = blocked_backend(&pool, "insert into pgqrs.messages").await;
    terminate(&pool, backend).await?;
    let failed = call.await?.unwrap_err();
    assert!(matches!(failed, Error::ConnectionLost(_)), "{failed:?}");
    assert!(failed.is_retryable());
    blocker.rollback().await?;

    let ids = pgqrs::enqueue()
        .message(&2)
        .to("tasks")
        .execute(&theirs)
        .await?;
    assert_eq!(ids.len(), 1);
    assert_eq!(count(&pool).await?, 1);
    Ok(())
}

#[test]
fn an_enqueue_shows_no_payload_in_a_log() {
    let enqueue = pgqrs::enqueue().message("secret").to("tasks");
    assert!(!format!("{enqueue:?}").contains("secret"));
}
