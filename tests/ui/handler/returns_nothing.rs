//! A handler that returns nothing
//!
//! A handler must return whether it succeeded: a failure that was overlooked would lose the message.
//!
//! Fails with: E0277

use pgqrs::{Consumer, Delivery};

async fn work(consumer: Consumer) -> pgqrs::Result<()> {
    consumer
        .run(|delivery: Delivery<serde_json::Value>| async move {
            // Wrong:
            println!("{}", delivery.raw_payload());
            // Right:
            // println!("{}", delivery.raw_payload());
            // Ok::<(), pgqrs::Error>(())
        })
        .await?;
    Ok(())
}

fn main() {}
