//! A negative delay
//!
//! A message can't be delivered before it is sent. To deliver it at once, leave the delay out.
//!
//! Fails with: E0277
//! rustc's own words: seconds are a `u64`. `-300i64`, as the compiler suggests, isn't a delay either.

async fn send(store: pgqrs::Store) -> pgqrs::Result<()> {
    // Wrong:
    pgqrs::enqueue().message(&"hello").to("tasks").delay(-300).execute(&store).await?;
    // Right:
    // pgqrs::enqueue().message(&"hello").to("tasks").execute(&store).await?;
    Ok(())
}

fn main() {}
