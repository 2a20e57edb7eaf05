//! A consumer with host and port
//!
//! Consumers are anonymous, unless they are named by `.identity(..)`.
//!
//! Fails with: E0061
//! rustc's own words: the number of arguments is the compiler's to count.

async fn register(store: pgqrs::Store) -> pgqrs::Result<()> {
    // Wrong:
    let consumer = pgqrs::consumer("my-service", 3001, "tasks").create(&store).await?;
    // Right:
    // let consumer = pgqrs::consumer("tasks").identity("my-service", 3001).create(&store).await?;
    println!("{consumer:?}");
    Ok(())
}

fn main() {}
