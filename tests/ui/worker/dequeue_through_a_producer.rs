//! A dequeue through a producer
//!
//! A producer sends messages. Only a consumer receives them.
//!
//! Fails with: E0277

async fn receive(store: pgqrs::Store, producer: pgqrs::Producer) -> pgqrs::Result<()> {
    // Wrong:
    let deliveries = pgqrs::dequeue().worker(&producer).execute(&store).await?;
    // Right:
    // let deliveries = pgqrs::dequeue().from("tasks").execute(&store).await?;
    println!("{} for {producer:?}", deliveries.len());
    Ok(())
}

fn main() {}
