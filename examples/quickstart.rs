//! The main use cases: enqueue, delay, a batch, your own transaction, and dequeue.
//!
//! `cargo xtask quickstart` runs it against a PostgreSQL that it starts for this. To run it on your own:
//! `DATABASE_URL=postgresql://… cargo run --example quickstart`.

use std::{env, time::Duration};

use chrono::{TimeDelta, Utc};
use pgqrs::{ConnectOptions, Priority};
use serde_json::json;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = env::var("DATABASE_URL").unwrap_or_else(|_| "postgresql://localhost/mydb".into());
    let store =
        pgqrs::connect_with(ConnectOptions::builder().url(url).install(true).build()).await?;
    let tasks = store.queue("tasks").await?;
    println!("connected, installed, and queue `{tasks}` is there");

    // One message.
    let ids = pgqrs::enqueue()
        .message(&json!({"task": "send_email", "to": "user@example.com"}))
        .to("tasks")
        .execute(&store)
        .await?;
    println!("enqueued message {}", ids[0]);

    // A batch: all or nothing, in one statement, with the ids in the order of the messages.
    let messages = vec![json!({"user_id": 1}), json!({"user_id": 2})];
    let ids = pgqrs::enqueue()
        .messages(&messages)
        .to("tasks")
        .execute(&store)
        .await?;
    println!("enqueued a batch: {} and {}", ids[0], ids[1]);

    // Delayed or scheduled: not delivered before this time.
    let ids = pgqrs::enqueue()
        .message(&json!({"reminder": "Follow up"}))
        .to("tasks")
        .delay(300)
        .execute(&store)
        .await?;
    println!("enqueued message {} for in five minutes", ids[0]);
    let tomorrow = Utc::now() + TimeDelta::days(1);
    let ids = pgqrs::enqueue()
        .message(&json!({"report": "daily"}))
        .to("tasks")
        .at(tomorrow)
        .execute(&store)
        .await?;
    println!("enqueued message {} for tomorrow", ids[0]);

    // Urgent: delivered before the others.
    let ids = pgqrs::enqueue()
        .message(&json!({"task": "page_the_operator"}))
        .to("tasks")
        .priority(Priority::Urgent)
        .execute(&store)
        .await?;
    println!("enqueued message {}, which is urgent", ids[0]);

    // In your own transaction: this one is rolled back, so it is not stored.
    let mut transaction = store.pool().begin().await?;
    let ids = pgqrs::enqueue()
        .message(&"never seen")
        .to("tasks")
        .execute(&mut transaction)
        .await?;
    transaction.rollback().await?;
    println!(
        "enqueued message {} in a transaction, and rolled it back",
        ids[0]
    );

    // Dequeue and acknowledge.
    loop {
        let deliveries = pgqrs::dequeue()
            .from("tasks")
            .limit(10)
            .lease(Duration::from_secs(30))
            .execute(&store)
            .await?;
        if deliveries.is_empty() {
            break;
        }
        for delivery in deliveries {
            println!(
                "consumed message {}: {}",
                delivery.id(),
                delivery.payload()?
            );
            delivery.ack(&store).await?;
        }
    }
    let stats = pgqrs::admin(&store).queue_stats("tasks").await?;
    println!(
        "left in the queue: {} ready, {} for later",
        stats.ready, stats.delayed
    );
    Ok(())
}
