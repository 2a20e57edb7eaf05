//! `?` on a payload in a handler
//!
//! In a handler the payload has been decoded already: what doesn't decode never reaches it.
//!
//! Fails with: E0277
//! rustc's own words: `?` is the compiler's own; it names the type, a reference to the payload.

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
