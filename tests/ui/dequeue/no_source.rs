//! A dequeue without a queue
//!
//! A dequeue needs a queue, or a consumer, which has one.
//!
//! Fails with: E0277

async fn receive(store: pgqrs::Store) -> pgqrs::Result<()> {
    // Wrong:
    let deliveries = pgqrs::dequeue().limit(10).execute(&store).await?;
    // Right:
    // let deliveries = pgqrs::dequeue().from("tasks").limit(10).execute(&store).await?;
    println!("{}", deliveries.len());
    Ok(())
}

fn main() {}
