//! A delay as text
//!
//! A delay is a number of seconds, or a `Duration`.
//!
//! Fails with: E0277

async fn send(store: pgqrs::Store) -> pgqrs::Result<()> {
    // Wrong:
    pgqrs::enqueue().message(&"hello").to("tasks").delay("5 minutes").execute(&store).await?;
    // Right:
    // pgqrs::enqueue().message(&"hello").to("tasks").delay(300).execute(&store).await?;
    Ok(())
}

fn main() {}
