//! `tail`.

use std::{process::Stdio, time::Duration};

use pgqrs::RetryPolicy;
use serde_json::Value;
use sqlx::PgPool;
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStderr, ChildStdout},
    time::timeout,
};

use crate::support::{TestResult, pgqrs, tasks, url};

struct Tail {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    notes: Lines<BufReader<ChildStderr>>,
}

impl Tail {
    /// Starts it, and waits until it listens.
    async fn start(pool: &PgPool, arguments: &[&str]) -> Self {
        let mut arguments = [&["tail", "tasks"], arguments].concat();
        if !arguments.contains(&"--interval") {
            arguments.extend(["--interval", "50ms"]);
        }
        let mut command = pgqrs(&arguments);
        command.env("DATABASE_URL", url(pool));
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it was built");
        let notes = child.stderr.take().expect("it is piped");
        let mut notes = BufReader::new(notes).lines();
        let first = notes.next_line().await.expect("it is text");
        let first = first.expect("it says that it has started");
        assert!(first.contains("events of queue `tasks`"), "{first}");
        let out = child.stdout.take().expect("it is piped");
        Self {
            child,
            lines: BufReader::new(out).lines(),
            notes,
        }
    }

    async fn signal(&self, name: &str) -> TestResult {
        let id = self.child.id().expect("it runs").to_string();
        let kill = tokio::process::Command::new("kill")
            .args([&format!("-{name}"), &id])
            .status();
        assert!(kill.await?.success());
        Ok(())
    }

    async fn next(&mut self) -> String {
        let line = timeout(Duration::from_secs(30), self.lines.next_line()).await;
        line.expect("an event")
            .expect("it is text")
            .expect("it runs")
    }

