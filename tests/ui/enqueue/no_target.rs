//! An enqueue without a queue
//!
//! An enqueue needs a queue, or a producer, which has one.
//!
//! Fails with: E0277

async fn send(store: pgqrs::Store) -> pgqrs::Result<()> {
    // Wrong:
    pgqrs::enqueue().message(&"hello").execute(&store).await?;
    // Right:
    // pgqrs::enqueue().message(&"hello").to("tasks").execute(&store).await?;
    Ok(())
}

fn main() {}
