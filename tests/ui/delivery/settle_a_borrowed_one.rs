//! Deliveries settled in a loop that only borrows them
//!
//! Settling consumes the delivery, so the loop must own it.
//!
//! Fails with: E0507
//! rustc's own words: settling consumes the delivery, and the compiler
//! rules out a second use of it; the message shows where it was settled.

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
