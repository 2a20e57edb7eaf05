//! A batch by value
//!
//! A batch is borrowed: it can be sent again if the send fails.
//!
//! Fails with: E0308
//! rustc's own words: an argument of one certain type is compared by the compiler alone; it says what to write.

async fn send(store: pgqrs::Store) -> pgqrs::Result<()> {
    let batch = vec!["a", "b"];
    // Wrong:
    pgqrs::enqueue().messages(batch).to("tasks").execute(&store).await?;
    // Right:
    // pgqrs::enqueue().messages(&batch).to("tasks").execute(&store).await?;
    Ok(())
}

fn main() {}
