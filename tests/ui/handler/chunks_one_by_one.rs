//! A handler of one message for chunks
//!
//! A handler of `run_chunks` takes all messages of a chunk at once.
//!
//! Fails with: E0631
//! rustc's own words: the note names both types, the expected one first: a chunk of the queue's payloads, then what the
//! handler takes.

use std::time::Duration;

use pgqrs::{Consumer, Outcome};
use serde_json::Value;

// Wrong:
async fn handle(messages: pgqrs::Delivery<Value>) -> Outcome {
// Right:
// async fn handle(messages: pgqrs::Chunk<Value>) -> Outcome {
    println!("{messages:?}");
    Outcome::Done
}

async fn work(consumer: Consumer) -> pgqrs::Result<()> {
    consumer.run_chunks(100, Duration::from_secs(1), handle).await?;
    Ok(())
}

fn main() {}
