//! A pool of another database
//!
//! The queue lives in PostgreSQL. `MySqlPool` stands for the pool of any other database.
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
