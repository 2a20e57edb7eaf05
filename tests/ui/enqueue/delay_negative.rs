//! A negative delay
//!
//! Nothing can be delivered before it was sent. A message without a delay is there at once.
//!
//! Fails with: E0277
//! rustc's own words: the minus is judged before the delay is; seconds are a `u64`, which has none.

async fn send(store: pgqrs::Store) -> pgqrs::Result<()> {
    // Wrong:
    pgqrs::enqueue().message(&"hello").to("tasks").delay(-300).execute(&store).await?;
    // Right:
    // pgqrs::enqueue().message(&"hello").to("tasks").execute(&store).await?;
    Ok(())
}

fn main() {}
