//! Shared state of another type
//!
//! The first argument of a handler for `run_with` is a clone of the state.
//!
//! Fails with: E0631
//! rustc's own words: the note names both types, the expected one first.

use std::sync::Arc;

use pgqrs::{Consumer, Delivery, Outcome};

struct App {
    sender: String,
}

// Wrong:
async fn handle(app: App, _: Delivery<serde_json::Value>) -> Outcome {
// Right:
// async fn handle(app: Arc<App>, _: Delivery<serde_json::Value>) -> Outcome {
    println!("{}", app.sender);
    Outcome::Done
}

async fn work(consumer: Consumer, app: Arc<App>) -> pgqrs::Result<()> {
    consumer.run_with(app, handle).await?;
    Ok(())
}

fn main() {}
