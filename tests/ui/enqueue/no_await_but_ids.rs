//! Ids taken without `.await`
//!
//! `.execute(..)` returns a future, which returns the ids when it is awaited.
//!
//! Fails with: E0608
//! rustc's own words: what can be indexed is not for a library to word.

async fn send(store: pgqrs::Store) -> pgqrs::Result<()> {
    // Wrong:
    let ids = pgqrs::enqueue().message(&"hello").to("tasks").execute(&store);
    // Right:
    // let ids = pgqrs::enqueue().message(&"hello").to("tasks").execute(&store).await?;
    println!("{}", ids[0]);
    Ok(())
}

fn main() {}
