//! Ids used without `.await`
//!
//! `.execute(..)` returns a future; awaiting it returns the ids.
//!
//! Fails with: E0608
//! rustc's own words: the type in the message, `Execute`, is that future.

async fn send(store: pgqrs::Store) -> pgqrs::Result<()> {
    // Wrong:
    let ids = pgqrs::enqueue().message(&"hello").to("tasks").execute(&store);
    // Right:
    // let ids = pgqrs::enqueue().message(&"hello").to("tasks").execute(&store).await?;
    println!("{}", ids[0]);
    Ok(())
}

fn main() {}
