//! An enqueue without `.execute(..)`
//!
//! An enqueue does nothing until it is executed. The compiler
//! warns about one that is dropped; here, warnings are errors.
//!
//! Fails with: unused_must_use
//! rustc's own words: the note says what to do. What the
//! compiler suggests, `let _ =`, only hides the warning.

#![deny(unused_must_use)]

async fn send(store: pgqrs::Store) -> pgqrs::Result<()> {
    // Wrong:
    pgqrs::enqueue().message(&"hello").to("tasks");
    // Right:
    // pgqrs::enqueue().message(&"hello").to("tasks").execute(&store).await?;
    let _ = store;
    Ok(())
}

fn main() {}
