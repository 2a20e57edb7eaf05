//! A handler that takes no delivery
//!
//! A handler takes the delivery as its argument, even if it doesn't use it.
//!
//! Fails with: E0593
//! rustc's own words: the help says what to write.

use pgqrs::{Consumer, Outcome};

async fn work(consumer: Consumer) -> pgqrs::Result<()> {
    // Wrong:
    consumer.run(|| async { Outcome::Done }).await?;
    // Right:
    // consumer.run(|_delivery| async { Outcome::Done }).await?;
    Ok(())
}

fn main() {}
