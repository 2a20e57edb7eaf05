//! Sends, beside the least that PostgreSQL needs for them: one insert for a single message, `unnest` and
//! COPY for a batch; and many tasks at once, beside the same inserts over a pool of eight connections. All of
//! them write their payloads as JSON on the clock.

use std::time::{Duration, Instant};

use pgqrs::Store;
use sqlx::PgPool;

use crate::{
    Outcome,
    figures::{Samples, ratio},
    fresh,
};

const BYTES: usize = 200;

pub(crate) async fn run(url: &str, quick: bool) -> Outcome {
    let store = fresh(url).await?;
    store.queue("sends").await?;
    let bare = sqlx::postgres::PgPoolOptions::new()
        .max_connections(8)
        .test_before_acquire(false)
        .connect(url)
        .await?;
    single(&store, &bare, if quick { 300 } else { 3_000 }).await?;
    for size in [100, 1_000] {
        batch(&store, &bare, size, if quick { 15 } else { 100 }).await?;
    }
    for tasks in [1, 8, 64, 512] {
        concurrent(&store, &bare, tasks, if quick { 4 } else { 12 }).await?;
    }
    Ok(())
}

fn payload() -> String {
    "x".repeat(BYTES - 2)
}

async fn queue_id(pool: &PgPool) -> Outcome<i32> {
    Ok(
        sqlx::query_scalar("select id from pgqrs.queues where name = 'sends'")
            .fetch_one(pool)
            .await?,
    )
}

async fn insert(pool: &PgPool, queue: i32, json: &str) -> Outcome<i64> {
    let row: Vec<(i64,)> = sqlx::query_as(
        "insert into pgqrs.messages (queue_id, priority, payload) values ($1, 2, $2::text::json) returning id",
    )
    .bind(queue)
    .bind(json)
    .fetch_all(pool)
    .await?;
    Ok(row[0].0)
}

/// Leaves as much behind for one as for the other.
async fn clear(pool: &PgPool) -> Outcome {
    sqlx::raw_sql("truncate pgqrs.messages; checkpoint")
        .execute(pool)
        .await?;
    Ok(())
}

fn row(name: &str, samples: &Samples, messages: usize, limit: Duration) {
    println!(
        "  {name:<36} median {:>9.1} us a message   p99 {:>9.1}   {:>5.2} of the limit's speed",
        samples.median().as_secs_f64() * 1e6 / messages as f64,
        samples.quantile(0.99).as_secs_f64() * 1e6 / messages as f64,
        ratio(limit, samples.median()),
    );
}

async fn single(store: &Store, bare: &PgPool, rounds: usize) -> Outcome {
    println!("one message of {BYTES} bytes after another, {rounds} rounds of each in turn");
    let (payload, queue) = (payload(), queue_id(bare).await?);
    let mut samples: [Samples; 3] = Default::default();
    for n in 0..rounds + 20 {
        let started = Instant::now();
        insert(bare, queue, &serde_json::to_string(&payload)?).await?;
        let limit = started.elapsed();
        let started = Instant::now();
        pgqrs::enqueue()
            .message(&payload)
            .to("sends")
            .execute(bare)
            .await?;
        let pool = started.elapsed();
        let started = Instant::now();
        pgqrs::enqueue()
            .message(&payload)
            .to("sends")
            .execute(store)
            .await?;
        let ours = started.elapsed();
        // The first ones prepare statements.
        if n >= 20 {
            for (samples, sample) in samples.iter_mut().zip([limit, pool, ours]) {
                samples.push(sample);
            }
        }
    }
    let limit = samples[0].median();
    row("bare insert, id of the queue known", &samples[0], 1, limit);
    row("execute(&pool), by the queue's name", &samples[1], 1, limit);
    row("execute(&store), stored once", &samples[2], 1, limit);
    println!("  (target: at least 0.75)");
    clear(bare).await
}

