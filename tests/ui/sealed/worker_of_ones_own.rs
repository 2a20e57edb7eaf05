//! A `Worker` of your own
//!
//! A worker is a row in the database, with a heartbeat. If your type holds a producer or a consumer, pass that.
//!
//! Fails with: E0277

use pgqrs::{Producer, Untyped, Worker};

struct Mine {
    producer: Producer,
}

// Wrong:
impl Worker for Mine {
    type Carries = Untyped;
    type Role = <Producer as Worker>::Role;
}
// Right:
// async fn send(store: pgqrs::Store, mine: Mine) -> pgqrs::Result<()> {
//     pgqrs::enqueue().message(&"hello").worker(&mine.producer).execute(&store).await?;
//     Ok(())
// }

fn main() {}
