//! Layers of tower around a handler: a limit on how many run at once across all queues, and one on how long each takes.
//!
//! `DATABASE_URL=postgresql://… cargo run --example tower`

use std::{env, sync::Arc, time::Duration};

use pgqrs::{ConnectOptions, Delivery, Next, Outcome, Queue};
use tokio::sync::{Notify, Semaphore};
use tower::{BoxError, ServiceBuilder, ServiceExt, limit::GlobalConcurrencyLimitLayer, service_fn};

const EMAILS: Queue<String> = Queue::new("emails");

/// Passes a delivery through layers of tower to the handler. A layer's own error, such as a timeout, is a failed
/// attempt.
fn with_layers<T: Send + 'static>(
    delivery: Delivery<T>,
    next: Next<Delivery<T>>,
    at_once: Arc<Semaphore>,
) -> impl Future<Output = Result<Outcome, BoxError>> + Send {
    let mut next = Some(next);
    let handler = service_fn(move |delivery| {
        let next = next.take();
        async move {
            match next {
                Some(next) => next.run(delivery).await,
                // A layer that calls the handler again, which needs another delivery.
                None => Ok(Outcome::Retry("overloaded".into())),
            }
        }
    });
    ServiceBuilder::new()
        .layer(GlobalConcurrencyLimitLayer::with_semaphore(at_once))
        .timeout(Duration::from_secs(10))
        .service(handler)
        .oneshot(delivery)
}

async fn send(delivery: Delivery<String>) -> pgqrs::Result<()> {
    println!("to {}", delivery.payload());
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = env::var("DATABASE_URL").unwrap_or_else(|_| "postgresql://localhost/mydb".into());
    let store =
        pgqrs::connect_with(ConnectOptions::builder().url(url).install(true).build()).await?;
    store.queue(EMAILS).await?;
    let addresses = ["ada@example.com", "bob@example.com"].map(str::to_owned);
    let enqueue = pgqrs::enqueue().messages(&addresses).to(EMAILS);
    enqueue.execute(&store).await?;

    let at_once = Arc::new(Semaphore::new(1));
    let (handled, last) = (Arc::new(Notify::new()), addresses[1].clone());
    let stop = Arc::clone(&handled);
    let consumer = pgqrs::consumer(EMAILS).create(&store).await?;
    let report = consumer
        .run(send)
        .concurrency(1)
        .around(move |delivery, next| with_layers(delivery, next, Arc::clone(&at_once)))
        .around(move |delivery, next| {
            let (is_last, handled) = (*delivery.payload() == last, Arc::clone(&handled));
            async move {
                let outcome = next.run(delivery).await;
                if is_last {
                    handled.notify_one();
                }
                outcome
            }
        })
        .with_graceful_shutdown(async move { stop.notified().await })
        .await?;
    println!("done: {}", report.done);
    Ok(())
}

// Output:
// to ada@example.com
// to bob@example.com
// done: 2
