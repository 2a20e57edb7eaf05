//! A transaction of another version of sqlx
//!
//! pgqrs works with one version of sqlx, `pgqrs::sqlx`. In a transaction of another version, use `.statement()`.
//!
//! Fails with: E0277

/// As of another version.
mod sqlx_0_8 {
    pub struct Transaction;
}

// Wrong:
use sqlx_0_8::Transaction;
// Right:
// type Transaction = pgqrs::sqlx::Transaction<'static, pgqrs::sqlx::Postgres>;

async fn send(mut tx: Transaction) -> pgqrs::Result<()> {
    pgqrs::enqueue().message(&"hello").to("tasks").execute(&mut tx).await?;
    Ok(())
}

fn main() {}
