//! A name that no queue can have
//!
//! The compiler checks the name of a constant: 1 to 128 bytes,
//! no control characters, and no white space at either end.
//!
//! Fails with: E0080

use pgqrs::Queue;

// Wrong:
const EMAILS: Queue = Queue::new("emails ");
// Right:
// const EMAILS: Queue = Queue::new("emails");

async fn send(store: pgqrs::Store) -> pgqrs::Result<()> {
    pgqrs::enqueue().message(&"hello").to(EMAILS).execute(&store).await?;
    Ok(())
}

fn main() {}
