//! A consumer that takes chunks and never ends with one, to be killed.

use std::{env, time::Duration};

use pgqrs::{Chunk, Outcome};
use serde_json::Value;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let store = pgqrs::connect(&env::var("DATABASE_URL")?).await?;
    let consumer = pgqrs::consumer("tasks").create(&store).await?;
    let run = consumer.run_chunks(
        10,
        Duration::from_millis(20),
        |chunk: Chunk<Value>| async move {
            println!("holds {}", chunk.len());
            std::future::pending::<Outcome>().await
        },
    );
    run.concurrency(2).lease(Duration::from_secs(1)).await?;
    Ok(())
}
