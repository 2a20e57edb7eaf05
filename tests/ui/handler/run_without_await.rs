//! A run that is neither awaited nor spawned
//!
//! A run is a future: nothing happens until it is awaited, or spawned as a task.
//!
//! Fails with: unused_must_use
//! rustc's own words: the note says what to do.

#![deny(unused_must_use)]

use pgqrs::{Consumer, Delivery, Outcome};

async fn work(consumer: Consumer) -> pgqrs::Result<()> {
    // Wrong:
    consumer.run(|_: Delivery<serde_json::Value>| async { Outcome::Done });
    // Right:
    // tokio::spawn(consumer.run(|_: Delivery<serde_json::Value>| async { Outcome::Done }));
    Ok(())
}

fn main() {}
