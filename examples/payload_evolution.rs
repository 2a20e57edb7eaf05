//! Payloads that change while messages wait, and while old and new versions of a service run side by side:
//! a field is added, and then a new kind of message.
//!
//! `DATABASE_URL=postgresql://… cargo run --example payload_evolution`. The modules `v1` and `v2` are two
//! versions of one service.

use std::env;

use pgqrs::{ConnectOptions, Error};

/// The service as it was: it sends e-mails.
mod v1 {
    use pgqrs::Queue;
    use serde::{Deserialize, Serialize};

    // Tagged, although there is only one kind of task: adding a second one doesn't change the first.
    #[derive(Serialize, Deserialize)]
    #[serde(tag = "kind", rename_all = "snake_case")]
    pub(crate) enum Task {
        SendEmail { to: String },
    }

    pub(crate) const TASKS: Queue<Task> = Queue::new("tasks");
}

/// The service as it is now: an e-mail may have a subject, and there are invoices.
mod v2 {
    use pgqrs::Queue;
    use serde::{Deserialize, Serialize};

    #[derive(Debug, Serialize, Deserialize)]
    #[serde(tag = "kind", rename_all = "snake_case")]
    pub(crate) enum Task {
        SendEmail {
            to: String,
            // An added field has a default, for messages that were sent without it.
            #[serde(default = "no_subject")]
            subject: String,
        },
        PrintInvoice {
            number: u32,
        },
    }

    fn no_subject() -> String {
        "(no subject)".into()
    }

    pub(crate) const TASKS: Queue<Task> = Queue::new("tasks");
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = env::var("DATABASE_URL").unwrap_or_else(|_| "postgresql://localhost/mydb".into());
    let store =
        pgqrs::connect_with(ConnectOptions::builder().url(url).install(true).build()).await?;
    store.queue(v2::TASKS).await?;

    // 1. An old message, and a new consumer: the default fills in what is missing.
    let old = v1::Task::SendEmail { to: "ada".into() };
    pgqrs::enqueue()
        .message(&old)
        .to(v1::TASKS)
        .execute(&store)
        .await?;
    for delivery in pgqrs::dequeue().from(v2::TASKS).execute(&store).await? {
        println!("new consumer, old message: {:?}", delivery.payload()?);
        delivery.ack(&store).await?;
    }

    // 2. A new message with an added field, and an old consumer: it ignores the unknown field.
    let new = v2::Task::SendEmail {
        to: "bob".into(),
        subject: "hello".into(),
    };
    pgqrs::enqueue()
        .message(&new)
        .to(v2::TASKS)
        .execute(&store)
        .await?;
    for delivery in pgqrs::dequeue().from(v1::TASKS).execute(&store).await? {
        let v1::Task::SendEmail { to } = delivery.payload()?;
        println!("old consumer, added field: to {to}");
        delivery.ack(&store).await?;
    }

    // 3. A message of a new kind, and an old consumer. `dequeue()` returns an error for this one message, and still
    //    holds it: here it is put back for a consumer of the new version, without using an attempt. A loop does so by
    //    itself, as `rolling_deploy.rs` shows.
    let invoice = v2::Task::PrintInvoice { number: 7 };
    pgqrs::enqueue()
        .message(&invoice)
        .to(v2::TASKS)
        .execute(&store)
        .await?;
    for delivery in pgqrs::dequeue().from(v1::TASKS).execute(&store).await? {
        match delivery.payload() {
            Err(Error::Decode { source, .. }) => println!("old consumer, new kind: {source}"),
            _ => return Err("the old version can't know of invoices".into()),
        }
        delivery.later(std::time::Duration::ZERO, &store).await?;
    }
    for delivery in pgqrs::dequeue().from(v2::TASKS).execute(&store).await? {
        println!("new consumer, new kind: {:?}", delivery.payload()?);
        delivery.ack(&store).await?;
    }
    Ok(())
}

// Output:
// new consumer, old message: SendEmail { to: "ada", subject: "(no subject)" }
// old consumer, added field: to bob
// old consumer, new kind: unknown variant `print_invoice`, expected `send_email` at line 1 column 23
// new consumer, new kind: PrintInvoice { number: 7 }
