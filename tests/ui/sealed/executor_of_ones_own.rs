//! An `Executor` of one's own
//!
//! What pgqrs runs on is PostgreSQL's connections, however they are held. Yours holds one of them: lend
//! that.
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
