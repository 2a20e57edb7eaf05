//! A closure for another payload than the queue's
//!
//! The argument of a closure must have the queue's type. Without a type, it has that by itself.
//!
//! Fails with: E0631
//! rustc's own words: the note names both types, the expected one
//! first: the payload of the queue, then that of the closure.

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
