//! A worker that isn't one
//!
//! `.worker(..)` takes a registered worker, not its name.
//!
//! Fails with: E0277

async fn send(store: pgqrs::Store) -> pgqrs::Result<()> {
    // Wrong:
    pgqrs::enqueue().message(&"hello").worker(&"my-service:3000").execute(&store).await?;
    // Right:
    // let producer = pgqrs::producer("my-service", 3000, "tasks").create(&store).await?;
    // pgqrs::enqueue().message(&"hello").worker(&producer).execute(&store).await?;
    Ok(())
}

fn main() {}
