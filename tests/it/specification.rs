//! The specification's lines, as they are written there: what a reader copies must work.

use std::error::Error;

use serde_json::json;
use sqlx::PgPool;

use crate::support::{self, TestResult, stored, url, with_queues};

#[rustfmt::skip]
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn quick_start(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    // There: `pgqrs::connect("postgresql://localhost/mydb")`.
    let store = pgqrs::connect(&url(&pool)).await?;

    // Builder API for simple one-off messages
    let ids = pgqrs::enqueue()
        .message(&json!({"task": "send_email", "to": "user@example.com"}))
        .to("tasks")
        .execute(&store)
        .await?;

    println!("Enqueued message ID: {}", ids[0]);

    let stored = stored(&pool).await?;
    assert_eq!(stored.len(), 1);
    assert_eq!(stored[0].id, ids[0].get());
    assert_eq!(stored[0].queue, "tasks");
    let payload: serde_json::Value = serde_json::from_str(&stored[0].payload)?;
    assert_eq!(payload, json!({"task": "send_email", "to": "user@example.com"}));
    Ok(())
}

#[rustfmt::skip]
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn batch_messages(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["emails"]).await?;

    let messages = vec![
        json!({"user_id": 1}),
        json!({"user_id": 2}),
    ];

    let ids = pgqrs::enqueue()
        .messages(&messages)
        .to("emails")
        .execute(&store)
        .await?;

    let stored = stored(&pool).await?;
    assert_eq!(ids.iter().map(|id| id.get()).collect::<Vec<_>>(), [stored[0].id, stored[1].id]);
    assert_eq!([&*stored[0].payload, &*stored[1].payload], [r#"{"user_id":1}"#, r#"{"user_id":2}"#]);
    Ok(())
}

#[rustfmt::skip]
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn delayed_messages(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;

    let ids = pgqrs::enqueue()
        .message(&json!({"reminder": "Follow up"}))
        .to("tasks")
        .delay(300)  // 5 minutes
        .execute(&store)
        .await?;

    assert!(pgqrs::dequeue().from("tasks").execute(&store).await?.is_empty());
    support::age(&pool, ids[0], std::time::Duration::from_secs(299)).await?;
    assert!(pgqrs::dequeue().from("tasks").execute(&store).await?.is_empty());
    support::age(&pool, ids[0], std::time::Duration::from_secs(1)).await?;
    let store = support::newcomer(&pool);
    assert_eq!(pgqrs::dequeue().from("tasks").execute(&store).await?.len(), 1);
    Ok(())
}

/// The trait is not imported here, as it isn't in the specification.
#[rustfmt::skip]
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn managed_producers_and_their_life_cycle(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;

    // Create a managed producer worker
    let producer = pgqrs::producer("my-service", 3000, "tasks")
        .create(&store)
        .await?;

    // Enqueue using the managed worker
    let ids = pgqrs::enqueue()
        .message(&json!({"task": "process_order"}))
        .worker(&*producer)
        .execute(&store)
        .await?;

    // Lifecycle operations
    producer.heartbeat().await?;
    producer.suspend().await?;
    producer.resume().await?;
    producer.shutdown().await?;

    assert_eq!(stored(&pool).await?[0].id, ids[0].get());
    assert_eq!(producer.status().await?, pgqrs::WorkerStatus::Stopped);
    Ok(())
}

/// What the specification's functions return if it leaves that out.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn question_marks_work_in_a_function_that_returns_any_error(
    pool: PgPool,
) -> Result<(), Box<dyn Error>> {
    let store = with_queues(&pool, &["tasks"]).await?;
    pgqrs::enqueue()
        .message(&json!({}))
        .to("tasks")
        .execute(&store)
        .await?;
    for delivery in pgqrs::dequeue().from("tasks").execute(&store).await? {
        delivery.payload()?;
        delivery.ack(&store).await?;
    }
    Ok(())
}
