//! A replacement of a message that may run
//!
//! `.unique(..)` also finds a message that is running or being retried, and what has begun can't be replaced.
//!
//! Fails with: E0277

async fn send(store: pgqrs::Store) -> pgqrs::Result<()> {
    // Wrong:
    pgqrs::enqueue().message(&7).to("display").unique("kitchen").or_replace().execute(&store).await?;
    // Right:
    // pgqrs::enqueue().message(&7).to("display").unique_until_claimed("kitchen").or_replace().execute(&store).await?;
    Ok(())
}

fn main() {}
