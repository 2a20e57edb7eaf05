//! How the speed scales: more queues in one table, more consumers of one queue.

use std::time::Instant;

use pgqrs::Store;

use crate::{
    Outcome, drain,
    figures::Samples,
    fresh,
    meter::Meter,
    report::{Rounds, Table, many},
};

pub(crate) async fn run(url: &str, meter: &Meter, quick: bool) -> Outcome<Vec<Table>> {
    let store = fresh(url).await?;
    store.queue("drain").await?;
    let consumers = consumers(meter, &store, quick).await?;
    drop(store);
    let store = fresh(url).await?;
    Ok(vec![consumers, queues(meter, &store, quick).await?])
}

/// Tasks that claim and ack a hundred messages at a time, until the queue is empty.
async fn consumers(meter: &Meter, store: &Store, quick: bool) -> Outcome<Table> {
    let (messages, rounds) = if quick { (5_000, 3) } else { (20_000, 10) };
    let title = format!("draining {messages} messages by claims of 100");
    let mut table = Rounds::new(meter, title, rounds).compared();
    while table.next() {
        for n in [1, 2, 4, 8] {
            drain::fill(store, messages).await?;
            let name = many(n, "consumer");
            let work = async |calls: &mut Samples| {
                let running: Vec<_> = (0..n).map(|_| tokio::spawn(empty(store.clone()))).collect();
                for task in running {
                    calls.extend(task.await??);
                }
                Ok(())
            };
            table.measure(&name, messages, work).await?;
        }
    }
    Ok(table.finish())
}

async fn empty(store: Store) -> Outcome<Samples> {
    let mut calls = Samples::default();
    loop {
        let started = Instant::now();
        let dequeue = pgqrs::dequeue().from("drain").limit(100);
        let deliveries = dequeue.execute(&store).await?;
        if deliveries.is_empty() {
            return Ok(calls);
        }
        pgqrs::ack_all(deliveries, &store).await?;
        calls.push(started.elapsed());
    }
}

/// Life cycles of ten messages, each on the next queue.
async fn queues(meter: &Meter, store: &Store, quick: bool) -> Outcome<Table> {
    const SIZE: usize = 10;
    let rounds = if quick { 4 } else { 40 };
    let block = if quick { 20 } else { 100 };
    let numbers: &[usize] = if quick {
        &[1, 100, 1_000]
    } else {
        &[1, 100, 10_000]
    };
    eprintln!("creating the queues");
    for number in numbers {
        sqlx::query(
            "insert into pgqrs.queues (name) select $1 || '-' || n from generate_series(1, $1::int) n",
        )
        .bind(number.to_string())
        .execute(store.pool())
        .await?;
    }
    sqlx::query("analyze pgqrs.queues")
        .execute(store.pool())
        .await?;
    let payloads = vec!["x".repeat(198); SIZE];
    let title = format!("life cycles of {SIZE} messages, each in the next queue");
    let mut table = Rounds::new(meter, title, rounds).compared();
    let (mut next, name) = (0_usize, |number: &usize| many(*number, "queue"));
    while table.next() {
        for number in numbers {
            table
                .measure(&name(number), SIZE * block, async |calls| {
                    for _ in 0..block {
                        // A step that reaches all of them, and not in the order of their creation.
                        next = next.wrapping_add(7_919);
                        let queue = format!("{number}-{}", next % number + 1);
                        let started = Instant::now();
                        let enqueue = pgqrs::enqueue().messages(&payloads).to(queue.as_str());
                        enqueue.execute(store).await?;
                        let dequeue = pgqrs::dequeue().from(queue.as_str()).limit(SIZE as u32);
                        let deliveries = dequeue.execute(store).await?;
                        if deliveries.len() != SIZE {
                            return Err(format!("{} in {queue}", deliveries.len()).into());
                        }
                        pgqrs::ack_all(deliveries, store).await?;
                        calls.push(started.elapsed());
                    }
                    Ok(())
                })
                .await?;
        }
    }
    Ok(table.finish())
}
