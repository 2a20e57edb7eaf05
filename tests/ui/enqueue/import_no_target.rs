//! An import without a queue
//!
//! An import sends its messages in chunks, so it needs its queue before the first one.
//!
//! Fails with: E0277

async fn send(store: pgqrs::Store, rows: Vec<u64>) -> pgqrs::Result<()> {
    // Wrong:
    let mut import = pgqrs::enqueue().import(rows);
    // Right:
    // let mut import = pgqrs::enqueue().to("tasks").import(rows);
    while import.next(&store).await?.is_some() {}
    Ok(())
}

fn main() {}
