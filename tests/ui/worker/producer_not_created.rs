//! A producer that was never registered
//!
//! `pgqrs::producer(..)` describes it; `.create(&store)` registers it. The compiler warns of one that
//! is dropped; here, warnings are errors.
//!
//! Fails with: unused_must_use
//! rustc's own words: the first line of this warning is the compiler's; the note below it is ours. Its
//! advice to write `let _ =` only silences it.

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
