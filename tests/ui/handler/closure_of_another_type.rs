//! A closure for another payload than the queue's
//!
//! A closure says what it takes, too. Without the type, it takes what the queue carries.
//!
//! Fails with: E0631
//! rustc's own words: arguments of functions are compared by the compiler alone; its note names both
//! types, the expected one first.

use pgqrs::{Consumer, Delivery, Outcome};

#[derive(serde::Serialize, serde::Deserialize)]
struct SendEmail {
    to: String,
}


async fn work(consumer: Consumer<SendEmail>) -> pgqrs::Result<()> {
    consumer
        // Wrong:
        .run(|delivery: Delivery<serde_json::Value>| async move {
        // Right:
        // .run(|delivery: Delivery<SendEmail>| async move {
            println!("{}", delivery.raw_payload());
            Outcome::Done
        })
        .await?;
    Ok(())
}

fn main() {}
