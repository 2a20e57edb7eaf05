//! A queue read as another type than it carries
//!
//! The payload of a message of a `Queue<SendEmail>` is a `SendEmail`.
//!
//! Fails with: E0308
//! rustc's own words: the message names both types.

use pgqrs::{Delivery, Queue, Unchecked};

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

async fn receive(store: pgqrs::Store) -> pgqrs::Result<Vec<Delivery<Invoice, Unchecked>>> {
    // Wrong:
    pgqrs::dequeue().from(EMAILS).execute(&store).await
    // Right:
    // pgqrs::dequeue().from(INVOICES).execute(&store).await
}

fn main() {}
