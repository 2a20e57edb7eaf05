//! A key and a group
//!
//! A message with a key is stored once; one with a group waits for others of its group. A message has one of them.
//!
//! Fails with: E0277

async fn send(store: pgqrs::Store) -> pgqrs::Result<()> {
    // Wrong:
    pgqrs::enqueue().message(&7).to("orders").unique("order-7").group("customer-1").execute(&store).await?;
    // Right:
    // pgqrs::enqueue().message(&7).to("orders").group("customer-1").execute(&store).await?;
    Ok(())
}

fn main() {}
