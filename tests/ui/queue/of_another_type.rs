//! A queue that is neither a name nor a `Queue`
//!
//! A queue is a name, or a `Queue` that is declared with the type of its payloads.
//!
//! Fails with: E0277

async fn send(store: pgqrs::Store) -> pgqrs::Result<()> {
    // Wrong:
    pgqrs::enqueue().message(&"hello").to(7).execute(&store).await?;
    // Right:
    // pgqrs::enqueue().message(&"hello").to("tasks").execute(&store).await?;
    Ok(())
}

fn main() {}
