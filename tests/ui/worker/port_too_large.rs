//! A port that doesn't fit
//!
//! Ports go from 0, which is anonymous, to 65535.
//!
//! Fails with: overflowing_literals
//! rustc's own words: which numbers fit into a type is for the compiler to say, and it says it plainly.

async fn start(store: pgqrs::Store) -> pgqrs::Result<()> {
    // Wrong:
    let producer = pgqrs::producer("my-service", 70000, "tasks").create(&store).await?;
    // Right:
    // let producer = pgqrs::producer("my-service", 7000, "tasks").create(&store).await?;
    producer.shutdown().await?;
    Ok(())
}

fn main() {}
