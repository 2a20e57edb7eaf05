//! A payload that may not decode
//!
//! What was dequeued is handed over whether or not its payload is what its queue carries. In a handler it has been decoded.
//!
//! Fails with: E0277
//! rustc's own words: formatting is the standard library's; it names the `Result`.

async fn receive(store: pgqrs::Store) -> pgqrs::Result<()> {
    for delivery in pgqrs::dequeue().from("tasks").execute(&store).await? {
        // Wrong:
        println!("{}", delivery.payload());
        // Right:
        // println!("{}", delivery.payload()?);
        delivery.ack(&store).await?;
    }
    Ok(())
}

fn main() {}
