//! Two consumers that run until the process is asked to stop by a signal, and say so.

use std::env;

use pgqrs::{Delivery, Outcome};
use serde_json::Value;
use tokio::task::JoinSet;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let store = pgqrs::connect(&env::var("DATABASE_URL")?).await?;
    let mut runs = JoinSet::new();
    for queue in ["tasks", "others"] {
        let consumer = pgqrs::consumer(queue).create(&store).await?;
        let run = consumer.run(async |delivery: Delivery<Value>| {
            println!("done {}", delivery.raw_payload());
            Outcome::Done
        });
        runs.spawn(run.with_graceful_shutdown(pgqrs::shutdown_signal()));
    }
    while let Some(ended) = runs.join_next().await {
        println!("stopped {}", ended??.done);
    }
    Ok(())
}
