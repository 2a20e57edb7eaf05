//! A priority as a number
//!
//! There are four priorities, and each has a name.
//!
//! Fails with: E0308
//! rustc's own words: an argument of one certain type is compared by the compiler alone; it names the
//! type that is wanted, `Priority`.

async fn send(store: pgqrs::Store) -> pgqrs::Result<()> {
    // Wrong:
    pgqrs::enqueue().message(&"hello").to("tasks").priority(7).execute(&store).await?;
    // Right:
    // let low = pgqrs::Priority::Low;
    // pgqrs::enqueue().message(&"hello").to("tasks").priority(low).execute(&store).await?;
    Ok(())
}

fn main() {}
