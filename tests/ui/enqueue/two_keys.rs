//! Two keys
//!
//! A message has one key, and is unique for one time by it.
//!
//! Fails with: E0277

async fn send(store: pgqrs::Store) -> pgqrs::Result<()> {
    // Wrong:
    pgqrs::enqueue().message(&7).to("invoices").unique("order-7").unique_until_claimed("order-7").execute(&store).await?;
    // Right:
    // pgqrs::enqueue().message(&7).to("invoices").unique("order-7").execute(&store).await?;
    Ok(())
}

fn main() {}
