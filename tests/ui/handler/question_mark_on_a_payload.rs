//! `?` on a payload in a handler
//!
//! In a handler, the payload has been decoded already: a message that doesn't decode never reaches it.
//!
//! Fails with: E0277
//! rustc's own words: the type in the message is a reference to the payload, and not a `Result`.

use pgqrs::{Consumer, Delivery};

async fn work(consumer: Consumer) -> pgqrs::Result<()> {
    consumer
        .run(|delivery: Delivery<serde_json::Value>| async move {
            // Wrong:
            println!("{}", delivery.payload()?);
            // Right:
            // println!("{}", delivery.payload());
            pgqrs::Ok(())
        })
        .await?;
    Ok(())
}

fn main() {}
