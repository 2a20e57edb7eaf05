//! A rolling deploy: for a while, two versions of a service take messages from one queue, and the old one gets a kind
//! that only the new one knows. Nothing is lost, and no attempt is used.
//!
//! `DATABASE_URL=postgresql://… cargo run --example rolling_deploy`. The modules `v1` and `v2` are the two deployed
//! versions; here they run in one process.

use std::{env, time::Duration};

use pgqrs::{ConnectOptions, Page, Store, UndecodablePolicy};
use tokio::time::sleep;

/// The service as it was.
mod v1 {
    use pgqrs::{Delivery, Outcome, Queue};
    use serde::{Deserialize, Serialize};

    #[derive(Serialize, Deserialize)]
    #[serde(tag = "kind", rename_all = "snake_case")]
    pub(crate) enum Task {
        SendEmail { to: String },
        SendText { number: String },
    }

    pub(crate) const TASKS: Queue<Task> = Queue::new("tasks");

    pub(crate) async fn handle(delivery: Delivery<Task>) -> Outcome {
        match delivery.payload() {
            Task::SendEmail { to } => println!("v1 sends an e-mail to {to}"),
            Task::SendText { number } => println!("v1 sends a text to {number}"),
        }
        Outcome::Done
    }
}

/// The service as it is now: there are invoices, too.
mod v2 {
    use pgqrs::{Delivery, Outcome, Queue};
    use serde::{Deserialize, Serialize};

    #[derive(Serialize, Deserialize)]
    #[serde(tag = "kind", rename_all = "snake_case")]
    pub(crate) enum Task {
        SendEmail { to: String },
        SendText { number: String },
        PrintInvoice { number: u32 },
    }

    pub(crate) const TASKS: Queue<Task> = Queue::new("tasks");

    pub(crate) async fn handle(delivery: Delivery<Task>) -> Outcome {
        // Without an arm for invoices, this wouldn't compile.
        match delivery.payload() {
            Task::SendEmail { to } => println!("v2 sends an e-mail to {to}"),
            Task::SendText { number } => println!("v2 sends a text to {number}"),
            Task::PrintInvoice { number } => {
                println!("v2 prints invoice {number}, attempt {}", delivery.attempt());
            }
        }
        Outcome::Done
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = env::var("DATABASE_URL").unwrap_or_else(|_| "postgresql://localhost/mydb".into());
    let store =
        pgqrs::connect_with(ConnectOptions::builder().url(url).install(true).build()).await?;
    store.queue(v2::TASKS).await?;

    // 1. The old version runs.
    let consumer = pgqrs::consumer(v1::TASKS).create(&store).await?;
    let v1 = consumer.handle();
    // By default a minute, which would be long for an example.
    let often = UndecodablePolicy::builder().wait(Duration::from_millis(100));
    let run = consumer.run(v1::handle).undecodable(often.build());
    let old = tokio::spawn(run);
    let email = v1::Task::SendEmail { to: "ada".into() };
    pgqrs::enqueue()
        .message(&email)
        .to(v1::TASKS)
        .execute(&store)
        .await?;
    until_empty(&store).await?;

    // 2. A producer of the new version is deployed before any consumer of it: the old one gets the invoice, can't decode
    //    it, and puts it back.
    let invoice = v2::Task::PrintInvoice { number: 7 };
    pgqrs::enqueue()
        .message(&invoice)
        .to(v2::TASKS)
        .execute(&store)
        .await?;
    let admin = pgqrs::admin(&store);
    loop {
        let waiting = admin.messages(v2::TASKS, Page::default()).await?;
        if let [invoice] = &waiting[..]
            && invoice.undecodable_since.is_some()
        {
            break;
        }
        sleep(Duration::from_millis(20)).await;
    }
    println!("v1 can't decode the invoice, which waits");

    // 3. The new version runs beside the old one, and gets it sooner or later.
    let consumer = pgqrs::consumer(v2::TASKS).create(&store).await?;
    let v2 = consumer.handle();
    let new = tokio::spawn(consumer.run(v2::handle));
    until_empty(&store).await?;

    // 4. The old version is stopped.
    v1.stop();
    v2.stop();
    let (old, new) = (old.await??, new.await??);
    println!("v1 has handled {}, and v2 {}", old.done, new.done);
    println!("{} dead letters", old.dead + new.dead);
    Ok(())
}

async fn until_empty(store: &Store) -> pgqrs::Result<()> {
    let admin = pgqrs::admin(store);
    while !admin.messages(v2::TASKS, Page::default()).await?.is_empty() {
        sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

// Output:
// v1 sends an e-mail to ada
// v1 can't decode the invoice, which waits
// v2 prints invoice 7, attempt 1
// v1 has handled 1, and v2 1
// 0 dead letters
