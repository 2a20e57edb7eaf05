//! A delivery that is dropped
//!
//! A message that isn't settled is delivered again when its lease runs out. The
//! compiler warns about a delivery that is dropped; here, warnings are errors.
//!
//! Fails with: unused_must_use
//! rustc's own words: the note says what to do. What the
//! compiler suggests, `let _ =`, only hides the warning.

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
