//! A priority as a number
//!
//! There are four priorities, and each has a name.
//!
//! Fails with: E0308
//! rustc's own words: the message names the expected type,
//! which is the enum `Priority`: write one of its variants.

async fn send(store: pgqrs::Store) -> pgqrs::Result<()> {
    // Wrong:
    pgqrs::enqueue().message(&"hello").to("tasks").priority(7).execute(&store).await?;
    // Right:
    // let low = pgqrs::Priority::Low;
    // pgqrs::enqueue().message(&"hello").to("tasks").priority(low).execute(&store).await?;
    Ok(())
}

fn main() {}
