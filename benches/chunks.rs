//! A handler that upserts a row for each message: in chunks of a hundred, one statement for each chunk, beside one
//! statement for each message; and in a transaction with the acknowledgement.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use pgqrs::{Consumer, Report, Run, Store};
use sqlx::PgPool;
use tokio::sync::Notify;

use crate::{
    Outcome, fresh,
    meter::Meter,
    report::{Rounds, Table},
};

const SIZE: usize = 100;
const WAIT: Duration = Duration::from_millis(50);
/// Rows that are upserted again and again.
const ROWS: usize = 1_000;
const SINGLE: &str = "one by one";
const IN_TRANSACTION: &str = "one by one, in a transaction with the acknowledgement";
const CHUNKS: &str = "in chunks";

const READINGS: pgqrs::Queue<usize> = pgqrs::Queue::new("readings");

pub(crate) async fn run(url: &str, meter: &Meter, quick: bool) -> Outcome<Vec<Table>> {
    let store = fresh(url).await?;
    store.queue(READINGS).await?;
    sqlx::raw_sql(
        "drop table if exists readings; create table readings (id bigint primary key, times bigint)",
    )
    .execute(store.pool())
    .await?;
    let (messages, rounds) = if quick { (2_000, 3) } else { (10_000, 10) };
    let title = format!("upserting {messages} rows, chunks of {SIZE}, concurrency 8");
    let mut table = Rounds::new(meter, title, rounds).compared();
    while table.next() {
        for row in [SINGLE, IN_TRANSACTION, CHUNKS] {
            fill(&store, messages).await?;
            table
                .measure(row, messages, async |_| {
                    upserts(&store, row, messages).await
                })
                .await?;
        }
    }
    table.at_least(4.0, CHUNKS, SINGLE, "rows in chunks, to one by one");
    sqlx::raw_sql("drop table readings")
        .execute(store.pool())
        .await?;
    Ok(vec![table.finish()])
}

async fn fill(store: &Store, messages: usize) -> Outcome {
    sqlx::query("truncate pgqrs.messages")
        .execute(store.pool())
        .await?;
    let payloads: Vec<usize> = (0..messages).map(|n| n % ROWS).collect();
    let enqueue = pgqrs::enqueue().messages(&payloads).to(READINGS);
    enqueue.execute(store).await?;
    for statement in [
        "vacuum analyze pgqrs.messages",
        "vacuum readings",
        "checkpoint",
    ] {
        sqlx::query(statement).execute(store.pool()).await?;
    }
    Ok(())
}

/// Counts what is handled, and stops the run after the last message.
#[derive(Clone)]
struct Counter {
    left: Arc<AtomicUsize>,
    all: Arc<Notify>,
}

impl Counter {
    fn handled(&self, messages: usize) {
        if self.left.fetch_sub(messages, Ordering::Relaxed) == messages {
            self.all.notify_one();
        }
    }

    fn stops<I: 'static>(&self, run: Run<I>) -> impl Future<Output = pgqrs::Result<Report>> {
        let all = Arc::clone(&self.all);
        run.with_graceful_shutdown(async move { all.notified().await })
    }
}

async fn upserts(store: &Store, row: &str, messages: usize) -> Outcome {
    let consumer = pgqrs::consumer(READINGS).create(store).await?;
    let counter = Counter {
        left: Arc::new(AtomicUsize::new(messages)),
        all: Arc::new(Notify::new()),
    };
    let report = match row {
        SINGLE => single(consumer, store.pool().clone(), counter).await?,
        IN_TRANSACTION => in_transaction(consumer, counter).await?,
        _ => chunks(consumer, store.pool().clone(), counter).await?,
    };
    if report.done != messages as u64 {
        return Err(format!("{report:?}").into());
    }
    Ok(())
}

const UPSERT: &str = "insert into readings values ($1, 1)
    on conflict (id) do update set times = readings.times + 1";

async fn single<C>(consumer: Consumer<C>, pool: PgPool, counter: Counter) -> pgqrs::Result<Report>
where
    C: pgqrs::Readable<Payload = usize> + 'static,
{
    let stops = counter.clone();
    let run = consumer.run(move |delivery| {
        let (pool, counter) = (pool.clone(), counter.clone());
        async move {
            let id = *delivery.payload() as i64;
            sqlx::query(UPSERT).bind(id).execute(&pool).await?;
            counter.handled(1);
            Ok::<_, sqlx::Error>(())
        }
    });
    stops.stops(run).await
}

async fn in_transaction<C>(consumer: Consumer<C>, counter: Counter) -> pgqrs::Result<Report>
where
    C: pgqrs::Readable<Payload = usize> + 'static,
{
    let stops = counter.clone();
    let run = consumer.run_in_transaction(move |delivery, mut tx| {
        let counter = counter.clone();
        async move {
            let id = *delivery.payload() as i64;
            sqlx::query(UPSERT).bind(id).execute(&mut **tx).await?;
            counter.handled(1);
            Ok::<_, sqlx::Error>(())
        }
    });
    stops.stops(run).await
}

async fn chunks<C>(consumer: Consumer<C>, pool: PgPool, counter: Counter) -> pgqrs::Result<Report>
where
    C: pgqrs::Readable<Payload = usize> + 'static,
{
    let stops = counter.clone();
    let run = consumer.run_chunks(SIZE, WAIT, move |chunk| {
        let (pool, counter) = (pool.clone(), counter.clone());
        async move {
            // In one order, so that two chunks don't wait for each other's rows.
            let mut ids: Vec<_> = chunk.payloads().map(|id| *id as i64).collect();
            ids.sort_unstable();
            sqlx::query(
                "insert into readings select id, count(*) from unnest($1::bigint[]) id group by id order by id
                 on conflict (id) do update set times = readings.times + excluded.times",
            )
            .bind(ids)
            .execute(&pool)
            .await?;
            counter.handled(chunk.len());
            Ok::<_, sqlx::Error>(())
        }
    });
    stops.stops(run).await
}
