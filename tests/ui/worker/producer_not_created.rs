//! A producer that was never registered
//!
//! `pgqrs::producer(..)` only describes a producer, and `.create(&store)` registers
//! it. The compiler warns about one that is dropped; here, warnings are errors.
//!
//! Fails with: unused_must_use
//! rustc's own words: the note says what to do. What the
//! compiler suggests, `let _ =`, only hides the warning.

#![deny(unused_must_use)]

async fn start(store: pgqrs::Store) -> pgqrs::Result<()> {
    // Wrong:
    pgqrs::producer("my-service", 3000, "tasks");
    // Right:
    // let producer = pgqrs::producer("my-service", 3000, "tasks").create(&store).await?;
    // producer.enqueue().message(&"hello").execute(&store).await?;
    let _ = store;
    Ok(())
}

fn main() {}
