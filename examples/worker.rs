//! A worker with a graceful shutdown: on Ctrl-C or SIGTERM it claims no more messages, lets its handlers finish, and
//! releases the messages that it has not started on.
//!
//! `DATABASE_URL=postgresql://… cargo run --example worker`. This example stops when the last of its
//! five messages was handled.

use std::{env, sync::Arc, time::Duration};

use pgqrs::{ConnectOptions, Delivery, Outcome, Queue, RetryPolicy};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

#[derive(Debug, Serialize, Deserialize)]
struct SendEmail {
    to: String,
}

const EMAILS: Queue<SendEmail> = Queue::new("emails");

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = env::var("DATABASE_URL").unwrap_or_else(|_| "postgresql://localhost/mydb".into());
    let store =
        pgqrs::connect_with(ConnectOptions::builder().url(url).install(true).build()).await?;
    store.queue(EMAILS).await?;
    let emails = ["ada", "bob", "eve", "zoe", "last"].map(|to| SendEmail { to: to.into() });
    pgqrs::enqueue()
        .messages(&emails)
        .to(EMAILS)
        .execute(&store)
        .await?;

    let consumer = pgqrs::consumer(EMAILS)
        .identity("my-service", 3001)
        .create(&store)
        .await?;

    let last = Arc::new(Notify::new());
    let run = consumer.run_with(Arc::clone(&last), send);
    let shutdown = async move {
        tokio::select! {
            () = pgqrs::shutdown_signal() => {}
            () = last.notified() => {}
        }
    };
    let report = run
        // Strictly in order, for what this example prints.
        .concurrency(1)
        .prefetch(0)
        .retry(RetryPolicy::fixed(Duration::from_secs(60)))
        .with_graceful_shutdown(shutdown)
        .await?;
    println!(
        "done: {}, retried: {}, dead: {}",
        report.done, report.retried, report.dead
    );

    let admin = pgqrs::admin(&store);
    for dead in admin.dead_letters(EMAILS, pgqrs::Page::default()).await? {
        println!("dead: {}", dead.reason);
    }
    admin.purge_queue(EMAILS).await?;
    admin.purge_dead_letters(EMAILS, Duration::ZERO).await?;
    Ok(())
}

async fn send(last: Arc<Notify>, delivery: Delivery<SendEmail>) -> Result<Outcome, &'static str> {
    let email = delivery.payload();
    match email.to.as_str() {
        "bob" => return Ok(Outcome::DeadLetter("has no address".into())),
        "eve" if delivery.attempt() == 1 => return Err("the mail server is away"),
        "last" => last.notify_one(),
        _ => {}
    }
    println!("to {}, attempt {}", email.to, delivery.attempt());
    Ok(Outcome::Done)
}

// Output:
// to ada, attempt 1
// to zoe, attempt 1
// to last, attempt 1
// done: 3, retried: 1, dead: 1
// dead: has no address
