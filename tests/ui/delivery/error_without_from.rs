//! `?` in a function whose error isn't made from pgqrs's
//!
//! `?` converts the error. An error of one's own needs a variant for it, with `#[from]` as thiserror has it.
//!
//! Fails with: E0277
//! rustc's own words: they name both types; the one that can't be converted is `pgqrs::Error`.

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
