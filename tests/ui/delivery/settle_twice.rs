//! A delivery settled twice
//!
//! Settling takes the delivery away from you, so there is nothing left to settle again.
//!
//! Fails with: E0382
//! rustc's own words: that a value was moved is the compiler's own check, which is what makes this a
//! promise; it names the delivery and where it was settled.

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
