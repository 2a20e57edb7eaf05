//! `.execute(store)` without the `&`
//!
//! A store is used many times, so it is passed by reference.
//!
//! Fails with: E0277

async fn send(store: pgqrs::Store) -> pgqrs::Result<()> {
    // Wrong:
    pgqrs::enqueue().message(&"hello").to("tasks").execute(store).await?;
    // Right:
    // pgqrs::enqueue().message(&"hello").to("tasks").execute(&store).await?;
    Ok(())
}

fn main() {}
