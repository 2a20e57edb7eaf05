//! A schedule without a message
//!
//! A schedule sends a message each time.
//!
//! Fails with: E0277

async fn install(store: pgqrs::Store) -> pgqrs::Result<()> {
    // Wrong:
    pgqrs::schedule("daily", "feeds").cron(pgqrs::cron!("@daily")).install(&store).await?;
    // Right:
    // pgqrs::schedule("daily", "feeds").cron(pgqrs::cron!("@daily")).message(&1).install(&store).await?;
    Ok(())
}

fn main() {}
