//! A consumer that runs twice
//!
//! `run` takes the consumer away from you. A handle of it stays behind, to watch and stop it.
//!
//! Fails with: E0382
//! rustc's own words: that a value was moved is the compiler's own check; it names the consumer and
//! where it began to run.

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
