//! A dequeue from two queues
//!
//! A dequeue reads one queue. For two queues, write two.
//!
//! Fails with: E0277

async fn receive(store: pgqrs::Store) -> pgqrs::Result<()> {
    // Wrong:
    let deliveries = pgqrs::dequeue().from("tasks").from("emails").execute(&store).await?;
    // Right:
    // let deliveries = pgqrs::dequeue().from("tasks").execute(&store).await?;
    println!("{}", deliveries.len());
    Ok(())
}

fn main() {}
