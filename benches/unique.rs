//! Sends with keys, beside plain ones through the same store: keys that nobody else has, and keys that all have.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use pgqrs::Store;

use crate::{
    Outcome, clear,
    enqueue::{sends_each, tasks},
    figures::Samples,
    fresh,
    meter::Meter,
    report::{Rounds, Table, many},
};

const PLAIN: &str = "without a key";
const UNIQUE: &str = "unique";
const WAITING: &str = "unique until claimed";
const DUPLICATE: &str = "unique, all of them duplicates";

pub(crate) async fn run(url: &str, meter: &Meter, quick: bool) -> Outcome<Vec<Table>> {
    let store = fresh(url).await?;
    store.queue("sends").await?;
    let mut tables = Vec::new();
    for n in [1, 64, 512] {
        tables.push(concurrent(meter, &store, n, quick).await?);
    }
    tables.push(batches(meter, &store, if quick { 10 } else { 60 }).await?);
    Ok(tables)
}

async fn concurrent(meter: &Meter, store: &Store, n: usize, quick: bool) -> Outcome<Table> {
    let (each, rounds) = sends_each(n, quick);
    let title = format!(
        "{}, each {each} single sends one after another",
        many(n, "task")
    );
    let mut table = Rounds::new(meter, title, rounds);
    let next = Arc::new(AtomicU64::new(0));
    while table.next() {
        for how in [PLAIN, UNIQUE, WAITING, DUPLICATE] {
            if how == DUPLICATE {
                send(store, how, 0).await?;
            }
            let (of_all, next) = (store.clone(), Arc::clone(&next));
            let call = move || {
                let (store, next) = (of_all.clone(), Arc::clone(&next));
                async move { send(&store, how, next.fetch_add(1, Ordering::Relaxed)).await }
            };
            let work = async |calls: &mut Samples| tasks(calls, n, each, call).await;
            table.measure(how, n * each, work).await?;
            clear(store.pool()).await?;
        }
    }
    for (how, goal) in [(UNIQUE, 0.7), (WAITING, 0.7), (DUPLICATE, 1.0)] {
        table.at_least(
            goal,
            how,
            PLAIN,
            format!("{}, {how}, to plain sends", many(n, "task")),
        );
    }
    Ok(table.finish())
}

/// Beside what PostgreSQL itself takes for a second index, and for a key that another message may have.
async fn batches(meter: &Meter, store: &Store, rounds: usize) -> Outcome<Table> {
    const BATCH: usize = 256;
    const BARE: &str = "bare insert of unnest";
    const BARE_UNIQUE: &str = "bare insert, on conflict do nothing";
    let title = format!("batches of {BATCH} messages");
    let mut table = Rounds::new(meter, title, rounds).without_warm_up();
    let mut next = 0_u64;
    let payload = "x".repeat(198);
    let queue: i32 = sqlx::query_scalar("select id from pgqrs.queues where name = 'sends'")
        .fetch_one(store.pool())
        .await?;
    while table.next() {
        for how in [BARE, BARE_UNIQUE, PLAIN, UNIQUE] {
            let payloads = vec![payload.as_str(); BATCH];
            let texts = payloads.iter().map(serde_json::to_string);
            let texts = texts.collect::<Result<Vec<_>, _>>()?;
            let keys: Vec<_> = (0..BATCH).map(|n| format!("batch-{next}-{n}")).collect();
            next += 1;
            let call = async || -> Outcome {
                let enqueue = pgqrs::enqueue().to("sends");
                match how {
                    BARE => {
                        sqlx::query(
                            "insert into pgqrs.messages (queue_id, priority, payload_bytes, payload)
                             select $1, 2, 200, unnest($2::text[])::json returning id",
                        )
                        .bind(queue)
                        .bind(&texts)
                        .fetch_all(store.pool())
                        .await?;
                    }
                    BARE_UNIQUE => {
                        sqlx::query(
                            "insert into pgqrs.messages (
                                 queue_id, priority, payload_bytes, payload, unique_key, payload_hash
                             )
                             select $1, 2, 200, unnest($2::text[])::json, unnest($3::text[]),
                                 '\\x00112233445566778899aabbccddeeff'::bytea
                             on conflict ((queue_id + 0), unique_key) where unique_key is not null do nothing
                             returning id",
                        )
                        .bind(queue)
                        .bind(&texts)
                        .bind(&keys)
                        .fetch_all(store.pool())
                        .await?;
                    }
                    UNIQUE => {
                        let messages = payloads.iter().zip(&keys);
                        let messages =
                            messages.map(|(payload, key)| pgqrs::message(payload).unique(key));
                        enqueue.batch(messages).execute(store).await?;
                    }
                    _ => {
                        enqueue.messages(&payloads).execute(store).await?;
                    }
                }
                Ok(())
            };
            let work = async |calls: &mut Samples| {
                let started = Instant::now();
                call().await?;
                calls.push(started.elapsed());
                Ok(())
            };
            table.measure(how, BATCH, work).await?;
        }
    }
    clear(store.pool()).await?;
    table.at_least(
        0.5,
        BARE_UNIQUE,
        BARE,
        "PostgreSQL itself, with keys, to without",
    );
    table.at_least(0.7, UNIQUE, PLAIN, "batches, unique, to plain batches");
    Ok(table.finish())
}

async fn send(store: &Store, how: &str, n: u64) -> Outcome {
    let payload = "x".repeat(198);
    let enqueue = pgqrs::enqueue().message(&payload).to("sends");
    match how {
        UNIQUE => enqueue.unique(format!("order-{n}")).execute(store).await?,
        WAITING => {
            let enqueue = enqueue.unique_until_claimed(format!("order-{n}"));
            enqueue.execute(store).await?
        }
        DUPLICATE => enqueue.unique("order").execute(store).await?,
        _ => enqueue.execute(store).await?,
    };
    Ok(())
}
