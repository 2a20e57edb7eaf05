//! A group beside that of the queue
//!
//! A queue with `.group_by(..)` computes the group of each message.
//!
//! Fails with: E0277

use pgqrs::{GroupedQueue, Queue};

const ORDERS: GroupedQueue<String> = Queue::<String>::new("orders").group_by(|customer| customer.clone());

async fn send(store: pgqrs::Store) -> pgqrs::Result<()> {
    let customer = "ada".to_owned();
    // Wrong:
    pgqrs::enqueue().message(&customer).to(ORDERS).group("ben").execute(&store).await?;
    // Right:
    // pgqrs::enqueue().message(&customer).to(ORDERS).execute(&store).await?;
    Ok(())
}

fn main() {}
