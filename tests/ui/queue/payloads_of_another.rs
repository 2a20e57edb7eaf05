//! A batch of the wrong payload for a queue
//!
//! All messages of a batch must be of the queue's type, whichever of the two is set first.
//!
//! Fails with: E0277

use pgqrs::Queue;

#[derive(serde::Serialize, serde::Deserialize)]
struct SendEmail {
    to: String,
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Invoice {
    number: u32,
}

const EMAILS: Queue<SendEmail> = Queue::new("emails");
const INVOICES: Queue<Invoice> = Queue::new("invoices");

async fn send(store: pgqrs::Store, invoices: &[Invoice]) -> pgqrs::Result<()> {
    // Wrong:
    pgqrs::enqueue().to(EMAILS).messages(invoices).execute(&store).await?;
    // Right:
    // pgqrs::enqueue().to(INVOICES).messages(invoices).execute(&store).await?;
    Ok(())
}

fn main() {}
