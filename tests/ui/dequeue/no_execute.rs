//! A dequeue without `.execute(..)`
//!
//! Until it is executed, a dequeue is only a description. The compiler warns of one that is dropped;
//! here, warnings are errors.
//!
//! Fails with: unused_must_use
//! rustc's own words: the first line of this warning is the compiler's; the note below it is ours. Its
//! advice to write `let _ =` only silences it.

#![deny(unused_must_use)]

async fn receive(store: pgqrs::Store) -> pgqrs::Result<()> {
    // Wrong:
    pgqrs::dequeue().from("tasks");
    // Right:
    // let deliveries = pgqrs::dequeue().from("tasks").execute(&store).await?;
    // pgqrs::ack_all(deliveries, &store).await?;
    let _ = store;
    Ok(())
}

fn main() {}
