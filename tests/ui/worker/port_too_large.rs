//! A port that doesn't fit
//!
//! Ports are from 0, which means anonymous, to 65535.
//!
//! Fails with: overflowing_literals
//! rustc's own words: the message names the type, and the numbers that fit into it.

async fn start(store: pgqrs::Store) -> pgqrs::Result<()> {
    // Wrong:
    let producer = pgqrs::producer("my-service", 70000, "tasks").create(&store).await?;
    // Right:
    // let producer = pgqrs::producer("my-service", 7000, "tasks").create(&store).await?;
    producer.shutdown().await?;
    Ok(())
}

fn main() {}
