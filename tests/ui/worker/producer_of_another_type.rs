//! The wrong payload for a producer
//!
//! A producer sends what its queue carries, in whichever order the enqueue is written.
//!
//! Fails with: E0277

use pgqrs::{Producer, Queue, Store};

#[derive(serde::Serialize, serde::Deserialize)]
struct SendEmail {
    to: String,
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Invoice {
    number: u32,
}

const INVOICES: Queue<Invoice> = Queue::new("invoices");

async fn send(store: Store, producer: Producer<SendEmail>) -> pgqrs::Result<()> {
    // Wrong:
    producer.enqueue().message(&Invoice { number: 7 }).execute(&store).await?;
    pgqrs::enqueue().message(&Invoice { number: 7 }).worker(&*producer).execute(&store).await?;
    // Right:
    // producer.enqueue().message(&SendEmail { to: "ada@example.com".into() }).execute(&store).await?;
    // pgqrs::enqueue().message(&Invoice { number: 7 }).to(INVOICES).execute(&store).await?;
    Ok(())
}

fn main() {}
