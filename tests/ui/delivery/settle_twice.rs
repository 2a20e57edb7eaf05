//! A delivery settled twice
//!
//! Settling consumes the delivery, so it can't be settled again.
//!
//! Fails with: E0382
//! rustc's own words: settling consumes the delivery, and the compiler
//! rules out a second use of it; the message shows where it was settled.

use pgqrs::{Delivery, Store};

async fn handle(delivery: Delivery<String>, store: Store, worked: bool) -> pgqrs::Result<()> {
    // Wrong:
    if worked {
        delivery.ack(&store).await?;
    }
    delivery.nack(&store).await?;
    // Right:
    // if worked {
    //     delivery.ack(&store).await?;
    // } else {
    //     delivery.nack(&store).await?;
    // }
    Ok(())
}

fn main() {}
