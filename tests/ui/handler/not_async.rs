//! A handler that isn't `async`
//!
//! Handlers run at once, on tasks of their own, so they are futures. A closure becomes one by `async
//! move`, a function by `async fn`.
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
