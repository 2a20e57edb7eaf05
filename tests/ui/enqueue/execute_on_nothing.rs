//! `.execute()` without a store
//!
//! An enqueue runs on a store, or in your transaction: pass one of them.
//!
//! Fails with: E0061
//! rustc's own words: the message only says that an argument is missing. Pass `&store`, or `&mut tx`.

async fn send(store: pgqrs::Store) -> pgqrs::Result<()> {
    // Wrong:
    pgqrs::enqueue().message(&"hello").to("tasks").execute().await?;
    // Right:
    // pgqrs::enqueue().message(&"hello").to("tasks").execute(&store).await?;
    Ok(())
}

fn main() {}
