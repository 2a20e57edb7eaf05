//! Sends, beside the minimum that PostgreSQL needs for them: one insert for a single message, `unnest` and COPY for a
//! batch; and many concurrent tasks, beside the same inserts over a pool of eight connections. The time to serialise
//! payloads to JSON is included for all of them.

use std::time::{Duration, Instant};

use pgqrs::{Executor, Store};
use sqlx::{PgPool, postgres::PgPoolOptions};

use crate::{
    Outcome, clear,
    figures::Samples,
    fresh,
    meter::Meter,
    queue_id,
    report::{Rounds, Table, many},
};

const BYTES: usize = 200;
/// Single sends in each round.
const BLOCK: usize = 50;

pub(crate) async fn run(url: &str, meter: &Meter, quick: bool) -> Outcome<Vec<Table>> {
    let store = fresh(url).await?;
    store.queue("sends").await?;
    let bare = pool_of_eight(url).await?;
    let mut tables = vec![single(meter, &store, &bare, if quick { 6 } else { 80 }).await?];
    for size in [100, 1_000] {
        tables.push(batch(meter, &store, &bare, size, if quick { 15 } else { 100 }).await?);
    }
    for tasks in [1, 8, 64, 512] {
        tables.push(concurrent(meter, &store, &bare, tasks, quick).await?);
    }
    Ok(tables)
}

/// The pool of an application without a queue library.
pub(crate) async fn pool_of_eight(url: &str) -> Outcome<PgPool> {
    let options = PgPoolOptions::new()
        .max_connections(8)
        .test_before_acquire(false);
    Ok(options.connect(url).await?)
}

fn payload() -> String {
    "x".repeat(BYTES - 2)
}

async fn insert(pool: &PgPool, queue: i32, json: &str) -> Outcome<i64> {
    let row: Vec<(i64,)> = sqlx::query_as(
        "insert into bare.messages (queue_id, priority, payload) values ($1, 2, $2::text::json) returning id",
    )
    .bind(queue)
    .bind(json)
    .fetch_all(pool)
    .await?;
    Ok(row[0].0)
}

async fn insert_by_name(pool: &PgPool, queue: &str, json: &str) -> Outcome<i64> {
    let row: Vec<(i64,)> = sqlx::query_as(
        "insert into bare.messages (queue_id, priority, payload)
         select id, 2, $2::text::json from pgqrs.queues where name = $1 returning id",
    )
    .bind(queue)
    .bind(json)
    .fetch_all(pool)
    .await?;
    Ok(row[0].0)
}

/// Single sends through the library, one after another.
async fn our_singles(
    table: &mut Rounds<'_>,
    name: &str,
    on: impl Executor + Copy,
    payload: &str,
) -> Outcome {
    table
        .measure(name, BLOCK, async |calls| {
            for _ in 0..BLOCK {
                let started = Instant::now();
                let enqueue = pgqrs::enqueue().message(payload).to("sends");
                enqueue.execute(on).await?;
                calls.push(started.elapsed());
            }
            Ok(())
        })
        .await
}

/// One batch through the library.
pub(crate) async fn our_batch(
    table: &mut Rounds<'_>,
    name: &str,
    on: impl Executor + Copy,
    payloads: &[String],
) -> Outcome {
    table
        .measure(name, payloads.len(), async |calls| {
            let started = Instant::now();
            let enqueue = pgqrs::enqueue().messages(payloads).to("sends");
            enqueue.execute(on).await?;
            calls.push(started.elapsed());
            Ok(())
        })
        .await
}

/// The same batch, without the library.
pub(crate) async fn bare_batch(
    table: &mut Rounds<'_>,
    name: &str,
    pool: &PgPool,
    payloads: &[String],
) -> Outcome {
    let queue = queue_id(pool, "sends").await?;
    table
        .measure(name, payloads.len(), async |calls| {
            let started = Instant::now();
            unnest(pool, queue, &encode(payloads)?).await?;
            calls.push(started.elapsed());
            Ok(())
        })
        .await
}

