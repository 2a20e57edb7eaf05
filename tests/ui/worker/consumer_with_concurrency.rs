//! A setting of the run, on the registration
//!
//! How a consumer runs is set on its run, after it was created.
//!
//! Fails with: E0599
//! rustc's own words: the message says that the builder has no such method.

use pgqrs::{Delivery, Outcome};

async fn work(store: pgqrs::Store) -> pgqrs::Result<()> {
    let handler = async |_: Delivery<serde_json::Value>| Outcome::Done;
    // Wrong:
    let consumer = pgqrs::consumer("tasks").concurrency(16).create(&store).await?;
    consumer.run(handler).await?;
    // Right:
    // let consumer = pgqrs::consumer("tasks").create(&store).await?;
    // consumer.run(handler).concurrency(16).await?;
    Ok(())
}

fn main() {}
