//! A payload that isn't `Serialize`
//!
//! A payload is stored as JSON, so its type must implement serde's `Serialize`.
//!
//! Fails with: E0277
//! rustc's own words: `Serialize` is a trait of serde; the note says which derive to add.

// Wrong:
struct SendEmail {
    to: String,
}
// Right:
// #[derive(serde::Serialize)]
// struct SendEmail {
//     to: String,
// }

async fn send(store: pgqrs::Store, email: SendEmail) -> pgqrs::Result<()> {
    pgqrs::enqueue().message(&email).to("emails").execute(&store).await?;
    println!("to {}", email.to);
    Ok(())
}

fn main() {}
