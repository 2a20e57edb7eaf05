//! Two groups
//!
//! A message belongs to one group.
//!
//! Fails with: E0277

async fn send(store: pgqrs::Store) -> pgqrs::Result<()> {
    // Wrong:
    pgqrs::enqueue().message(&7).to("orders").group("customer-1").group("customer-2").execute(&store).await?;
    // Right:
    // pgqrs::enqueue().message(&7).to("orders").group("customer-1").execute(&store).await?;
    Ok(())
}

fn main() {}
