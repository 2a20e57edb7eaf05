//! An enqueue through a consumer
//!
//! A consumer receives messages. Only a producer sends them.
//!
//! Fails with: E0277

async fn send(store: pgqrs::Store, consumer: pgqrs::Consumer) -> pgqrs::Result<()> {
    // Wrong:
    pgqrs::enqueue().message(&"hello").worker(&consumer).execute(&store).await?;
    // Right:
    // pgqrs::enqueue().message(&"hello").to("tasks").execute(&store).await?;
    let _ = consumer;
    Ok(())
}

fn main() {}
