//! A `Vec` to `.message(..)` of a queue with a type
//!
//! `.message(..)` takes one payload, and `.messages(..)` takes many.
//!
//! Fails with: E0277

use pgqrs::Queue;

#[derive(serde::Serialize, serde::Deserialize)]
struct SendEmail {
    to: String,
}

const EMAILS: Queue<SendEmail> = Queue::new("emails");

async fn send(store: pgqrs::Store, emails: Vec<SendEmail>) -> pgqrs::Result<()> {
    // Wrong:
    pgqrs::enqueue().message(&emails).to(EMAILS).execute(&store).await?;
    // Right:
    // pgqrs::enqueue().messages(&emails).to(EMAILS).execute(&store).await?;
    Ok(())
}

fn main() {}
