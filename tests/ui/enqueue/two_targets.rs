//! An enqueue to two queues
//!
//! An enqueue goes to one queue. For two queues, write two.
//!
//! Fails with: E0277

async fn send(store: pgqrs::Store) -> pgqrs::Result<()> {
    // Wrong:
    pgqrs::enqueue().message(&"hello").to("tasks").to("emails").execute(&store).await?;
    // Right:
    // pgqrs::enqueue().message(&"hello").to("tasks").execute(&store).await?;
    // pgqrs::enqueue().message(&"hello").to("emails").execute(&store).await?;
    Ok(())
}

fn main() {}
