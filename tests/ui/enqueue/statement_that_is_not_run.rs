//! A statement that is not run
//!
//! `.statement()` only returns the SQL. The compiler warns about one that is dropped; here, warnings are errors.
//!
//! Fails with: unused_must_use
//! rustc's own words: the note says what to do.

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
