//! A schedule without a time
//!
//! A schedule has a cron expression, or an interval.
//!
//! Fails with: E0277

async fn install(store: pgqrs::Store) -> pgqrs::Result<()> {
    // Wrong:
    pgqrs::schedule("poll", "feeds").message(&1).install(&store).await?;
    // Right:
    // let minute = std::time::Duration::from_secs(60);
    // pgqrs::schedule("poll", "feeds").every(minute).message(&1).install(&store).await?;
    Ok(())
}

fn main() {}
