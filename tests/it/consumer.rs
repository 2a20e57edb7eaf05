//! `consumer().run(..)`: what the loop does with what handlers do, and with what breaks.

mod ack_statement;
mod around;
mod chunks;
mod crashes;
mod in_transaction;
mod later;
mod leases;
mod outcomes;
mod stopping;
mod undecodable;
mod waking;

use std::{
    process::Stdio,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
    time::Duration,
};

use pgqrs::{
    Delivery, Error, Outcome, Page, Queue, QueueOptions, RetryPolicy, UndecodablePolicy, Worker,
    WorkerStatus,
};
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    sync::{Barrier, Notify, Semaphore},
};

use crate::{
    examples::compiled,
    support::{
        TestResult, claim, connect,
        consumers::{Seen, consumer, drained, gate, pass, prepare, start},
        count, expire, newcomer, now, one, places, send,
        server::Server,
        until, url, with_queues,
    },
};

/// A process of `tests/process/consumer.rs`, and what it says.
struct Process {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Process {
    fn start(pool: &PgPool) -> Result<Self, Box<dyn std::error::Error>> {
        Self::of(pool, "consumer_process")
    }

    fn of(pool: &PgPool, example: &str) -> Result<Self, Box<dyn std::error::Error>> {
        let mut child = Command::new(compiled(example))
            .env("DATABASE_URL", url(pool))
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        Ok(Self { child, lines })
    }

    /// A word, and the payload that it is about; `None` at the process's end.
    async fn said(&mut self) -> Result<Option<(String, String)>, Box<dyn std::error::Error>> {
        let line = tokio::time::timeout(Duration::from_secs(30), self.lines.next_line()).await??;
        let words = line
            .as_deref()
            .map(|line| line.split_once(' ').expect("two words"));
        Ok(words.map(|(word, payload)| (word.to_owned(), payload.to_owned())))
    }
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn every_message_is_handled_and_acknowledged(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let payloads: Vec<u64> = (0..1_000).collect();
    send(&store, &payloads).await?;
    let seen = Seen::default();
    let running = start(consumer().create(&store).await?, seen.handler());
    drained(&pool).await;
    let report = running.stop().await?;
    assert_eq!(report.done, 1_000);
    assert_eq!((report.retried, report.dead, report.lost), (0, 0, 0));
    let once = payloads.iter().map(|n| (n.to_string(), 1));
    assert_eq!(seen.times(), once.collect());
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn acknowledgements_share_statements(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    send(&store, &(0..1_000).collect::<Vec<_>>()).await?;
    sqlx::raw_sql(
        "create sequence deletions;
         create function count_deletion() returns trigger language plpgsql as
             $$ begin perform nextval('deletions'); return null; end $$;
         create trigger count_deletion after delete on pgqrs.messages
             for each statement execute function count_deletion();",
    )
    .execute(&pool)
    .await?;
    let running = start(consumer().create(&store).await?, Seen::default().handler());
    drained(&pool).await;
    assert_eq!(running.stop().await?.done, 1_000);
    let deletions: i64 = sqlx::query_scalar("select last_value from deletions")
        .fetch_one(&pool)
        .await?;
    assert!((1..250).contains(&deletions), "{deletions} statements");
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn no_more_handlers_run_at_once_than_its_concurrency(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    pgqrs::enqueue()
        .messages(&[0; 51])
        .to("tasks")
        .execute(&store)
        .await?;
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    // Nobody passes before three are there.
    let three = Arc::new(Barrier::new(3));
    let running = start(consumer().concurrency(3).create(&store).await?, {
        let most = Arc::clone(&most);
        move |_: Delivery<Value>| {
            let (now, most) = (Arc::clone(&now), Arc::clone(&most));
            let three = Arc::clone(&three);
            async move {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                three.wait().await;
                now.fetch_sub(1, Ordering::SeqCst);
                Outcome::Done
            }
        }
    });
    drained(&pool).await;
    running.stop().await?;
    assert_eq!(most.load(Ordering::SeqCst), 3);
    Ok(())
}

type BoxedDone = std::pin::Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// A handler that waits at a gate.
fn wait_at(
    gate: &Arc<Semaphore>,
) -> impl Fn(Delivery<Value>) -> BoxedDone + Send + Sync + 'static + use<> {
    let gate = Arc::clone(gate);
    move |delivery| {
        let gate = Arc::clone(&gate);
        Box::pin(async move {
            pass(&gate).await;
            drop(delivery);
            Outcome::Done
        })
    }
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn bad_options_and_absent_queues_are_refused(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    for lease in [Duration::ZERO, Duration::from_secs(86_401)] {
        let consumer = consumer().lease(lease).create(&store).await?;
        let refused = consumer.run(Seen::default().handler()).await;
        assert!(
            matches!(refused, Err(Error::LeaseOutOfRange { .. })),
            "{refused:?}"
        );
    }
    let refused = pgqrs::consumer("missing")
        .identity("my-service", 1)
        .create(&store)
        .await;
    assert!(
        matches!(refused, Err(Error::QueueNotFound { .. })),
        "{refused:?}"
    );
    Ok(())
}
