//! A lease extended after its message was settled
//!
//! A settled message has no lease any more: extend the lease before you settle the message.
//!
//! Fails with: E0382
//! rustc's own words: settling consumes the delivery, and the compiler
//! rules out a second use of it; the message shows where it was settled.

use std::time::Duration;

use pgqrs::{Delivery, Store};

async fn handle(delivery: Delivery<String>, store: Store) -> pgqrs::Result<()> {
    // Wrong:
    delivery.ack(&store).await?;
    delivery.extend(Duration::from_secs(60)).await?;
    // Right:
    // delivery.extend(Duration::from_secs(60)).await?;
    // delivery.ack(&store).await?;
    Ok(())
}

fn main() {}
