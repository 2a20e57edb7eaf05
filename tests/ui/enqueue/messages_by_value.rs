//! A batch by value
//!
//! A batch is passed by reference, so that you can send it again if the send fails.
//!
//! Fails with: E0308
//! rustc's own words: the help says what to write.

async fn send(store: pgqrs::Store) -> pgqrs::Result<()> {
    let batch = vec!["a", "b"];
    // Wrong:
    pgqrs::enqueue().messages(batch).to("tasks").execute(&store).await?;
    // Right:
    // pgqrs::enqueue().messages(&batch).to("tasks").execute(&store).await?;
    Ok(())
}

fn main() {}
