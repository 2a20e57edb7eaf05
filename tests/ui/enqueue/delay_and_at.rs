//! A delay and a time
//!
//! `.delay(..)` counts from now, and `.at(..)` sets a time: set one of them, since a message becomes visible once.
//!
//! Fails with: E0277

use chrono::{DateTime, Utc};

async fn send(store: pgqrs::Store, tomorrow: DateTime<Utc>) -> pgqrs::Result<()> {
    // Wrong:
    pgqrs::enqueue().message(&"hello").to("tasks").delay(300).at(tomorrow).execute(&store).await?;
    // Right:
    // pgqrs::enqueue().message(&"hello").to("tasks").at(tomorrow).execute(&store).await?;
    Ok(())
}

fn main() {}
