//! A dequeue without `.execute(..)`
//!
//! A dequeue does nothing until it is executed. The compiler
//! warns about one that is dropped; here, warnings are errors.
//!
//! Fails with: unused_must_use
//! rustc's own words: the note says what to do. What the
//! compiler suggests, `let _ =`, only hides the warning.

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
