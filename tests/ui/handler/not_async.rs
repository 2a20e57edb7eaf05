//! A handler that isn't `async`
//!
//! Handlers run concurrently, on tasks, so a handler returns a
//! future: write a closure with `async move`, or an `async fn`.
//!
//! Fails with: E0277

use pgqrs::{Consumer, Delivery, Outcome};

// Wrong:
fn handle(delivery: Delivery<serde_json::Value>) -> Outcome {
// Right:
// async fn handle(delivery: Delivery<serde_json::Value>) -> Outcome {
    println!("{}", delivery.raw_payload());
    Outcome::Done
}

async fn work(consumer: Consumer) -> pgqrs::Result<()> {
    consumer.run(handle).await?;
    Ok(())
}

fn main() {}
