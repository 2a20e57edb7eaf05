//! What "stored exactly once" costs: the library's statement for messages of one envelope, which advances its writer's
//! row, and the same statement without that row, both through the same small coalescing sender. The library's own sender
//! can't leave the row out.

#[path = "../src/postgres/json/parameter.rs"]
mod json;
mod statement;

use std::{collections::VecDeque, sync::Arc};

use chrono::{DateTime, Utc};
use json::Json;
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool};
use tokio::{
    sync::{Mutex, mpsc, oneshot},
    task::JoinSet,
};

use crate::{
    Outcome, clear,
    enqueue::{sends_each, tasks},
    figures::Samples,
    fresh,
    meter::Meter,
    report::{Rounds, Table, many},
};

const WRITERS: usize = 2;
/// The library's limits: statements per token, and messages per statement.
const STATEMENTS: i64 = 1_000;
const MOST: usize = 1_000;
const BLOCK: usize = 4_000;

const WITH: &str = "with the writer's row, stored once";
const WITHOUT: &str = "without it";

pub(crate) async fn run(url: &str, meter: &Meter, quick: bool) -> Outcome<Vec<Table>> {
    let store = fresh(url).await?;
    store.queue("sends").await?;
    let pool = store.pool();
    let mut tables = Vec::new();
    for n in [1, 8, 64, 512] {
        let under = many(n, "task");
        tables.push(compare(url, meter, pool, n, quick, &under).await?);
    }
    // The snapshot keeps all versions of a writer's row, but touches no table of ours.
    let mut snapshot = PgConnection::connect(url).await?;
    sqlx::raw_sql("begin isolation level repeatable read; select 1")
        .execute(&mut snapshot)
        .await?;
    for n in [8, 64] {
        let under = format!("{} under an old snapshot", many(n, "task"));
        tables.push(compare(url, meter, pool, n, quick, &under).await?);
    }
    sqlx::raw_sql("rollback").execute(&mut snapshot).await?;
    snapshot.close().await?;
    Ok(tables)
}

async fn compare(
    url: &str,
    meter: &Meter,
    pool: &PgPool,
    n: usize,
    quick: bool,
    under: &str,
) -> Outcome<Table> {
    let (each, rounds) = sends_each(n, quick);
    let title = format!("{under}, each {each} single sends through a small coalescing sender");
    let mut table = Rounds::new(meter, title, rounds);
    while table.next() {
        for (name, with_row) in [(WITHOUT, false), (WITH, true)] {
            let sender = Sender::start(url, with_row).await?;
            let work = async |calls: &mut Samples| {
                let send = {
                    let waiting = sender.waiting.clone();
                    move || {
                        let waiting = waiting.clone();
                        async move { send(&waiting).await }
                    }
                };
                tasks(calls, n, each, send).await
            };
            table.measure(name, n * each, work).await?;
            sender.stop().await?;
        }
        clear(pool).await?;
    }
    table.at_least(0.9, WITH, WITHOUT, format!("stored once, {under}"));
    Ok(table.finish())
}

struct Message {
    json: String,
    stored: oneshot::Sender<i64>,
}

async fn send(waiting: &mpsc::UnboundedSender<Message>) -> Outcome {
    let (stored, id) = oneshot::channel();
    let json = serde_json::to_string(&"x".repeat(198))?;
    waiting.send(Message { json, stored })?;
    id.await?;
    Ok(())
}

struct Sender {
    waiting: mpsc::UnboundedSender<Message>,
    writers: JoinSet<Outcome>,
}

impl Sender {
    async fn start(url: &str, with_row: bool) -> Outcome<Self> {
        let (waiting, taken) = mpsc::unbounded_channel();
        let taken = Arc::new(Mutex::new(taken));
        let mut writers = JoinSet::new();
        for _ in 0..WRITERS {
            let mut connection = PgConnection::connect(url).await?;
            sqlx::query("set plan_cache_mode = force_generic_plan")
                .execute(&mut connection)
                .await?;
            writers.spawn(write(connection, with_row, Arc::clone(&taken)));
        }
        Ok(Self { waiting, writers })
    }

    async fn stop(mut self) -> Outcome {
        drop(self.waiting);
        while let Some(writer) = self.writers.join_next().await {
            writer??;
        }
        Ok(())
    }
}

async fn write(
    mut connection: PgConnection,
    with_row: bool,
    taken: Arc<Mutex<mpsc::UnboundedReceiver<Message>>>,
) -> Outcome {
    let library = statement::of("write_alike").ok_or("the library's statement is not found")?;
    let statement = if with_row {
        library.to_owned()
    } else {
        statement::without_row(library).ok_or("the statement updates no row of its writer")?
    };
    let statement: Arc<str> = statement.into();
    let (mut token, mut statements) = (0, STATEMENTS);
    let mut ids = VecDeque::new();
    loop {
        let mut messages = Vec::new();
        if taken.lock().await.recv_many(&mut messages, MOST).await == 0 {
            connection.close().await?;
            return Ok(());
        }
        if ids.len() < messages.len() {
            ids.extend(reserve(&mut connection).await?);
        }
        if statements == STATEMENTS {
            (token, statements) = (rand::random::<i64>(), 0);
            if with_row {
                // The library inserts it together with the ids.
                sqlx::query("insert into pgqrs.writers (token, sequence) values ($1, 0)")
                    .bind(token)
                    .execute(&mut connection)
                    .await?;
            }
        }
        statements += 1;
        let batch: Vec<i64> = ids.drain(..messages.len()).collect();
        let payloads: Vec<Json<'_>> = messages.iter().map(|message| Json(&message.json)).collect();
        let statement = sqlx::query(AssertSqlSafe(Arc::clone(&statement)))
            .bind(token)
            .bind(statements * 2)
            .bind("sends")
            .bind(None::<i64>)
            .bind(2_i16)
            .bind(None::<DateTime<Utc>>)
            .bind(None::<DateTime<Utc>>)
            .bind(0_i64)
            .bind(&batch)
            .bind(&payloads);
        let stored = statement.execute(&mut connection).await?.rows_affected();
        if stored != messages.len() as u64 {
            return Err(format!("{stored} of {} were stored", messages.len()).into());
        }
        for (message, id) in messages.into_iter().zip(batch) {
            // The task may have been dropped.
            let _ = message.stored.send(id);
        }
    }
}

async fn reserve(connection: &mut PgConnection) -> Outcome<Vec<i64>> {
    let ids = sqlx::query_scalar(
        "select array(select nextval('pgqrs.messages_id_seq') from generate_series(1, $1))",
    );
    Ok(ids.bind(BLOCK as i64).fetch_one(connection).await?)
}
