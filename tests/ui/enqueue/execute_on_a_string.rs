//! `.execute(url)`
//!
//! Connect once, with `pgqrs::connect(url)`, and pass the store to each call: it holds the connections.
//!
//! Fails with: E0277

async fn send() -> pgqrs::Result<()> {
    // Wrong:
    let url = "postgresql://localhost/mydb";
    pgqrs::enqueue().message(&"hello").to("tasks").execute(url).await?;
    // Right:
    // let store = pgqrs::connect("postgresql://localhost/mydb").await?;
    // pgqrs::enqueue().message(&"hello").to("tasks").execute(&store).await?;
    Ok(())
}

fn main() {}
