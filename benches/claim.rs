//! A claim of ten messages, with a backlog behind them, delayed messages in front of them, or dead rows among them.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use pgqrs::{Delivery, Store};
use serde_json::Value;
use tokio::{sync::mpsc, time::timeout};

use crate::{
    Outcome,
    figures::Samples,
    fresh,
    meter::Meter,
    report::{Rounds, Table},
};

const LIMIT: usize = 10;
/// Claims in each round: several times as long as a rescan behind what is in flight, of which a round has at most one.
const BLOCK: usize = 80;
const IN_FLIGHT: usize = 10_000;
const HOUR: Duration = Duration::from_secs(3_600);

pub(crate) async fn run(url: &str, meter: &Meter, quick: bool) -> Outcome<Vec<Table>> {
    let store = fresh(url).await?;
    let (backlogs, delayed, rounds): (&[usize], _, _) = if quick {
        (&[1_000, 10_000, 100_000], 50_000, 8)
    } else {
        (&[1_000, 10_000, 100_000, 1_000_000], 200_000, 50)
    };
    eprintln!("filling the queues");
    let mut queues = Vec::new();
    for backlog in backlogs {
        let queue = format!("backlog of {backlog}");
        fill(&store, &queue, *backlog, 0).await?;
        queues.push(queue);
    }
    let queue = format!("1000 behind {delayed} delayed");
    fill(&store, &queue, 1_000, delayed).await?;
    queues.push(queue);
    let in_flight = format!("1000 behind {IN_FLIGHT} in flight");
    fill(&store, &in_flight, IN_FLIGHT + 1_000, 0).await?;
    queues.push(in_flight.clone());
    sqlx::query("vacuum analyze pgqrs.messages")
        .execute(store.pool())
        .await?;

    // By another process, as it were: one whose watermark ours doesn't know.
    let other = Store::from(store.pool().clone());
    let dequeue = pgqrs::dequeue().from(in_flight.as_str());
    let dequeue = dequeue.limit(IN_FLIGHT as u32).lease(HOUR);
    if dequeue.execute(&other).await?.len() != IN_FLIGHT {
        return Err("not all of them are in flight".into());
    }
    let title = format!("claims of {LIMIT}, {BLOCK} a round");
    let mut table = Rounds::new(meter, title, rounds);
    while table.next() {
        for queue in &queues {
            claim(&mut table, &store, queue).await?;
        }
        let newcomer = Store::from(store.pool().clone());
        claim_once(&mut table, &newcomer, &in_flight).await?;
    }
    for queue in &queues[1..] {
        table.at_most(
            2.0,
            queue,
            &queues[0],
            format!("claim, {queue}, to {}", queues[0]),
        );
    }
    Ok(vec![
        table.finish(),
        old_snapshot(meter, &store, if quick { 60_000 } else { 1_000_000 }).await?,
        late_commits(meter, &store, if quick { 5 } else { 50 }).await?,
    ])
}

/// Fills a queue before anything is measured.
pub(crate) async fn fill(store: &Store, queue: &str, ready: usize, delayed: usize) -> Outcome {
    store.queue(queue).await?;
    sqlx::query(
        "insert into pgqrs.messages (queue_id, priority, visible_at, payload)
         select q.id, 2, now() + case when n > $2 then interval '1 day' else interval '0' end,
             json_build_object('n', n, 'text', repeat('x', 170))
         from pgqrs.queues q, generate_series(1, $2 + $3) n where q.name = $1",
    )
    .bind(queue)
    .bind(i32::try_from(ready)?)
    .bind(i32::try_from(delayed)?)
    .execute(store.pool())
    .await?;
    Ok(())
}

/// The first claim of a process, which has no watermark yet.
async fn claim_once(table: &mut Rounds<'_>, store: &Store, queue: &str) -> Outcome {
    let deliveries = table
        .measure("the same, first claim of a process", LIMIT, async |calls| {
            let started = Instant::now();
            let dequeue = pgqrs::dequeue().from(queue).limit(LIMIT as u32);
            let deliveries = dequeue.execute(store).await?;
            calls.push(started.elapsed());
            Ok(deliveries)
        })
        .await?;
    refill(store, queue, deliveries).await
}

async fn refill(
    store: &Store,
    queue: &str,
    deliveries: Vec<Delivery<Value, pgqrs::Unchecked>>,
) -> Outcome {
    let messages = vec!["x".repeat(190); deliveries.len()];
    pgqrs::ack_all(deliveries, store).await?;
    pgqrs::enqueue()
        .messages(&messages)
        .to(queue)
        .execute(store)
        .await?;
    Ok(())
}

/// Only the claims are measured. Claimed messages are put back, so that the backlog stays the same.
async fn claim(table: &mut Rounds<'_>, store: &Store, queue: &str) -> Outcome {
    let deliveries = table
        .measure(queue, LIMIT * BLOCK, async |calls| {
            let mut all = Vec::with_capacity(LIMIT * BLOCK);
            for _ in 0..BLOCK {
                let started = Instant::now();
                let dequeue = pgqrs::dequeue().from(queue).limit(LIMIT as u32);
                all.extend(dequeue.execute(store).await?);
                calls.push(started.elapsed());
            }
            Ok(all)
        })
        .await?;
    if deliveries.len() != LIMIT * BLOCK {
        return Err(format!("{queue}: {} messages were claimed", deliveries.len()).into());
    }
    refill(store, queue, deliveries).await
}

