//! Two effects of a duplicate
//!
//! A duplicate replaces the message that waits, postpones it, or is appended to it.
//!
//! Fails with: E0277

async fn send(store: pgqrs::Store) -> pgqrs::Result<()> {
    // Wrong:
    pgqrs::enqueue().message(&[7]).to("pages").unique_until_claimed("site").or_append().or_replace().execute(&store).await?;
    // Right:
    // pgqrs::enqueue().message(&[7]).to("pages").unique_until_claimed("site").or_append().execute(&store).await?;
    Ok(())
}

fn main() {}
