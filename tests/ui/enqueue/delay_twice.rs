//! A delay, twice
//!
//! It isn't clear whether the second delay replaces the first or adds to it, so only one is accepted.
//!
//! Fails with: E0277

async fn send(store: pgqrs::Store) -> pgqrs::Result<()> {
    // Wrong:
    pgqrs::enqueue().message(&"hello").to("tasks").delay(300).delay(60).execute(&store).await?;
    // Right:
    // pgqrs::enqueue().message(&"hello").to("tasks").delay(360).execute(&store).await?;
    Ok(())
}

fn main() {}
