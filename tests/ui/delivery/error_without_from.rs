//! `?` in a function whose error type can't be made from pgqrs's
//!
//! `?` converts the error if the function's type has a `From<pgqrs::Error>`: `#[from]` of thiserror writes it.
//!
//! Fails with: E0277
//! rustc's own words: the message names both types; the one to be converted is `pgqrs::Error`.

use pgqrs::{Delivery, Store};

#[derive(Debug)]
enum AppError {
    Pgqrs(pgqrs::Error),
}

// Wrong:

// Right:
// impl From<pgqrs::Error> for AppError {
//     fn from(error: pgqrs::Error) -> Self {
//         Self::Pgqrs(error)
//     }
// }

async fn handle(delivery: Delivery<String>, store: Store) -> Result<(), AppError> {
    delivery.ack(&store).await?;
    Ok(())
}

fn main() {}
