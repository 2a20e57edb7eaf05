//! The wrong payload for a queue
//!
//! A `Queue<SendEmail>` takes only `SendEmail`, so its consumers can rely on that.
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

async fn send(store: pgqrs::Store) -> pgqrs::Result<()> {
    // Wrong:
    pgqrs::enqueue().message(&Invoice { number: 7 }).to(EMAILS).execute(&store).await?;
    // Right:
    // pgqrs::enqueue().message(&Invoice { number: 7 }).to(INVOICES).execute(&store).await?;
    Ok(())
}

fn main() {}
