//! A consumer that is never awaited
//!
//! `run` returns a future, which starts when it is awaited. The
//! compiler warns about one that is dropped; here, warnings are errors.
//!
//! Fails with: unused_must_use
//! rustc's own words: the note says what to do. What the
//! compiler suggests, `let _ =`, only hides the warning.

#![deny(unused_must_use)]

use pgqrs::{Consumer, Delivery, Outcome};

async fn log(delivery: Delivery<serde_json::Value>) -> Outcome {
    println!("{}", delivery.raw_payload());
    Outcome::Done
}

async fn work(consumer: Consumer) -> pgqrs::Result<()> {
    // Wrong:
    consumer.run(log);
    // Right:
    // consumer.run(log).await?;
    Ok(())
}

fn main() {}
