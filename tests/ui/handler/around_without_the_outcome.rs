//! A closure around a handler that drops the outcome
//!
//! What the closure returns settles the message, so it passes on what `next.run(..)` has returned.
//!
//! Fails with: E0277

use pgqrs::{Consumer, Delivery, Outcome};
use serde_json::Value;

async fn work(consumer: Consumer) -> pgqrs::Result<()> {
    consumer
        .run(async |_: Delivery<Value>| Outcome::Done)
        .around(|delivery, next| async move {
            // Wrong:
            let _ = next.run(delivery).await;
            // Right:
            // next.run(delivery).await
        })
        .await?;
    Ok(())
}

fn main() {}
