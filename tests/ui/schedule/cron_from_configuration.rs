//! A cron expression from configuration in `cron!`
//!
//! Only a literal can be checked by the compiler. `Cron::parse` returns an error at run time.
//!
//! Fails with: no code

async fn install(store: pgqrs::Store, configured: String) -> pgqrs::Result<()> {
    // Wrong:
    let cron = pgqrs::cron!(configured);
    pgqrs::schedule("nightly", "tasks").cron(cron).message(&1).install(&store).await?;
    // Right:
    // let cron = pgqrs::Cron::parse(configured)?;
    // pgqrs::schedule("nightly", "tasks").cron(cron).message(&1).install(&store).await?;
    Ok(())
}

fn main() {}
