//! A managed producer: it is registered with its host and port and sends heartbeats, and an operator suspends it, as
//! from another process.
//!
//! `DATABASE_URL=postgresql://… cargo run --example managed_producer`

use std::{env, time::Duration};

use pgqrs::{ConnectOptions, Error};
use serde_json::json;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = env::var("DATABASE_URL").unwrap_or_else(|_| "postgresql://localhost/mydb".into());
    let store =
        pgqrs::connect_with(ConnectOptions::builder().url(url).install(true).build()).await?;
    store.queue("orders").await?;

    let producer = pgqrs::producer("my-service", 3000, "orders")
        .create(&store)
        .await?;
    println!(
        "registered {} {}:{}",
        producer.kind(),
        producer.hostname(),
        producer.port()
    );

    // A second one with the same identity can't be registered while this one is running.
    match pgqrs::producer("my-service", 3000, "orders")
        .create(&store)
        .await
    {
        Err(Error::WorkerExists { .. }) => println!("a second one is refused"),
        other => return Err(format!("expected a refusal, got {other:?}").into()),
    }

    let ids = producer
        .enqueue()
        .message(&json!({"task": "process_order"}))
        .execute(&store)
        .await?;
    println!("enqueued {} message", ids.len());

    // The operator, in another process, identifies it by its id.
    let operator = pgqrs::admin(&store);
    operator.suspend_worker(producer.id()).await?;
    match producer
        .enqueue()
        .message(&json!({"task": "process_order"}))
        .execute(&store)
        .await
    {
        Err(Error::WorkerSuspended { .. }) => println!("suspended: nothing is stored"),
        other => return Err(format!("expected a refusal, got {other:?}").into()),
    }
    operator.resume_worker(producer.id()).await?;
    println!(
        "healthy: {}",
        producer.is_healthy(Duration::from_secs(10)).await?
    );

    // Shutting down frees the identity at once, instead of after four missed heartbeats.
    producer.shutdown().await?;
    println!("status: {}", producer.status().await?);
    operator.purge_queue("orders").await?;
    Ok(())
}

// Output:
// registered producer my-service:3000
// a second one is refused
// enqueued 1 message
// suspended: nothing is stored
// healthy: true
// status: stopped
