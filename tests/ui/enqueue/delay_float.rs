//! A delay with a fraction
//!
//! A plain number is whole seconds. For anything finer, pass a `Duration`.
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
