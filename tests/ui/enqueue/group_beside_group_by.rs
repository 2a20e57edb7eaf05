//! A group beside that of the queue
//!
//! A queue with `.group_by(..)` computes the group of each message.
//!
//! Fails with: E0277

use pgqrs::{GroupedQueue, Queue};

const ORDERS: GroupedQueue<u64> = Queue::<u64>::new("orders").group_by(|customer| customer.to_string());

async fn send(store: pgqrs::Store) -> pgqrs::Result<()> {
    // Wrong:
    pgqrs::enqueue().message(&7_u64).to(ORDERS).group("customer-7").execute(&store).await?;
    // Right:
    // pgqrs::enqueue().message(&7_u64).to(ORDERS).execute(&store).await?;
    Ok(())
}

fn main() {}
