//! A schedule with two times
//!
//! A schedule has one time. For two, install two schedules, or write one expression with a list.
//!
//! Fails with: E0277

async fn install(store: pgqrs::Store) -> pgqrs::Result<()> {
    // Wrong:
    let (noon, night) = (pgqrs::cron!("0 12 * * *"), pgqrs::cron!("0 0 * * *"));
    pgqrs::schedule("twice", "feeds").cron(noon).cron(night).message(&1).install(&store).await?;
    // Right:
    // let twice = pgqrs::cron!("0 0,12 * * *");
    // pgqrs::schedule("twice", "feeds").cron(twice).message(&1).install(&store).await?;
    Ok(())
}

fn main() {}
