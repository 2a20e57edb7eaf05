//! A handler for another payload than the queue's
//!
//! The handler of a `Consumer<SendEmail>` gets a `Delivery<SendEmail>`.
//!
//! Fails with: E0631
//! rustc's own words: the note names both types, the expected one
//! first: the payload of the queue, then that of the handler.

use pgqrs::{Consumer, Delivery, Outcome};

#[derive(serde::Serialize, serde::Deserialize)]
struct SendEmail {
    to: String,
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Invoice {
    number: u32,
}


// Wrong:
async fn handle(delivery: Delivery<Invoice>) -> Outcome {
// Right:
// async fn handle(delivery: Delivery<SendEmail>) -> Outcome {
    println!("{}", delivery.raw_payload());
    Outcome::Done
}

async fn work(consumer: Consumer<SendEmail>) -> pgqrs::Result<()> {
    consumer.run(handle).await?;
    Ok(())
}

fn main() {}
