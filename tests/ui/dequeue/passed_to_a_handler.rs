//! A dequeued delivery, passed to a handler
//!
//! A handler gets a delivery whose payload has been decoded. `decoded()` decodes it; its error holds the delivery.
//!
//! Fails with: E0308
//! rustc's own words: the message names the state, `Unchecked`: the payload hasn't been decoded yet.

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
