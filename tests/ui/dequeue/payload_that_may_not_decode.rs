//! A dequeued payload used without `?`
//!
//! `dequeue()` also returns messages whose payload doesn't decode, so `payload()` returns a `Result`.
//!
//! Fails with: E0277
//! rustc's own words: the message says that the value is a `Result`.

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
