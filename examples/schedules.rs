//! A report each working day and a poll every few seconds, fired by the consumer that handles them: no other process is
//! needed, and any number of these may run.
//!
//! `DATABASE_URL=postgres://… cargo run --example schedules --features schedules`

use std::time::Duration;

use pgqrs::{ConnectOptions, Cron, Delivery, Missed, Outcome, Queue, cron};
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Job {
    DailyReport { recipients: Vec<String> },
    Poll { feed: String },
}

const JOBS: Queue<Job> = Queue::new("jobs");
/// Raised with each change of the schedules below: an older deployment beside this one then changes nothing.
const VERSION: u32 = 3;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let options = ConnectOptions::builder().url(std::env::var("DATABASE_URL")?);
    let store = pgqrs::connect_with(options.install(true).build()).await?;
    store.queue(JOBS).await?;

    let report = Job::DailyReport {
        recipients: vec!["ada@example.com".to_owned()],
    };
    let poll = Job::Poll {
        feed: "news".to_owned(),
    };
    // Known at run time only.
    let report_at = std::env::var("REPORT_AT").unwrap_or_else(|_| "0 9 * * MON-FRI".to_owned());
    let changes = store
        .schedules("example")
        .version(VERSION)
        .replace([
            pgqrs::schedule("daily-report", JOBS)
                .cron(Cron::parse(report_at)?)
                .zone("Europe/Berlin")
                .message(&report)
                .spec(),
            pgqrs::schedule("month-end", JOBS)
                .cron(cron!("0 18 L * *"))
                .message(&report)
                .spec(),
            pgqrs::schedule("poll", JOBS)
                .every(Duration::from_millis(500))
                .message(&poll)
                .missed(Missed::Skip {
                    older_than: Duration::from_secs(5),
                })
                .skip_if_unfinished()
                .spec(),
        ])
        .await?;
    println!(
        "{} are new, {} are gone",
        changes.created.len(),
        changes.deleted.len()
    );
    for schedule in pgqrs::admin(&store).schedules().await? {
        let times = schedule.upcoming(3)?;
        println!(
            "{}: the next {} times are known, in {}",
            schedule.name,
            times.len(),
            schedule.zone
        );
    }
    // Each at 9 o'clock, although clocks go forward in between.
    let spring = "2026-03-28T00:00:00Z".parse()?;
    for time in cron!("0 9 * * *").times(spring, "Europe/Berlin")?.take(2) {
        println!("{time}");
    }

    let consumer = pgqrs::consumer(JOBS).create(&store).await?;
    let handle = consumer.handle();
    let report = consumer
        .run(move |delivery: Delivery<Job>| {
            let handle = handle.clone();
            async move {
                let is_scheduled = delivery.scheduled_for().is_some();
                println!("{:?}, scheduled: {is_scheduled}", delivery.payload());
                // An example comes to an end.
                handle.stop();
                Outcome::Done
            }
        })
        .await?;
    println!("handled {}", report.done);
    Ok(())
}

// Output:
// 3 are new, 0 are gone
// daily-report: the next 3 times are known, in Europe/Berlin
// month-end: the next 3 times are known, in UTC
// poll: the next 3 times are known, in UTC
// 2026-03-28 08:00:00 UTC
// 2026-03-29 07:00:00 UTC
// Poll { feed: "news" }, scheduled: true
// handled 1
