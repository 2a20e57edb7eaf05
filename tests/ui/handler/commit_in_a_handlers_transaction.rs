//! A handler that commits its transaction itself
//!
//! `run_in_transaction` commits it after the handler, together with the acknowledgement.
//!
//! Fails with: E0507
//! rustc's own words: `commit` takes a transaction by value, which can't be moved out of the one that a handler gets.

use pgqrs::{Delivery, HandlerTransaction, sqlx};

async fn handle(delivery: Delivery<i64>, mut tx: HandlerTransaction) -> sqlx::Result<()> {
    sqlx::query("insert into numbers values ($1)").bind(delivery.payload()).execute(&mut **tx).await?;
    // Wrong:
    tx.commit().await?;
    Ok(())
    // Right:
    // Ok(())
}

fn main() {}
