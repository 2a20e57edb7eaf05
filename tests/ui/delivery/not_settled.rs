//! A delivery that is dropped
//!
//! A message that nobody settles comes back when its lease runs out. The compiler warns of a delivery
//! that is dropped where it stands; here, warnings are errors.
//!
//! Fails with: unused_must_use
//! rustc's own words: the first line of this warning is the compiler's; the note below it is ours. Its
//! advice to write `let _ =` only silences it.

#![deny(unused_must_use)]

async fn receive(store: pgqrs::Store) -> pgqrs::Result<()> {
    let mut deliveries = pgqrs::dequeue().from("tasks").execute(&store).await?;
    // Wrong:
    deliveries.remove(0);
    // Right:
    // deliveries.remove(0).ack(&store).await?;
    Ok(())
}

fn main() {}
