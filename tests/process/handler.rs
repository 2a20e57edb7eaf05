//! A consumer that handles one message after another, and says so before it acknowledges, to be killed.

use std::{env, time::Duration};

use pgqrs::{Delivery, Outcome};
use serde_json::Value;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let store = pgqrs::connect(&env::var("DATABASE_URL")?).await?;
    let consumer = pgqrs::consumer("tasks").create(&store).await?;
    let run = consumer.run(async |delivery: Delivery<Value>| {
        println!("done {} {}", delivery.id(), delivery.raw_payload());
        Outcome::Done
    });
    run.concurrency(4).lease(Duration::from_secs(3)).await?;
    Ok(())
}
