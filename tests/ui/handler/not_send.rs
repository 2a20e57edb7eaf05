//! A handler that can't move between threads
//!
//! The runtime moves tasks between threads, also while they wait. What a handler holds across an
//! `.await` must bear that.
//!
//! Fails with: no code
//! rustc's own words: they name the value and the `.await` that it is held across, which ours couldn't.
//! The value is the handler's own, here `text`.

use pgqrs::{Consumer, Delivery, Outcome};

async fn work(consumer: Consumer) -> pgqrs::Result<()> {
    consumer
        .run(|delivery: Delivery<serde_json::Value>| async move {
            // Wrong:
            let text = std::rc::Rc::new(delivery.raw_payload().to_owned());
            // Right:
            // let text = std::sync::Arc::new(delivery.raw_payload().to_owned());
            tokio::task::yield_now().await;
            println!("{text}");
            Outcome::Done
        })
        .await?;
    Ok(())
}

fn main() {}
