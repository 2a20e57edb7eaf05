//! A handler that takes no delivery
//!
//! A handler is called with the delivery, of which it needs to know at least that it is there.
//!
//! Fails with: E0593
//! rustc's own words: arguments of functions are counted by the compiler alone; it names the mend.

use pgqrs::{Consumer, Outcome};

async fn work(consumer: Consumer) -> pgqrs::Result<()> {
    // Wrong:
    consumer.run(|| async { Outcome::Done }).await?;
    // Right:
    // consumer.run(|_delivery| async { Outcome::Done }).await?;
    Ok(())
}

fn main() {}
