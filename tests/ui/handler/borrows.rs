//! A handler that borrows from where it was written
//!
//! Handlers run on tasks that may outlive the function they were written in. A store is cheap to clone:
//! pass the handler a clone of its own.
//!
//! Fails with: E0373
//! rustc's own words: they name what is borrowed. Its advice to write `move` alone isn't enough, since
//! each call of the handler needs a store of its own.

use pgqrs::{Consumer, Delivery, Outcome, Store};

async fn work(consumer: Consumer, store: Store) -> pgqrs::Result<()> {
    consumer
        // Wrong:
        .run(|delivery: Delivery<serde_json::Value>| async {
            match delivery.ack(&store).await {
                Ok(()) => Outcome::Done,
                Err(_) => Outcome::Retry,
            }
        })
        // Right:
        // .run(move |delivery: Delivery<serde_json::Value>| {
        //     let store = store.clone();
        //     async move {
        //         match delivery.ack(&store).await {
        //             Ok(()) => Outcome::Done,
        //             Err(_) => Outcome::Retry,
        //         }
        //     }
        // })
        .await?;
    Ok(())
}

fn main() {}
