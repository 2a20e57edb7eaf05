//! A closure around a handler that calls it twice
//!
//! A delivery is handled once; to try it again, return `Outcome::Retry`.
//!
//! Fails with: E0382
//! rustc's own words: both the delivery and `next` are moved by the first call.

use pgqrs::{Consumer, Delivery, Outcome};
use serde_json::Value;

async fn work(consumer: Consumer) -> pgqrs::Result<()> {
    consumer
        .run(async |_: Delivery<Value>| Outcome::Done)
        .around(|delivery, next| async move {
            // Wrong:
            match next.run(delivery).await {
                Err(_) => next.run(delivery).await,
                outcome => outcome,
            }
            // Right:
            // match next.run(delivery).await {
            //     Err(error) => Ok(Outcome::Retry(error.to_string())),
            //     outcome => outcome,
            // }
        })
        .await?;
    Ok(())
}

fn main() {}
