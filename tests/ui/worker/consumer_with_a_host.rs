//! A consumer with host and port
//!
//! A consumer is anonymous by default. To give it a host and a port, call `.identity(..)`.
//!
//! Fails with: E0061
//! rustc's own words: only the queue is an argument; the compiler's suggestion keeps the host instead.

async fn register(store: pgqrs::Store) -> pgqrs::Result<()> {
    // Wrong:
    let consumer = pgqrs::consumer("my-service", 3001, "tasks").create(&store).await?;
    // Right:
    // let consumer = pgqrs::consumer("tasks").identity("my-service", 3001).create(&store).await?;
    println!("{consumer:?}");
    Ok(())
}

fn main() {}