    /// The next event and the rest of its line, without the time.
    async fn event(&mut self) -> String {
        let line = self.next().await;
        line.split_whitespace()
            .skip(1)
            .collect::<Vec<_>>()
            .join(" ")
    }
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn it_prints_the_life_of_a_message_as_it_happens(pool: PgPool) -> TestResult {
    let store = tasks(&pool).await?;
    // What is there already is no news.
    pgqrs::enqueue()
        .message(&"before")
        .to("tasks")
        .delay(3_600)
        .execute(&store)
        .await?;
    let mut tail = Tail::start(&pool, &[]).await;

    let id = pgqrs::enqueue()
        .message(&1)
        .to("tasks")
        .execute(&store)
        .await?[0];
    assert_eq!(tail.event().await, format!("sent {id}"));
    let claim = async || -> Result<_, Box<dyn std::error::Error>> {
        let dequeue = pgqrs::dequeue().from("tasks").limit(1);
        let dequeue = dequeue.retry(RetryPolicy::fixed(Duration::ZERO));
        Ok(dequeue.execute(&store).await?.pop().expect("one is ready"))
    };
    let delivery = claim().await?;
    assert_eq!(tail.event().await, format!("claimed {id} attempt 1"));
    delivery.nack(&store).await?;
    // A failed attempt without an error: it is ready again.
    assert_eq!(tail.event().await, format!("released {id}"));
    let delivery = claim().await?;
    assert_eq!(tail.event().await, format!("claimed {id} attempt 2"));
    delivery.dead_letter("no such address", &store).await?;
    assert_eq!(
        tail.event().await,
        format!("dead {id} attempt 2, no such address")
    );

    let id = pgqrs::enqueue()
        .message(&2)
        .to("tasks")
        .execute(&store)
        .await?[0];
    assert_eq!(tail.event().await, format!("sent {id}"));
    let delivery = claim().await?;
    assert_eq!(tail.event().await, format!("claimed {id} attempt 1"));
    delivery.ack(&store).await?;
    assert_eq!(tail.event().await, format!("done {id}"));
    let id = pgqrs::enqueue()
        .message(&3)
        .to("tasks")
        .execute(&store)
        .await?[0];
    assert_eq!(tail.event().await, format!("sent {id}"));
    claim().await?.archive(&store).await?;
    let mut last = tail.event().await;
    if last.starts_with("claimed") {
        last = tail.event().await;
    }
    assert_eq!(last, format!("archived {id}"));
    assert!(tail.child.try_wait()?.is_none(), "it goes on");
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_failed_attempt_has_its_error_and_its_next_time(pool: PgPool) -> TestResult {
    let store = tasks(&pool).await?;
    let mut tail = Tail::start(&pool, &["--only", "failed,dead", "--json"]).await;
    let id = pgqrs::enqueue()
        .message(&1)
        .to("tasks")
        .max_attempts(2)
        .execute(&store)
        .await?[0];
    let consumer = pgqrs::consumer("tasks").create(&store).await?;
    let handle = consumer.handle();
    async fn fail(_: pgqrs::Delivery<Value>) -> std::io::Result<()> {
        Err(std::io::Error::other("the mail server refused it"))
    }
    let retry = RetryPolicy::fixed(Duration::from_secs(1));
    let run = tokio::spawn(consumer.run(fail).retry(retry).into_future());
    // A check that fails must not leave the consumer running: the test's pool would wait for it.
    let events = [tail.next().await, tail.next().await];
    handle.stop();
    run.await??;
    let [failed, dead] = events;
    let failed: Value = serde_json::from_str(&failed)?;
    assert_eq!(failed["event"], "failed");
    assert_eq!(failed["id"], id.get());
    assert_eq!(failed["attempt"], 1);
    assert_eq!(failed["error"], "the mail server refused it");
    assert!(failed["next_at"].is_string(), "{failed}");
    let dead: Value = serde_json::from_str(&dead)?;
    assert_eq!(dead["event"], "dead");
    assert_eq!(dead["reason"], "attempts used up");
    Ok(())
}

/// It is stopped while they are sent, claimed and settled.
#[cfg(unix)]
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn what_comes_and_goes_between_two_looks_is_found_where_it_went_or_counted(
    pool: PgPool,
) -> TestResult {
    let store = tasks(&pool).await?;
    let mut tail = Tail::start(&pool, &[]).await;
    tail.signal("STOP").await?;
    for n in 0..3 {
        let message = pgqrs::enqueue().message(&n).to("tasks");
        message.execute(&store).await?;
    }
    let deliveries = pgqrs::dequeue().from("tasks").limit(3).execute(&store);
    let [dead, archived, gone] = deliveries.await?.try_into().expect("all are ready");
    let ids = (dead.id(), archived.id());
    dead.dead_letter("no such address", &store).await?;
    archived.archive(&store).await?;
    gone.ack(&store).await?;
    tail.signal("CONT").await?;
    let mut events = Vec::new();
    for _ in 0..4 {
        events.push(tail.event().await);
    }
    let (dead, archived) = ids;
    assert_eq!(
        events,
        [
            format!("sent {dead}"),
            format!("dead {dead} attempt 1, no such address"),
            format!("sent {archived}"),
            format!("archived {archived}"),
        ]
    );
    // A consumer that has started since then reports all three with its first heartbeat, and later two more.
    let consumer =
        "insert into pgqrs.workers (kind, hostname, port, queue_id, stale_after, settled)
                    select 'consumer', 'here', 0, id, '1 hour', 3 from pgqrs.queues";
    sqlx::query(consumer).execute(&pool).await?;
    assert_eq!(
        tail.event().await,
        "missed at least 1 message, handled between two looks"
    );
    sqlx::query("update pgqrs.workers set settled = 5, heartbeat_at = now()")
        .execute(&pool)
        .await?;
    assert_eq!(
        tail.event().await,
        "missed at least 2 messages, handled between two looks"
    );
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_message_whose_transaction_commits_after_a_later_one_is_sent_too(
    pool: PgPool,
) -> TestResult {
    let store = tasks(&pool).await?;
    let mut tail = Tail::start(&pool, &[]).await;
    let mut open = pool.begin().await?;
    let later = async |n: i32| -> pgqrs::Result<_> {
        let delayed = pgqrs::enqueue().message(&n).to("tasks").delay(3_600);
        Ok(delayed.execute(&store).await?[0])
    };
    let delayed = pgqrs::enqueue().message(&0).to("tasks").delay(3_600);
    let first = delayed.execute(&mut open).await?[0];
    let second = later(1).await?;
    assert_eq!(tail.event().await, format!("sent {second}"));
    open.commit().await?;
    assert_eq!(tail.event().await, format!("sent {first}"));
    let third = later(2).await?;
    assert_eq!(tail.event().await, format!("sent {third}"));
    Ok(())
}

/// It would look once in an hour.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_message_that_is_sent_wakes_it(pool: PgPool) -> TestResult {
    let store = tasks(&pool).await?;
    let mut tail = Tail::start(&pool, &["--interval", "1h"]).await;
    for n in 0..3 {
        let sent = pgqrs::enqueue().message(&n).to("tasks").execute(&store);
        let id = sent.await?[0];
        assert_eq!(tail.event().await, format!("sent {id}"));
    }
    Ok(())
}

/// Whatever it didn't see is counted: none too many, and none twice.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn of_a_fast_consumer_each_message_is_seen_or_missed_once(pool: PgPool) -> TestResult {
    const ALL: usize = 3_000;
    let store = tasks(&pool).await?;
    let mut tail = Tail::start(&pool, &["--json", "--only", "done,missed"]).await;
    let consumer = pgqrs::consumer("tasks").create(&store).await?;
    let id = consumer.id();
    let handle = consumer.handle();
    async fn ok(_: pgqrs::Delivery<Value>) -> std::io::Result<()> {
        Ok(())
    }
    let run = tokio::spawn(consumer.run(ok).concurrency(50).into_future());
    for _ in 0..ALL / 100 {
        let batch: Vec<_> = (0..100).collect();
        pgqrs::enqueue()
            .messages(&batch)
            .to("tasks")
            .execute(&store)
            .await?;
    }
    let settled = async || -> sqlx::Result<i64> {
        sqlx::query_scalar("select count(*) from pgqrs.messages")
            .fetch_one(&pool)
            .await
    };
    timeout(Duration::from_secs(60), async {
        while settled().await.is_ok_and(|left| left > 0) {
            tokio::task::yield_now().await;
        }
    })
    .await?;
    handle.stop();
    run.await??;
    // Its last heartbeat, as its end may have been before the next.
    sqlx::query("update pgqrs.workers set settled = $1, heartbeat_at = now() where id = $2")
        .bind(ALL as i64)
        .bind(id.get())
        .execute(&pool)
        .await?;
    let (mut seen, mut missed) = (std::collections::BTreeSet::new(), 0);
    while seen.len() as u64 + missed < ALL as u64 {
        let event: Value = serde_json::from_str(&tail.next().await)?;
        match event["event"].as_str() {
            Some("missed") => missed += event["count"].as_u64().expect("a number"),
            _ => assert!(seen.insert(event["id"].as_i64()), "twice: {event}"),
        }
    }
    assert_eq!(seen.len() as u64 + missed, ALL as u64);
    Ok(())
}

#[cfg(unix)]
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn an_interrupt_ends_it_with_its_code_and_it_says_what_it_may_have_missed(
    pool: PgPool,
) -> TestResult {
    let store = tasks(&pool).await?;
    let consumer =
        "insert into pgqrs.workers (kind, hostname, port, queue_id, stale_after, settled)
                    select 'consumer', 'here', 0, id, '1 hour', 5 from pgqrs.queues";
    sqlx::query(consumer).execute(&pool).await?;
    let mut tail = Tail::start(&pool, &[]).await;
    let message = pgqrs::enqueue().message(&1).to("tasks");
    let id = message.execute(&store).await?[0];
    assert_eq!(tail.event().await, format!("sent {id}"));
    pgqrs::admin(&store).cancel("tasks", id).await?;
    assert_eq!(tail.event().await, format!("done {id}"));
    sqlx::query("update pgqrs.workers set settled = 1239")
        .execute(&pool)
        .await?;
    tail.signal("INT").await?;
    let ended = timeout(Duration::from_secs(30), tail.child.wait()).await??;
    assert_eq!(ended.code(), Some(130));
    let last = tail.notes.next_line().await?.unwrap_or_default();
    assert!(last.contains("saw 1 message leave the queue"), "{last}");
    assert!(last.contains("reported 1,234 meanwhile"), "{last}");
    Ok(())
}