pub(crate) fn encode(payloads: &[String]) -> serde_json::Result<Vec<String>> {
    payloads.iter().map(serde_json::to_string).collect()
}

async fn single(meter: &Meter, store: &Store, bare: &PgPool, rounds: usize) -> Outcome<Table> {
    const KNOWN: &str = "bare insert, id of the queue known";
    const NAMED: &str = "bare insert, by the queue's name";
    const POOL: &str = "execute(&pool)";
    const STORE: &str = "execute(&store), stored once";
    let title = format!("one message of {BYTES} bytes after another, {BLOCK} a round");
    let mut table = Rounds::new(meter, title, rounds);
    let (payload, queue) = (payload(), queue_id(bare, "sends").await?);
    while table.next() {
        table
            .measure(KNOWN, BLOCK, async |calls| {
                for _ in 0..BLOCK {
                    let started = Instant::now();
                    insert(bare, queue, &serde_json::to_string(&payload)?).await?;
                    calls.push(started.elapsed());
                }
                Ok(())
            })
            .await?;
        table
            .measure(NAMED, BLOCK, async |calls| {
                for _ in 0..BLOCK {
                    let started = Instant::now();
                    insert_by_name(bare, "sends", &serde_json::to_string(&payload)?).await?;
                    calls.push(started.elapsed());
                }
                Ok(())
            })
            .await?;
        our_singles(&mut table, POOL, bare, &payload).await?;
        our_singles(&mut table, STORE, store, &payload).await?;
    }
    table.at_least(
        0.75,
        POOL,
        KNOWN,
        "one, &pool, to a bare insert with a known id",
    );
    table.at_least(
        0.75,
        STORE,
        KNOWN,
        "one, &store, to a bare insert with a known id",
    );
    table.at_least(0.85, STORE, NAMED, "one, &store, to a bare insert by name");
    clear(bare).await?;
    Ok(table.finish())
}

/// The minimum for a batch whose ids are returned.
pub(crate) async fn unnest(pool: &PgPool, queue: i32, json: &[String]) -> Outcome<usize> {
    let ids: Vec<(i64,)> = sqlx::query_as(
        // In the select list and not after `from`, where all rows would be materialised before the first is used.
        "insert into bare.messages (queue_id, priority, payload)
         select $1, 2, unnest($2::text[])::json returning id",
    )
    .bind(queue)
    .bind(json)
    .fetch_all(pool)
    .await?;
    Ok(ids.len())
}

