//! A second message in one enqueue
//!
//! A second `.message(..)` doesn't add to the first. Pass several
//! messages together, as a batch, which is stored whole or not at all.
//!
//! Fails with: E0277

async fn send(store: pgqrs::Store) -> pgqrs::Result<()> {
    // Wrong:
    pgqrs::enqueue().message(&"first").message(&"second").to("tasks").execute(&store).await?;
    // Right:
    // pgqrs::enqueue().messages(&["first", "second"]).to("tasks").execute(&store).await?;
    Ok(())
}

fn main() {}
