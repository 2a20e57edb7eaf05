//! A handler's error that is no error type
//!
//! A failed attempt keeps its error as text, with its sources, so the type implements `std::error::Error`.
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
