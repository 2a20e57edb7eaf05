//! A consumer of a queue whose payload can't be read
//!
//! A payload is read by serde too. The compiler reports it twice: where the consumer is made, and where it runs.
//!
//! Fails with: E0277

use pgqrs::{Delivery, Outcome, Queue};

// Wrong:
#[derive(serde::Serialize)]
// Right:
// #[derive(serde::Serialize, serde::Deserialize)]
struct SendEmail {
    to: String,
}

const EMAILS: Queue<SendEmail> = Queue::new("emails");

async fn work(store: pgqrs::Store) -> pgqrs::Result<()> {
    let consumer = pgqrs::consumer(EMAILS).create(&store).await?;
    consumer.run(async |_: Delivery<SendEmail>| Outcome::Done).await?;
    Ok(())
}

fn main() {}
