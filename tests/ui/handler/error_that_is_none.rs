//! A handler's error that isn't an error type
//!
//! The error of a failed attempt is stored as text, with its sources: its type must implement `std::error::Error`.
//!
//! Fails with: E0277

use pgqrs::{Consumer, Delivery};

#[derive(Debug)]
struct NoAddress;

// Wrong:

// Right:
// impl std::fmt::Display for NoAddress {
//     fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
//         f.write_str("no address")
//     }
// }
//
// impl std::error::Error for NoAddress {}

async fn handle(_: Delivery<serde_json::Value>) -> Result<(), NoAddress> {
    Err(NoAddress)
}

async fn work(consumer: Consumer) -> pgqrs::Result<()> {
    consumer.run(handle).await?;
    Ok(())
}

fn main() {}
