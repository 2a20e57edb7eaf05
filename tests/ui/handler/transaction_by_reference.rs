//! A handler that borrows its transaction
//!
//! It gets the transaction by value, and drops it when it returns.
//!
//! Fails with: E0631
//! rustc's own words: the note names both types, the expected one first.

use pgqrs::{Consumer, Delivery, HandlerTransaction, sqlx};
use serde_json::Value;

// Wrong:
async fn handle(delivery: Delivery<Value>, tx: &mut HandlerTransaction) -> sqlx::Result<()> {
    sqlx::query("insert into numbers values ($1)").bind(delivery.payload()).execute(&mut ***tx).await?;
// Right:
// async fn handle(delivery: Delivery<Value>, mut tx: HandlerTransaction) -> sqlx::Result<()> {
//     sqlx::query("insert into numbers values ($1)").bind(delivery.payload()).execute(&mut **tx).await?;
    Ok(())
}

async fn work(consumer: Consumer) -> pgqrs::Result<()> {
    consumer.run_in_transaction(handle).await?;
    Ok(())
}

fn main() {}
