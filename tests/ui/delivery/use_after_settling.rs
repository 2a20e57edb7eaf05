//! A delivery used after it was settled
//!
//! After it was settled, the message may be deleted. Read what you need before.
//!
//! Fails with: E0382
//! rustc's own words: settling consumes the delivery, and the compiler
//! rules out a second use of it; the message shows where it was settled.

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
