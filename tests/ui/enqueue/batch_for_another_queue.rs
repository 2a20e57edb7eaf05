//! A batch for a queue of another type
//!
//! The messages of a batch are of the type that the queue carries.
//!
//! Fails with: E0277

const EMAILS: pgqrs::Queue<String> = pgqrs::Queue::new("emails");

async fn send(store: pgqrs::Store) -> pgqrs::Result<()> {
    // Wrong:
    pgqrs::enqueue().to(EMAILS).batch([pgqrs::message(&7).delay(60)]).execute(&store).await?;
    // Right:
    // pgqrs::enqueue().to(EMAILS).batch([pgqrs::message(&"hello".to_owned()).delay(60)]).execute(&store).await?;
    Ok(())
}

fn main() {}
