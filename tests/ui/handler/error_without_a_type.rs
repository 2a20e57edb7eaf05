//! A handler whose error has no type
//!
//! `Ok(())` doesn't say which type the error has. `pgqrs::Ok(())` does; or end the closure with an `Outcome`.
//!
//! Fails with: E0282
//! rustc's own words: the compiler can't infer the type, and asks for it.

use pgqrs::{Consumer, Delivery};

async fn work(consumer: Consumer) -> pgqrs::Result<()> {
    consumer
        .run(|delivery: Delivery<serde_json::Value>| async move {
            delivery.extend(std::time::Duration::from_secs(300)).await?;
            // Wrong:
            Ok(())
            // Right:
            // pgqrs::Ok(())
        })
        .await?;
    Ok(())
}

fn main() {}
