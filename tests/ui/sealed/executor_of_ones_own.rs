//! An `Executor` of your own
//!
//! pgqrs runs on connections to PostgreSQL, and only on those
//! that it knows. If your type holds one, pass the connection.
//!
//! Fails with: E0277

use sqlx::PgPool;

struct Mine {
    pool: PgPool,
}

// Wrong:
impl pgqrs::Executor for Mine {}
// Right:
// async fn send(mine: Mine) -> pgqrs::Result<()> {
//     pgqrs::enqueue().message(&"hello").to("tasks").execute(&mine.pool).await?;
//     Ok(())
// }

fn main() {}