async fn batch(store: &Store, bare: &PgPool, size: usize, rounds: usize) -> Outcome {
    println!("batches of {size} messages of {BYTES} bytes, {rounds} rounds of each in turn");
    let (payloads, queue) = (vec![payload(); size], queue_id(bare).await?);
    let encode = || -> serde_json::Result<Vec<String>> {
        payloads.iter().map(serde_json::to_string).collect()
    };
    let mut samples: [Samples; 4] = Default::default();
    for n in 0..rounds + 5 {
        let started = Instant::now();
        let json: Vec<String> = encode()?;
        let _: Vec<(i64,)> = sqlx::query_as(
            "insert into pgqrs.messages (queue_id, priority, payload)
             select $1, 2, p::json from unnest($2::text[]) p returning id",
        )
        .bind(queue)
        .bind(&json)
        .fetch_all(bare)
        .await?;
        let unnest = started.elapsed();

        let started = Instant::now();
        let json: Vec<String> = encode()?;
        let mut connection = bare.acquire().await?;
        let mut copy = connection
            .copy_in_raw("copy pgqrs.messages (queue_id, priority, payload) from stdin binary")
            .await?;
        let mut buffer = Vec::with_capacity(size * (BYTES + 32));
        buffer.extend_from_slice(b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0");
        for json in &json {
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
        let copied = started.elapsed();
        drop(connection);

        let started = Instant::now();
        pgqrs::enqueue()
            .messages(&payloads)
            .to("sends")
            .execute(bare)
            .await?;
        let pool = started.elapsed();
        let started = Instant::now();
        pgqrs::enqueue()
            .messages(&payloads)
            .to("sends")
            .execute(store)
            .await?;
        let ours = started.elapsed();
        if n >= 5 {
            for (samples, sample) in samples.iter_mut().zip([unnest, copied, pool, ours]) {
                samples.push(sample);
            }
        }
    }
    let limit = samples[0].median();
    row("bare insert of unnest", &samples[0], size, limit);
    // Its last few packets wait for each other, which says nothing of a small batch.
    if size >= 1_000 {
        row("COPY BINARY, gives no ids", &samples[1], size, limit);
    }
    row("execute(&pool)", &samples[2], size, limit);
    row("execute(&store), stored once", &samples[3], size, limit);
    println!("  (target: at least 0.95)");
    clear(bare).await
}

/// Runs so many tasks, each of which sends its share one by one.
async fn tasks<F>(tasks: usize, each: usize, send: impl Fn() -> F) -> Outcome<Duration>
where
    F: Future<Output = Outcome> + Send + 'static,
{
    let started = Instant::now();
    let running: Vec<_> = (0..tasks)
        .map(|_| {
            let sends: Vec<_> = (0..each).map(|_| send()).collect();
            tokio::spawn(async move {
                for send in sends {
                    send.await?;
                }
                Outcome::Ok(())
            })
        })
        .collect();
    for task in running {
        task.await??;
    }
    Ok(started.elapsed())
}

async fn concurrent(store: &Store, bare: &PgPool, n: usize, rounds: usize) -> Outcome {
    let each = (32_768 / n).min(512);
    println!(
        "{n} tasks, each {each} single sends one after another, {rounds} rounds of each in turn"
    );
    let queue = queue_id(bare).await?;
    let mut samples: [Samples; 2] = Default::default();
    for round in 0..=rounds {
        let limit = tasks(n, each, || {
            let bare = bare.clone();
            async move {
                let json = serde_json::to_string(&payload())?;
                insert(&bare, queue, &json).await.map(drop)
            }
        });
        let limit = limit.await?;
        let ours = tasks(n, each, || {
            let store = store.clone();
            async move {
                pgqrs::enqueue()
                    .message(&payload())
                    .to("sends")
                    .execute(&store)
                    .await?;
                Ok(())
            }
        });
        let ours = ours.await?;
        if round > 0 {
            samples[0].push(limit);
            samples[1].push(ours);
        }
        clear(bare).await?;
    }
    let limit = samples[0].median();
    row("bare inserts, pool of 8", &samples[0], n * each, limit);
    row("execute(&store), coalesced", &samples[1], n * each, limit);
    println!("  (targets: 512 tasks 15, 64 tasks 5, 8 tasks 1.1, 1 task 0.95)");
    Ok(())
}
