//! Keys computed after the messages are set
//!
//! A payload is serialised when it is passed in, so its key has to be computed then.
//!
//! Fails with: E0277

async fn send(store: pgqrs::Store) -> pgqrs::Result<()> {
    // Wrong:
    pgqrs::enqueue().messages(&[7, 8]).unique_by(|order: &i32| order.to_string()).to("invoices").execute(&store).await?;
    // Right:
    // pgqrs::enqueue().unique_by(|order: &i32| order.to_string()).messages(&[7, 8]).to("invoices").execute(&store).await?;
    Ok(())
}

fn main() {}
