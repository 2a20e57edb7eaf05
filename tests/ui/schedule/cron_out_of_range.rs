//! A cron expression with an hour that there is not
//!
//! The compiler checks a literal, and names the field.
//!
//! Fails with: E0080

async fn install(store: pgqrs::Store) -> pgqrs::Result<()> {
    // Wrong:
    let cron = pgqrs::cron!("0 25 * * *");
    pgqrs::schedule("nightly", "tasks").cron(cron).message(&1).install(&store).await?;
    // Right:
    // let cron = pgqrs::cron!("0 1 * * *");
    // pgqrs::schedule("nightly", "tasks").cron(cron).message(&1).install(&store).await?;
    Ok(())
}

fn main() {}
