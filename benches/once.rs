//! What "stored exactly once" costs: the statement that advances its writer's row, and the same statement without that
//! row, both through the same small coalescing sender. The library's own sender can't leave the row out.

use std::{collections::VecDeque, sync::Arc};

use chrono::{DateTime, Utc};
use sqlx::{Connection, PgConnection, PgPool};
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

/// As in `src/postgres/writers.rs` for messages of one envelope, except for the payloads, which sqlx sends as text.
const WITH_ROW: &str = "
    with advanced as (
        update pgqrs.writers w set sequence = $10
        from pgqrs.queues q
        where w.token = $9 and w.sequence < $10 and q.name = $1
            and ($2::bigint is null or exists (
                select from pgqrs.workers w
                where w.id = $2 and w.queue_id = q.id and w.status = 'ready'
            ))
        returning
            q.id as queue_id,
            coalesce(
                $4::timestamptz,
                greatest($5::timestamptz, statement_timestamp() + $6::bigint * interval '1 microsecond')
            ) as visible_at
    )
    insert into pgqrs.messages (queue_id, id, priority, visible_at, enqueued_at, producer_id, payload)
    overriding system value
    select m.queue_id, m.id, $3, m.visible_at, statement_timestamp(), $2, m.payload::json
    from (
        select queue_id, visible_at, unnest($7::bigint[]) as id, unnest($8::text[]) as payload
        from advanced
    ) m";

/// The same, without the row.
const WITHOUT_ROW: &str = "
    insert into pgqrs.messages (queue_id, id, priority, visible_at, enqueued_at, producer_id, payload)
    overriding system value
    select m.queue_id, m.id, $3, m.visible_at, statement_timestamp(), $2, m.payload::json
    from (
        select
            q.id as queue_id,
            coalesce(
                $4::timestamptz,
                greatest($5::timestamptz, statement_timestamp() + $6::bigint * interval '1 microsecond')
            ) as visible_at,
            unnest($7::bigint[]) as id,
            unnest($8::text[]) as payload
        from pgqrs.queues q
        where q.name = $1
            and ($2::bigint is null or exists (
                select from pgqrs.workers w
                where w.id = $2 and w.queue_id = q.id and w.status = 'ready'
            ))
    ) m";

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
        let payloads: Vec<&str> = messages.iter().map(|message| &*message.json).collect();
        let statement = sqlx::query(if with_row { WITH_ROW } else { WITHOUT_ROW })
            .bind("sends")
            .bind(None::<i64>)
            .bind(2_i16)
            .bind(None::<DateTime<Utc>>)
            .bind(None::<DateTime<Utc>>)
            .bind(0_i64)
            .bind(&batch)
            .bind(&payloads);
        let statement = if with_row {
            statement.bind(token).bind(statements * 2)
        } else {
            statement
        };
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
