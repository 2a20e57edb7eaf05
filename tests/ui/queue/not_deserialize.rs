//! A queue whose payload can't be read
//!
//! A queue's payload is read by serde too, so its type must implement `Deserialize`.
//!
//! Fails with: E0277

use pgqrs::Queue;

// Wrong:
#[derive(serde::Serialize)]
// Right:
// #[derive(serde::Serialize, serde::Deserialize)]
struct SendEmail {
    to: String,
}

const EMAILS: Queue<SendEmail> = Queue::new("emails");

async fn receive(store: pgqrs::Store) -> pgqrs::Result<()> {
    for delivery in pgqrs::dequeue().from(EMAILS).execute(&store).await? {
        delivery.ack(&store).await?;
    }
    Ok(())
}

fn main() {}
