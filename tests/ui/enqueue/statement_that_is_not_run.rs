//! A statement that is not run
//!
//! `.statement()` only returns the SQL of an enqueue. The compiler warns of one that is dropped; here, warnings are errors.
//!
//! Fails with: unused_must_use
//! rustc's own words: the first line of this warning is the compiler's; the note below it is ours.

#![deny(unused_must_use)]

async fn send(store: pgqrs::Store) -> pgqrs::Result<()> {
    // Wrong:
    pgqrs::enqueue().message(&"hello").to("tasks").statement()?;
    // Right:
    // pgqrs::enqueue().message(&"hello").to("tasks").execute(&store).await?;
    let _ = store;
    Ok(())
}

fn main() {}
