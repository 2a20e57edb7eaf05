//! An enqueue without `.await`
//!
//! As with all of Rust's futures, nothing happens until it is awaited.
//!
//! Fails with: unused_must_use
//! rustc's own words: the first line of this warning is the compiler's; the note below it is ours. Its
//! advice to write `let _ =` only silences it.

#![deny(unused_must_use)]

async fn send(store: pgqrs::Store) -> pgqrs::Result<()> {
    // Wrong:
    pgqrs::enqueue().message(&"hello").to("tasks").execute(&store);
    // Right:
    // pgqrs::enqueue().message(&"hello").to("tasks").execute(&store).await?;
    Ok(())
}

fn main() {}
