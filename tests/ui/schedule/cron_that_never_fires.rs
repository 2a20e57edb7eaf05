//! A cron expression that never fires
//!
//! No February has 30 days.
//!
//! Fails with: E0080

async fn install(store: pgqrs::Store) -> pgqrs::Result<()> {
    // Wrong:
    let cron = pgqrs::cron!("0 0 30 2 *");
    pgqrs::schedule("monthly", "tasks").cron(cron).message(&1).install(&store).await?;
    // Right:
    // let cron = pgqrs::cron!("0 0 L 2 *");
    // pgqrs::schedule("monthly", "tasks").cron(cron).message(&1).install(&store).await?;
    Ok(())
}

fn main() {}
