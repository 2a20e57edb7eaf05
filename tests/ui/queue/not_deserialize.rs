//! A queue whose payload can't be read
//!
//! What a queue carries is read with serde too.
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
