//! A consumer that runs twice
//!
//! `run` consumes the consumer. To watch it or stop it, take a handle first: `consumer.handle()`.
//!
//! Fails with: E0382
//! rustc's own words: the compiler rules out a second use of
//! the consumer; the message shows where it began to run.

use pgqrs::{Consumer, Delivery, Outcome};

async fn log(delivery: Delivery<serde_json::Value>) -> Outcome {
    println!("{}", delivery.raw_payload());
    Outcome::Done
}

async fn work(consumer: Consumer) -> pgqrs::Result<()> {
    // Wrong:
    consumer.run(log).await?;
    consumer.run(log).await?;
    // Right:
    // consumer.run(log).await?;
    Ok(())
}

fn main() {}
