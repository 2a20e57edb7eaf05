//! Shared state that can't be cloned
//!
//! Each call of the handler gets a clone of the state. An `Arc` of anything can be cloned.
//!
//! Fails with: E0277
//! rustc's own words: `Clone` is a trait of the standard library; the message names the type that lacks it.

use pgqrs::{Consumer, Delivery, Outcome};

struct App;

async fn work(consumer: Consumer) -> pgqrs::Result<()> {
    consumer
        // Wrong:
        .run_with(App, |_, _: Delivery<serde_json::Value>| async { Outcome::Done })
        // Right:
        // .run_with(std::sync::Arc::new(App), |_, _: Delivery<serde_json::Value>| async { Outcome::Done })
        .await?;
    Ok(())
}

fn main() {}
