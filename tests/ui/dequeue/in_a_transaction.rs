//! A dequeue in your transaction
//!
//! A claim has to commit at once: in your transaction, the messages would be locked until you
//! commit, and a rollback would undo the attempt. Claim on the store, and settle in the transaction.
//!
//! Fails with: E0308
//! rustc's own words: the message names the expected
//! type, which is `&Store`: claims run on a store.

async fn receive(store: pgqrs::Store) -> Result<(), Box<dyn std::error::Error>> {
    let mut tx = store.pool().begin().await?;
    // Wrong:
    let deliveries = pgqrs::dequeue().from("tasks").execute(&mut tx).await?;
    // Right:
    // let deliveries = pgqrs::dequeue().from("tasks").execute(&store).await?;
    for delivery in deliveries {
        delivery.ack(&mut tx).await?;
    }
    tx.commit().await?;
    Ok(())
}

fn main() {}
