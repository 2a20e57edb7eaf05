//! A claim of ten messages: whatever lies behind them, in front of them, or dead among them.

use std::time::{Duration, Instant};

use pgqrs::Store;

use crate::{
    Outcome,
    figures::{Samples, milliseconds, ratio},
    fresh,
};

const LIMIT: u32 = 10;

pub(crate) async fn run(url: &str, quick: bool) -> Outcome {
    let store = fresh(url).await?;
    let (large, delayed, rounds) = if quick {
        (200_000, 50_000, 200)
    } else {
        (1_000_000, 200_000, 1_000)
    };
    println!(
        "claim of {LIMIT}: filling queues of 1,000, of {large}, and of 1,000 behind {delayed} delayed"
    );
    fill(&store, "backlog of 1k", 1_000, 0).await?;
    fill(&store, "large backlog", large, 0).await?;
    fill(&store, "delayed in front", 1_000, delayed).await?;
    sqlx::query("vacuum analyze pgqrs.messages")
        .execute(store.pool())
        .await?;

    let queues = ["backlog of 1k", "large backlog", "delayed in front"];
    let mut samples = [Samples::default(), Samples::default(), Samples::default()];
    for round in 0..rounds {
        for (queue, samples) in queues.iter().zip(&mut samples) {
            let sample = claim_and_replace(&store, queue).await?;
            // The first ones prepare statements and fill caches.
            if round >= 20 {
                samples.push(sample);
            }
        }
    }
    let first = samples[0].median();
    for (queue, samples) in queues.iter().zip(&samples) {
        row(queue, samples, first);
    }
    println!("  (target: within 2 x of the first)");
    old_snapshot(&store, if quick { 60_000 } else { 300_000 }).await
}

fn row(name: &str, samples: &Samples, reference: Duration) {
    println!(
        "  {name:<28} median {:>7.3} ms   p99 {:>7.3} ms   {:>5.2} x",
        milliseconds(samples.median()),
        milliseconds(samples.quantile(0.99)),
        ratio(samples.median(), reference),
    );
}

async fn fill(store: &Store, queue: &str, ready: i32, delayed: i32) -> Outcome {
    store.queue(queue).await?;
    sqlx::query(
        "insert into pgqrs.messages (queue_id, priority, visible_at, payload)
         select q.id, 2, now() + case when n > $2 then interval '1 day' else interval '0' end,
             json_build_object('n', n, 'text', repeat('x', 170))
         from pgqrs.queues q, generate_series(1, $2 + $3) n where q.name = $1",
    )
    .bind(queue)
    .bind(ready)
    .bind(delayed)
    .execute(store.pool())
    .await?;
    Ok(())
}

/// Only the claim is timed. What it takes is put back, so that the backlog stays what it is.
async fn claim_and_replace(store: &Store, queue: &str) -> Outcome<Duration> {
    let started = Instant::now();
    let deliveries = pgqrs::dequeue()
        .from(queue)
        .limit(LIMIT)
        .execute(store)
        .await?;
    let took = started.elapsed();
    if deliveries.len() != LIMIT as usize {
        return Err(format!("{queue}: {} messages instead of {LIMIT}", deliveries.len()).into());
    }
    pgqrs::ack_all(deliveries, store).await?;
    pgqrs::enqueue()
        .messages(&vec!["x".repeat(190); LIMIT as usize])
        .to(queue)
        .execute(store)
        .await?;
    Ok(took)
}

/// Messages flow while a transaction keeps vacuum from taking away what they leave behind.
async fn old_snapshot(store: &Store, messages: usize) -> Outcome {
    const BATCH: usize = 1_000;
    const WINDOWS: usize = 10;
    println!("claim of 100 while {messages} messages flow under an old snapshot");
    store.queue("flow").await?;
    let mut snapshot = store.pool().begin().await?;
    sqlx::raw_sql("set transaction isolation level repeatable read")
        .execute(&mut *snapshot)
        .await?;
    sqlx::query("select count(*) from pgqrs.queues")
        .execute(&mut *snapshot)
        .await?;
    let payloads = vec!["x".repeat(190); BATCH];
    let mut windows = Vec::new();
    for _ in 0..WINDOWS {
        let mut window = Samples::default();
        for _ in 0..messages / BATCH / WINDOWS {
            pgqrs::enqueue()
                .messages(&payloads)
                .to("flow")
                .execute(store)
                .await?;
            loop {
                let started = Instant::now();
                let deliveries = pgqrs::dequeue()
                    .from("flow")
                    .limit(100)
                    .execute(store)
                    .await?;
                if deliveries.is_empty() {
                    break;
                }
                window.push(started.elapsed());
                pgqrs::ack_all(deliveries, store).await?;
            }
        }
        windows.push(window);
    }
    snapshot.rollback().await?;
    let first = windows[0].median();
    for (n, window) in windows.iter().enumerate() {
        row(&format!("window {}", n + 1), window, first);
    }
    println!("  (target: the last within 2 x of the first)");
    Ok(())
}