/// Messages are enqueued and consumed while a transaction keeps vacuum from removing their dead rows.
async fn old_snapshot(meter: &Meter, store: &Store, messages: usize) -> Outcome<Table> {
    const BATCH: usize = 1_000;
    const WINDOWS: usize = 10;
    store.queue("flow").await?;
    let mut snapshot = store.pool().begin().await?;
    sqlx::raw_sql("set transaction isolation level repeatable read")
        .execute(&mut *snapshot)
        .await?;
    sqlx::query("select count(*) from pgqrs.queues")
        .execute(&mut *snapshot)
        .await?;
    let title = format!("claims of 100 while {messages} messages flow under an old snapshot");
    let batches = messages / BATCH / WINDOWS;
    let mut table = Rounds::new(meter, title, batches).without_warm_up();
    let payloads = vec!["x".repeat(190); BATCH];
    let window = |n: usize| format!("tenth {} of {WINDOWS}", n + 1);
    // The rows can't take turns here: each depends on what the time before it has left behind.
    table.next();
    for n in 0..WINDOWS {
        for _ in 0..batches {
            pgqrs::enqueue()
                .messages(&payloads)
                .to("flow")
                .execute(store)
                .await?;
            let deliveries = table
                .measure(&window(n), BATCH, async |calls| {
                    let mut all = Vec::with_capacity(BATCH);
                    while all.len() < BATCH {
                        let started = Instant::now();
                        let dequeue = pgqrs::dequeue().from("flow").limit(100);
                        let claimed = dequeue.execute(store).await?;
                        calls.push(started.elapsed());
                        if claimed.is_empty() {
                            return Err("a message was not found".into());
                        }
                        all.extend(claimed);
                    }
                    Ok(all)
                })
                .await?;
            pgqrs::ack_all(deliveries, store).await?;
        }
    }
    snapshot.rollback().await?;
    let what = "claim under an old snapshot, last tenth to first";
    table.at_most(2.0, &window(WINDOWS - 1), &window(0), what);
    Ok(table.finish())
}

/// Transactions that stay open between their enqueue and their commit, beside a steady flow of messages: by then,
/// claims have read past the message, and find it only by reading from the beginning.
async fn late_commits(meter: &Meter, store: &Store, rounds: usize) -> Outcome<Table> {
    const AT_ONCE: usize = 8;
    const OPEN: Duration = Duration::from_millis(200);
    store.queue("late").await?;
    let consumer = pgqrs::consumer("late").create(store).await?;
    let handle = consumer.handle();
    let (started, mut starts) = mpsc::unbounded_channel();
    let run = consumer.run(move |delivery: Delivery<Value>| {
        let received = started.send((delivery.id(), Instant::now()));
        async move { received.map_err(|_| "the benchmark has ended") }
    });
    let consumer = tokio::spawn(run);
    let flow = tokio::spawn({
        let store = store.clone();
        async move {
            let mut tick = tokio::time::interval(Duration::from_millis(2));
            loop {
                tick.tick().await;
                let enqueue = pgqrs::enqueue().message("flow").to("late");
                if let Err(error) = enqueue.execute(&store).await {
                    return error;
                }
            }
        }
    });
    let title = "from before a commit to the handler's start, beside a message each 2 ms";
    let mut table = Rounds::new(meter, title, rounds);
    while table.next() {
        for (name, open) in [
            ("committed at once", Duration::ZERO),
            ("200 ms after the enqueue", OPEN),
        ] {
            let mut transactions = Vec::new();
            for _ in 0..AT_ONCE {
                let mut transaction = store.pool().begin().await?;
                let enqueue = pgqrs::enqueue().message("late").to("late");
                let id = enqueue.execute(&mut transaction).await?[0];
                transactions.push((id, transaction));
            }
            tokio::time::sleep(open).await;
            let mut commits = HashMap::new();
            for (id, transaction) in transactions {
                commits.insert(id, Instant::now());
                transaction.commit().await?;
            }
            let mut samples = Samples::default();
            while !commits.is_empty() {
                let start = timeout(Duration::from_secs(10), starts.recv()).await?;
                let (id, started) = start.ok_or("the consumer has ended")?;
                if let Some(committed) = commits.remove(&id) {
                    samples.push(started.saturating_duration_since(committed));
                }
            }
            let median = samples.quantile(0.5).unwrap_or_default();
            table.add(name, 1, median, samples, None);
        }
    }
    // The flow never ends by itself, unless a send failed.
    if flow.is_finished() {
        return Err(flow.await?.into());
    }
    flow.abort();
    handle.stop();
    consumer.await??;
    Ok(table.finish())
}
