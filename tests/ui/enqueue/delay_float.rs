//! A delay with a fraction
//!
//! Seconds are whole. What is finer is a `Duration`, which says its unit.
//!
//! Fails with: E0277

async fn send(store: pgqrs::Store) -> pgqrs::Result<()> {
    // Wrong:
    pgqrs::enqueue().message(&"hello").to("tasks").delay(0.25).execute(&store).await?;
    // Right:
    // let delay = std::time::Duration::from_millis(250);
    // pgqrs::enqueue().message(&"hello").to("tasks").delay(delay).execute(&store).await?;
    Ok(())
}

fn main() {}
