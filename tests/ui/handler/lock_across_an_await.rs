//! A handler that holds a lock while it waits
//!
//! A guard of `std::sync::Mutex` can't move between threads, and would keep the others waiting. End its scope before the
//! `.await`.
//!
//! Fails with: no code
//! rustc's own words: they name the guard and the `.await` that it is held across, which ours couldn't.

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
