//! A pool of another database
//!
//! The queue is in PostgreSQL, and so must be the pool. `MySqlPool` is an example of another one.
//!
//! Fails with: E0277

struct MySqlPool;

// Wrong:
async fn send(pool: MySqlPool) -> pgqrs::Result<()> {
// Right:
// async fn send(pool: sqlx::PgPool) -> pgqrs::Result<()> {
    pgqrs::enqueue().message(&"hello").to("tasks").execute(&pool).await?;
    Ok(())
}

fn main() {}
