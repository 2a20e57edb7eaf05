//! A message and a batch in one enqueue
//!
//! An enqueue takes its messages in one call: one message, or a batch.
//!
//! Fails with: E0277

async fn send(store: pgqrs::Store) -> pgqrs::Result<()> {
    // Wrong:
    pgqrs::enqueue().message(&1).messages(&[2, 3]).to("tasks").execute(&store).await?;
    // Right:
    // pgqrs::enqueue().messages(&[1, 2, 3]).to("tasks").execute(&store).await?;
    Ok(())
}

fn main() {}
