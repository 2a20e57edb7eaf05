//! A boxed error that can't move between threads
//!
//! Handlers run on tasks, which move between threads, and so do the errors that they return.
//!
//! Fails with: E0277

use pgqrs::{Consumer, Delivery};

// Wrong:
type Failed = Box<dyn std::error::Error>;
// Right:
// type Failed = Box<dyn std::error::Error + Send + Sync>;

async fn handle(_: Delivery<serde_json::Value>) -> Result<(), Failed> {
    Err("no address".into())
}

async fn work(consumer: Consumer) -> pgqrs::Result<()> {
    consumer.run(handle).await?;
    Ok(())
}

fn main() {}
