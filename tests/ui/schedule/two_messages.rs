//! A schedule with two messages
//!
//! A schedule sends one message each time. For two, install two schedules.
//!
//! Fails with: E0277

async fn install(store: pgqrs::Store) -> pgqrs::Result<()> {
    // Wrong:
    let daily = pgqrs::cron!("@daily");
    pgqrs::schedule("a", "feeds").cron(daily).message(&1).message(&2).install(&store).await?;
    // Right:
    // let daily = pgqrs::cron!("@daily");
    // pgqrs::schedule("a", "feeds").cron(daily.clone()).message(&1).install(&store).await?;
    // pgqrs::schedule("b", "feeds").cron(daily).message(&2).install(&store).await?;
    Ok(())
}

fn main() {}
