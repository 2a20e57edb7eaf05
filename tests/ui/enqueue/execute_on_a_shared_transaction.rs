//! `.execute(&tx)` without the `mut`
//!
//! A connection runs one statement at a time, so a transaction is passed as `&mut tx`.
//!
//! Fails with: E0277

use sqlx::{Postgres, Transaction};

async fn send(mut tx: Transaction<'_, Postgres>) -> Result<(), Box<dyn std::error::Error>> {
    // Wrong:
    pgqrs::enqueue().message(&"hello").to("tasks").execute(&tx).await?;
    // Right:
    // pgqrs::enqueue().message(&"hello").to("tasks").execute(&mut tx).await?;
    tx.commit().await?;
    Ok(())
}

fn main() {}
