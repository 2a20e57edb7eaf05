//! Two groups of a message in a batch
//!
//! Each message of a batch belongs to one group.
//!
//! Fails with: E0277

async fn send(store: pgqrs::Store) -> pgqrs::Result<()> {
    // Wrong:
    let message = pgqrs::message(&7).group("customer-1").group("customer-2");
    // Right:
    // let message = pgqrs::message(&7).group("customer-1");
    pgqrs::enqueue().to("orders").batch([message]).execute(&store).await?;
    Ok(())
}

fn main() {}
