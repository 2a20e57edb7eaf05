//! A statement with a key
//!
//! The statement for other drivers stores messages without keys only.
//!
//! Fails with: E0277

async fn send(store: pgqrs::Store) -> pgqrs::Result<()> {
    // Wrong:
    let statement = pgqrs::enqueue().message(&7).to("invoices").unique("order-7").statement()?;
    // Right:
    // let statement = pgqrs::enqueue().message(&7).to("invoices").statement()?;
    Ok(())
}

fn main() {}
