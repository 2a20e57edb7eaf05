//! A handler whose error has no type
//!
//! `Ok(())` says nothing of the error's type. Name it once.
//!
//! Fails with: E0282
//! rustc's own words: the compiler can't guess a type and asks for it, in the very words to write.

use pgqrs::{Consumer, Delivery};

async fn work(consumer: Consumer) -> pgqrs::Result<()> {
    consumer
        .run(|delivery: Delivery<serde_json::Value>| async move {
            println!("{}", delivery.payload()?);
            // Wrong:
            Ok(())
            // Right:
            // Ok::<(), pgqrs::Error>(())
        })
        .await?;
    Ok(())
}

fn main() {}
