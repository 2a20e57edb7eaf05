//! A handler that borrows a local variable
//!
//! A handler runs on tasks that may outlive the function in which it
//! is written. A store is cheap to clone: give the handler a clone.
//!
//! Fails with: E0373
//! rustc's own words: the message names what is borrowed. `move` alone, as the
//! compiler suggests, isn't enough: each call of the handler needs a store of its own.

use pgqrs::{Consumer, Delivery, Outcome, Store};

async fn work(consumer: Consumer, store: Store) -> pgqrs::Result<()> {
    consumer
        // Wrong:
        .run(|delivery: Delivery<serde_json::Value>| async {
            match delivery.ack(&store).await {
                Ok(()) => Outcome::Done,
                Err(error) => Outcome::Retry(error.to_string()),
            }
        })
        // Right:
        // .run(move |delivery: Delivery<serde_json::Value>| {
        //     let store = store.clone();
        //     async move {
        //         match delivery.ack(&store).await {
        //             Ok(()) => Outcome::Done,
        //             Err(error) => Outcome::Retry(error.to_string()),
        //         }
        //     }
        // })
        .await?;
    Ok(())
}

fn main() {}
