//! An import of the wrong payload for a queue
//!
//! All items of the iterator must be of the queue's type.
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

async fn send(store: pgqrs::Store, invoices: Vec<Invoice>) -> pgqrs::Result<()> {
    // Wrong:
    let mut import = pgqrs::enqueue().to(EMAILS).import(invoices);
    // Right:
    // let mut import = pgqrs::enqueue().to(INVOICES).import(invoices);
    while import.next(&store).await?.is_some() {}
    Ok(())
}

fn main() {}