async fn copy(pool: &PgPool, queue: i32, json: &[String]) -> Outcome {
    let mut connection = pool.acquire().await?;
    let mut copy = connection
        .copy_in_raw("copy bare.messages (queue_id, priority, payload) from stdin binary")
        .await?;
    let mut buffer = Vec::with_capacity(json.len() * (BYTES + 32));
    buffer.extend_from_slice(b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0");
    for json in json {
        buffer.extend_from_slice(&3_i16.to_be_bytes());
        buffer.extend_from_slice(&4_i32.to_be_bytes());
        buffer.extend_from_slice(&queue.to_be_bytes());
        buffer.extend_from_slice(&2_i32.to_be_bytes());
        buffer.extend_from_slice(&2_i16.to_be_bytes());
        buffer.extend_from_slice(&i32::try_from(json.len())?.to_be_bytes());
        buffer.extend_from_slice(json.as_bytes());
    }
    buffer.extend_from_slice(&(-1_i16).to_be_bytes());
    copy.send(buffer).await?;
    copy.finish().await?;
    Ok(())
}

async fn batch(
    meter: &Meter,
    store: &Store,
    bare: &PgPool,
    size: usize,
    rounds: usize,
) -> Outcome<Table> {
    const UNNEST: &str = "bare insert of unnest";
    const COPY: &str = "COPY BINARY, returns no ids";
    const POOL: &str = "execute(&pool)";
    const STORE: &str = "execute(&store), stored once";
    let title = format!("batches of {size} messages of {BYTES} bytes");
    let mut table = Rounds::new(meter, title, rounds);
    let (payloads, queue) = (vec![payload(); size], queue_id(bare, "sends").await?);
    while table.next() {
        bare_batch(&mut table, UNNEST, bare, &payloads).await?;
        // The last few packets of a COPY wait for each other, which makes its time meaningless for a small batch.
        if size < 1_000 {
            table.leave_empty(COPY);
        } else {
            table
                .measure(COPY, size, async |calls| {
                    let started = Instant::now();
                    copy(bare, queue, &encode(&payloads)?).await?;
                    calls.push(started.elapsed());
                    Ok(())
                })
                .await?;
        }
        our_batch(&mut table, POOL, bare, &payloads).await?;
        our_batch(&mut table, STORE, store, &payloads).await?;
    }
    table.at_least(
        0.95,
        POOL,
        UNNEST,
        format!("batch of {size}, &pool, to unnest"),
    );
    table.at_least(
        0.95,
        STORE,
        UNNEST,
        format!("batch of {size}, &store, to unnest"),
    );
    let what = format!("batch of {size}, &store, to COPY");
    // Slow commits hide what the ids cost; on a fast disk `unnest` itself has 0.8.
    let slow_commit = meter.commit > Duration::from_millis(1);
    table.at_least(if slow_commit { 0.9 } else { 0.75 }, STORE, COPY, what);
    clear(bare).await?;
    Ok(table.finish())
}

/// Runs this number of tasks, each of which makes its calls one after another.
pub(crate) async fn tasks<F>(
    calls: &mut Samples,
    tasks: usize,
    each: usize,
    call: impl Fn() -> F + Clone + Send + 'static,
) -> Outcome
where
    F: Future<Output = Outcome> + Send,
{
    let running: Vec<_> = (0..tasks)
        .map(|_| {
            let call = call.clone();
            tokio::spawn(async move {
                let mut calls = Samples::default();
                for _ in 0..each {
                    let started = Instant::now();
                    call().await?;
                    calls.push(started.elapsed());
                }
                Outcome::Ok(calls)
            })
        })
        .collect();
    for task in running {
        calls.extend(task.await??);
    }
    Ok(())
}

/// How many sends each of the tasks makes in a round, and how many rounds there are.
pub(crate) fn sends_each(tasks: usize, quick: bool) -> (usize, usize) {
    if quick {
        ((4_096 / tasks).min(64), 3)
    } else {
        ((32_768 / tasks).min(512), 12)
    }
}

async fn concurrent(
    meter: &Meter,
    store: &Store,
    bare: &PgPool,
    n: usize,
    quick: bool,
) -> Outcome<Table> {
    const BARE: &str = "bare inserts, pool of 8";
    const STORE: &str = "execute(&store), coalesced";
    let (each, rounds) = sends_each(n, quick);
    let title = format!(
        "{}, each {each} single sends one after another",
        many(n, "task")
    );
    let mut table = Rounds::new(meter, title, rounds);
    let queue = queue_id(bare, "sends").await?;
    while table.next() {
        let pool = bare.clone();
        let send = move || {
            let pool = pool.clone();
            async move {
                let json = serde_json::to_string(&payload())?;
                insert(&pool, queue, &json).await.map(drop)
            }
        };
        let work = async |calls: &mut Samples| tasks(calls, n, each, send).await;
        table.measure(BARE, n * each, work).await?;
        let store = store.clone();
        let send = move || {
            let store = store.clone();
            async move {
                let payload = payload();
                let enqueue = pgqrs::enqueue().message(&payload).to("sends");
                enqueue.execute(&store).await?;
                Ok(())
            }
        };
        let work = async |calls: &mut Samples| tasks(calls, n, each, send).await;
        table.measure(STORE, n * each, work).await?;
        clear(bare).await?;
    }
    let goal = match n {
        1 => 0.95,
        8 => 1.1,
        64 => 5.0,
        _ => 15.0,
    };
    table.at_least(
        goal,
        STORE,
        BARE,
        format!("{}, coalesced, to a pool of 8", many(n, "task")),
    );
    Ok(table.finish())
}
