//! A delivery used after it was settled
//!
//! Once it is settled, the message may be gone. Take what you need before.
//!
//! Fails with: E0382
//! rustc's own words: that a value was moved is the compiler's own check, which is what makes this a
//! promise; it names the delivery and where it was settled.

use pgqrs::{Delivery, Store};

async fn handle(delivery: Delivery<String>, store: Store) -> pgqrs::Result<()> {
    // Wrong:
    delivery.ack(&store).await?;
    println!("{}", delivery.payload());
    // Right:
    // println!("{}", delivery.payload());
    // delivery.ack(&store).await?;
    Ok(())
}

fn main() {}
