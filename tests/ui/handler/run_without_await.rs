//! A run that is neither awaited nor spawned
//!
//! A run is a future: nothing happens until it is awaited, or a task of its own.
//!
//! Fails with: unused_must_use
//! rustc's own words: the first line of this warning is the compiler's; the note below it is ours.

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
