//! Administration on a pool
//!
//! Administrative calls need a store; make one from the pool.
//!
//! Fails with: E0277

async fn create(pool: sqlx::PgPool) -> pgqrs::Result<()> {
    // Wrong:
    pgqrs::admin(&pool).create_queue("tasks").await?;
    // Right:
    // pgqrs::admin(&pgqrs::Store::from(pool)).create_queue("tasks").await?;
    Ok(())
}

fn main() {}
