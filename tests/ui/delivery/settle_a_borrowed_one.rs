//! Deliveries settled in a loop that only borrows them
//!
//! Settling takes the delivery away from you, so the loop must own it.
//!
//! Fails with: E0507
//! rustc's own words: that a value was moved is the compiler's own check, which is what makes this a
//! promise; it names the delivery and where it was settled.

use pgqrs::{Delivery, Store};

async fn handle(deliveries: Vec<Delivery<String>>, store: Store) -> pgqrs::Result<()> {
    // Wrong:
    for delivery in &deliveries {
    // Right:
    // for delivery in deliveries {
        delivery.ack(&store).await?;
    }
    Ok(())
}

fn main() {}
