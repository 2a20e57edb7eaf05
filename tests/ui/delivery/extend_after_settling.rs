//! A lease extended after its message was settled
//!
//! A settled message has no lease any more. Extend it while you work.
//!
//! Fails with: E0382
//! rustc's own words: that a value was moved is the compiler's own check, which is what makes this a
//! promise; it names the delivery and where it was settled.

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
