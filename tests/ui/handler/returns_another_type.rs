//! A handler that returns something else
//!
//! What a handler returns decides what happens to the message: `Ok(())` acknowledges
//! it, an error is a failed attempt, and an `Outcome` names any other way to settle it.
//!
//! Fails with: E0277

use pgqrs::{Consumer, Delivery};

// Wrong:
async fn handle(delivery: Delivery<serde_json::Value>) -> bool {
    delivery.payload().is_object()
}
// Right:
// async fn handle(delivery: Delivery<serde_json::Value>) -> pgqrs::Result<()> {
//     println!("{}", delivery.payload());
//     Ok(())
// }

async fn work(consumer: Consumer) -> pgqrs::Result<()> {
    consumer.run(handle).await?;
    Ok(())
}

fn main() {}
