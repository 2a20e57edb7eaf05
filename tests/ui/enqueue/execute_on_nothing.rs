//! `.execute()` without a store
//!
//! An enqueue runs somewhere: on a store, or in a transaction of yours.
//!
//! Fails with: E0061
//! rustc's own words: how many arguments there are is counted before any type is looked at.

async fn send(store: pgqrs::Store) -> pgqrs::Result<()> {
    // Wrong:
    pgqrs::enqueue().message(&"hello").to("tasks").execute().await?;
    // Right:
    // pgqrs::enqueue().message(&"hello").to("tasks").execute(&store).await?;
    Ok(())
}

fn main() {}
