//! A worker process of a service: two queues, shared state, and one shutdown for both.
//!
//! `DATABASE_URL=postgresql://… cargo run --example service`. It runs until Ctrl-C or SIGTERM, or until it has handled
//! its own four messages.

use std::{
    env,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use pgqrs::{ConnectOptions, Delivery, Queue};
use serde::{Deserialize, Serialize};
use tokio::{sync::Notify, task::JoinSet};

#[derive(Debug, Serialize, Deserialize)]
struct Email {
    to: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Invoice {
    number: u32,
}

const EMAILS: Queue<Email> = Queue::new("emails");
const INVOICES: Queue<Invoice> = Queue::new("invoices");

/// State shared by all handlers.
struct App {
    sender: String,
    handled: AtomicU32,
    all_handled: Notify,
}

impl App {
    fn count(&self) {
        if self.handled.fetch_add(1, Ordering::Relaxed) == 3 {
            self.all_handled.notify_waiters();
        }
    }
}

async fn send(app: Arc<App>, delivery: Delivery<Email>) -> pgqrs::Result<()> {
    println!("from {} to {}", app.sender, delivery.payload().to);
    app.count();
    Ok(())
}

async fn print(app: Arc<App>, delivery: Delivery<Invoice>) -> pgqrs::Result<()> {
    println!("invoice {}", delivery.payload().number);
    app.count();
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = env::var("DATABASE_URL").unwrap_or_else(|_| "postgresql://localhost/mydb".into());
    let store =
        pgqrs::connect_with(ConnectOptions::builder().url(url).install(true).build()).await?;
    store.queue(EMAILS).await?;
    store.queue(INVOICES).await?;
    let app = Arc::new(App {
        sender: "shop@example.com".into(),
        handled: AtomicU32::new(0),
        all_handled: Notify::new(),
    });

    let stop = |app: Arc<App>| async move {
        tokio::select! {
            () = pgqrs::shutdown_signal() => {}
            () = app.all_handled.notified() => {}
        }
    };
    let emails = pgqrs::consumer(EMAILS).create(&store).await?;
    let invoices = pgqrs::consumer(INVOICES).create(&store).await?;
    let mut runs = JoinSet::new();
    let emails = emails.run_with(app.clone(), send).concurrency(16);
    runs.spawn(emails.with_graceful_shutdown(stop(app.clone())));
    let invoices = invoices.run_with(app.clone(), print).concurrency(2);
    runs.spawn(invoices.with_graceful_shutdown(stop(app.clone())));

    let payloads = ["ada", "bob"].map(|to| Email { to: to.into() });
    let enqueue = pgqrs::enqueue().messages(&payloads).to(EMAILS);
    enqueue.execute(&store).await?;
    let payloads = [1, 2].map(|number| Invoice { number });
    let enqueue = pgqrs::enqueue().messages(&payloads).to(INVOICES);
    enqueue.execute(&store).await?;

    let mut done = 0;
    while let Some(ended) = runs.join_next().await {
        done += ended??.done;
    }
    println!("done: {done}");
    Ok(())
}

// Output, in any order:
// from shop@example.com to ada
// from shop@example.com to bob
// invoice 1
// invoice 2
// done: 4
