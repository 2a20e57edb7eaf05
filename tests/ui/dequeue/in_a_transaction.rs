//! A dequeue in a transaction of yours
//!
//! A claim is a transaction of its own: in yours, a message would be hidden from all others until you
//! commit, and your rollback would undo its attempt. Claim on the store, and settle in the transaction.
//!
//! Fails with: E0308
//! rustc's own words: an argument of one certain type is compared by the compiler alone; it names the
//! type that is wanted, `&Store`.

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
