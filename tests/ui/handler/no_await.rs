//! A consumer that was never awaited
//!
//! `run` returns a future: it begins when it is awaited. The compiler warns of one that is dropped; here,
//! warnings are errors.
//!
//! Fails with: unused_must_use
//! rustc's own words: the first line of this warning is the compiler's; the note below it is ours. Its
//! advice to write `let _ =` only silences it.

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
