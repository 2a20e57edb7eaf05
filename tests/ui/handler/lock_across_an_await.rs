//! A handler that holds a lock while it waits
//!
//! The guard of a `std::sync::Mutex` can't move between threads, and tasks
//! that wait for the lock would block theirs. Drop it before the `.await`.
//!
//! Fails with: no code
//! rustc's own words: the message names the guard, and the `.await` across which it is held.

use std::sync::{Arc, Mutex};

use pgqrs::{Consumer, Delivery, Outcome};

async fn work(consumer: Consumer, seen: Arc<Mutex<u64>>) -> pgqrs::Result<()> {
    consumer
        .run_with(seen, |seen, _: Delivery<serde_json::Value>| async move {
            // Wrong:
            let mut seen = seen.lock().expect("not poisoned");
            *seen += 1;
            // Right:
            // *seen.lock().expect("not poisoned") += 1;
            tokio::task::yield_now().await;
            Outcome::Done
        })
        .await?;
    Ok(())
}

fn main() {}
