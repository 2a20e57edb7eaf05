//! An enqueue without `.await`
//!
//! As with every future in Rust, nothing happens until it is awaited.
//!
//! Fails with: unused_must_use
//! rustc's own words: the note says what to do. What the
//! compiler suggests, `let _ =`, only hides the warning.

#![deny(unused_must_use)]

async fn send(store: pgqrs::Store) -> pgqrs::Result<()> {
    // Wrong:
    pgqrs::enqueue().message(&"hello").to("tasks").execute(&store);
    // Right:
    // pgqrs::enqueue().message(&"hello").to("tasks").execute(&store).await?;
    Ok(())
}

fn main() {}
