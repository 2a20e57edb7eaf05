//! A handler that can't move between threads
//!
//! A task may move to another thread at each `.await`,
//! so what a handler holds across one must be `Send`.
//!
//! Fails with: no code
//! rustc's own words: the message names the value that isn't
//! `Send`, here `text`, and the `.await` across which it is held.

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
