//! What was dequeued, passed to a handler
//!
//! A handler gets a delivery whose payload has been decoded. `decoded()` makes one, or hands the delivery back.
//!
//! Fails with: E0308
//! rustc's own words: an argument of one certain type is compared by the compiler alone; it names the state `Unchecked`.

use pgqrs::{Delivery, Store};

async fn handle(delivery: Delivery<serde_json::Value>) -> pgqrs::Result<()> {
    println!("{}", delivery.payload());
    Ok(())
}

async fn receive(store: Store) -> pgqrs::Result<()> {
    for delivery in pgqrs::dequeue().from("tasks").execute(&store).await? {
        // Wrong:
        handle(delivery).await?;
        // Right:
        // handle(delivery.decoded()?).await?;
    }
    Ok(())
}

fn main() {}
