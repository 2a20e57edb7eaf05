//! A closure around a handler that doesn't wait for it
//!
//! `next.run(..)` is a future: without `.await`, the handler isn't called.
//!
//! Fails with: E0277

use pgqrs::{Consumer, Delivery, Outcome};
use serde_json::Value;

async fn work(consumer: Consumer) -> pgqrs::Result<()> {
    consumer
        .run(async |_: Delivery<Value>| Outcome::Done)
        .around(|delivery, next| async move {
            // Wrong:
            next.run(delivery)
            // Right:
            // next.run(delivery).await
        })
        .await?;
    Ok(())
}

fn main() {}
