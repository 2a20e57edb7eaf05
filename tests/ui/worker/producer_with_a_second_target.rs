//! Another queue for a producer's enqueue
//!
//! A producer is registered for one queue, to which all of its messages go.
//!
//! Fails with: E0277

async fn send(store: pgqrs::Store, producer: pgqrs::Producer) -> pgqrs::Result<()> {
    // Wrong:
    producer.enqueue().message(&"hello").to("emails").execute(&store).await?;
    // Right:
    // producer.enqueue().message(&"hello").execute(&store).await?;
    Ok(())
}

fn main() {}
