//! `delivery.ack(&tx)` without the `mut`
//!
//! A delivery is settled on a store or a pool, or on `&mut` of a connection or a transaction.
//!
//! Fails with: E0277

use pgqrs::Delivery;
use sqlx::{Postgres, Transaction};

async fn handle(
    delivery: Delivery<String>,
    mut tx: Transaction<'_, Postgres>,
) -> Result<(), Box<dyn std::error::Error>> {
    // Wrong:
    delivery.ack(&tx).await?;
    // Right:
    // delivery.ack(&mut tx).await?;
    tx.commit().await?;
    Ok(())
}

fn main() {}
