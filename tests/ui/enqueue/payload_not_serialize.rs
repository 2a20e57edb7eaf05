//! A payload that isn't `Serialize`
//!
//! Payloads are stored as JSON, which serde writes.
//!
//! Fails with: E0277
//! rustc's own words: `Serialize` is serde's trait, and so are the words; they name the mend.

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
