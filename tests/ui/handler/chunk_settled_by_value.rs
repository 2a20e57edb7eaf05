//! A message of a chunk that is settled by its delivery
//!
//! The chunk owns its deliveries. It settles one by its place, without a statement of its own.
//!
//! Fails with: E0508
//! rustc's own words: `ack` takes the delivery by value, which can't be moved out of the chunk.

use pgqrs::{Chunk, Store};
use serde_json::Value;

async fn handle(store: Store, chunk: Chunk<Value>) -> pgqrs::Result<()> {
    // Wrong:
    chunk[0].ack(&store).await?;
    // Right:
    // chunk.ack(0);
    drop((store, chunk));
    Ok(())
}

fn main() {}
