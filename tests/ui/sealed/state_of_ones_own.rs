//! A state of one's own
//!
//! So nothing but a message counts as a message.
//!
//! Fails with: E0277

struct Mine;

// Wrong:
impl pgqrs::state::MessageIsSet for Mine {}
// Right:
// async fn send(store: pgqrs::Store) -> pgqrs::Result<()> {
//     pgqrs::enqueue().message(&"hello").to("tasks").execute(&store).await?;
//     Ok(())
// }

fn main() {}
