//! Draining a full queue through a handler that does nothing, beside eight bare loops of "delete a hundred,
//! handle, commit".

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use pgqrs::{Delivery, Outcome as Handled, Store};
use serde_json::Value;
use tokio::sync::Notify;

use crate::{
    Outcome,
    figures::{Samples, computed, milliseconds, ratio},
    fresh,
};

const LOOPS: usize = 8;

pub(crate) async fn run(url: &str, quick: bool) -> Outcome {
    let store = fresh(url).await?;
    store.queue("drain").await?;
    let (messages, rounds) = if quick { (5_000, 3) } else { (20_000, 9) };
    println!("draining {messages} messages, {rounds} rounds of each in turn");
    let (mut bare, mut ours) = (Samples::default(), Samples::default());
    let mut client = [Duration::ZERO; 2];
    for round in 0..=rounds {
        for (samples, is_ours) in [(&mut bare, false), (&mut ours, true)] {
            fill(&store, messages).await?;
            let before = computed().unwrap_or_default();
            let took = if is_ours {
                run_consumer(&store, messages).await?
            } else {
                bare_loops(&store).await?
            };
            // The first round fills caches.
            if round > 0 {
                samples.push(took);
                client[usize::from(is_ours)] += computed().unwrap_or_default() - before;
            }
        }
    }
    for (name, samples, client) in [
        ("eight bare loops", &bare, client[0]),
        ("consumer.run", &ours, client[1]),
    ] {
        println!(
            "  {name:<20} median {:>8.1} ms   {:>8.0}/s   {:>5.2} of the bare loops' speed   client's CPU {:>5.1} us each",
            milliseconds(samples.median()),
            messages as f64 / samples.median().as_secs_f64(),
            ratio(bare.median(), samples.median()),
            client.as_secs_f64() * 1e6 / (messages * rounds) as f64,
        );
    }
    println!("  (target: at least 0.5)");
    Ok(())
}

async fn fill(store: &Store, messages: usize) -> Outcome {
    sqlx::query("truncate pgqrs.messages")
        .execute(store.pool())
        .await?;
    let payloads = vec!["x".repeat(198); messages];
    pgqrs::enqueue()
        .messages(&payloads)
        .to("drain")
        .execute(store)
        .await?;
    sqlx::query("vacuum analyze pgqrs.messages")
        .execute(store.pool())
        .await?;
    sqlx::query("checkpoint").execute(store.pool()).await?;
    Ok(())
}

async fn run_consumer(store: &Store, messages: usize) -> Outcome<Duration> {
    let consumer = pgqrs::consumer("bench", 0, "drain")
        .concurrency(LOOPS)
        .create(store)
        .await?;
    let (handled, all) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let started = Instant::now();
    let run = consumer.run({
        let all = Arc::clone(&all);
        move |delivery: Delivery<Value>| {
            let last = handled.fetch_add(1, Ordering::Relaxed) + 1 == messages;
            if last {
                all.notify_one();
            }
            async move {
                drop(delivery);
                Handled::Done
            }
        }
    });
    let report = run
        .with_graceful_shutdown(async move { all.notified().await })
        .await?;
    let took = started.elapsed();
    if report.done != messages as u64 {
        return Err(format!("{report:?}").into());
    }
    Ok(took)
}

async fn bare_loops(store: &Store) -> Outcome<Duration> {
    let started = Instant::now();
    let loops: Vec<_> = (0..LOOPS)
        .map(|_| {
            let pool = store.pool().clone();
            tokio::spawn(async move {
                let mut connection = pool.acquire().await?;
                loop {
                    let rows: Vec<(i64, String)> = sqlx::query_as(
                        "delete from pgqrs.messages where ctid = any (array(
                             select ctid from pgqrs.messages
                             where queue_id = (select id from pgqrs.queues where name = 'drain')
                                 and priority = 2 and visible_at <= now()
                             order by visible_at, id limit 100 for update skip locked
                         )) returning id, payload::text",
                    )
                    .fetch_all(&mut *connection)
                    .await?;
                    if rows.is_empty() {
                        return Ok::<_, sqlx::Error>(());
                    }
                }
            })
        })
        .collect();
    for each in loops {
        each.await??;
    }
    Ok(started.elapsed())
}
