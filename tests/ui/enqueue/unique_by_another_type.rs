//! Keys computed from another type
//!
//! The function that computes the keys takes the type of the messages.
//!
//! Fails with: E0277

async fn send(store: pgqrs::Store) -> pgqrs::Result<()> {
    // Wrong:
    pgqrs::enqueue().unique_by(|order: &u64| order.to_string()).messages(&["7", "8"]).to("invoices").execute(&store).await?;
    // Right:
    // pgqrs::enqueue().unique_by(|order: &&str| order.to_string()).messages(&["7", "8"]).to("invoices").execute(&store).await?;
    Ok(())
}

fn main() {}
