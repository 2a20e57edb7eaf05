//! What tests need of the database that the public API doesn't show: rows, other sessions, and time,
//! which is moved by moving rows.

pub(crate) mod access;
pub(crate) mod citus;
pub(crate) mod consumers;
pub(crate) mod notes;
pub(crate) mod pgbouncer;
pub(crate) mod proxy;
pub(crate) mod server;
pub(crate) mod traces;

use std::{borrow::Borrow, time::Duration};

use chrono::{DateTime, Utc};
use pgqrs::{Delivery, Enqueued, MessageId, Store, Unchecked};
use serde::Serialize;
use serde_json::Value;
use sqlx::{
    ConnectOptions, Connection as _, Executor as _, PgConnection, PgPool, postgres::PgPoolOptions,
};

pub(crate) type TestResult = Result<(), Box<dyn std::error::Error>>;

/// The message of an error, and those of its sources.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text += ": ";
        text += &cause.to_string();
        source = cause.source();
    }
    text
}

/// A store on the test's own database, made by `connect`, as a user would.
pub(crate) async fn connect(pool: &PgPool) -> pgqrs::Result<Store> {
    let options = access::options(pool).await;
    pgqrs::connect(options.to_url_lossy().as_str()).await
}

pub(crate) fn url(pool: &PgPool) -> String {
    pool.connect_options().to_url_lossy().to_string()
}

/// The name of the test's own database.
pub(crate) fn database(pool: &PgPool) -> String {
    let options = pool.connect_options();
    options.get_database().unwrap_or_default().to_owned()
}

/// Creates the queues that a test is about. Returns a store on the test's own database.
pub(crate) async fn with_queues(
    pool: impl Borrow<PgPool>,
    queues: &[&str],
) -> pgqrs::Result<Store> {
    let pool = pool.borrow();
    let store = Store::from(pool.clone());
    for queue in queues {
        store.queue(*queue).await?;
    }
    Ok(access::store(pool).await)
}

/// Sends to `tasks`, the queue that most tests are about.
pub(crate) async fn send<M: Serialize>(store: &Store, messages: &[M]) -> pgqrs::Result<Enqueued> {
    let batch = pgqrs::enqueue().messages(messages).to("tasks");
    batch.execute(store).await
}

/// Sends a message for later, so that a new store has one connection, which knows the statement. Of a message that
/// is ready others would be notified, over another connection.
pub(crate) async fn warm(store: &Store) -> pgqrs::Result<MessageId> {
    let later = pgqrs::enqueue().message(&"warm").to("tasks").delay(3_600);
    let id = later.execute(store).await?[0];
    connection_is_back(store).await;
    Ok(id)
}

/// Waits until the only connection of a store is idle in its pool, which it is a little after the call's answer.
pub(crate) async fn connection_is_back(store: &Store) {
    until("its connection is back", async || {
        store.pool().num_idle() == 1
    })
    .await;
}

/// At most `limit` messages of `tasks`, under the usual lease.
pub(crate) async fn claim(
    store: &Store,
    limit: u32,
) -> pgqrs::Result<Vec<Delivery<Value, Unchecked>>> {
    let dequeue = pgqrs::dequeue().from("tasks").limit(limit);
    dequeue.execute(store).await
}

/// The next message of `tasks`, which must be there.
pub(crate) async fn one(store: &Store) -> pgqrs::Result<Delivery<Value, Unchecked>> {
    Ok(claim(store, 1).await?.pop().expect("a message is ready"))
}

/// A stored message, as text.
#[derive(Debug, sqlx::FromRow)]
pub(crate) struct Stored {
    pub(crate) id: i64,
    pub(crate) queue: String,
    pub(crate) payload: String,
    pub(crate) priority: i16,
    pub(crate) visible_at: DateTime<Utc>,
    pub(crate) enqueued_at: DateTime<Utc>,
}

/// All messages, by id.
pub(crate) async fn stored(pool: &PgPool) -> sqlx::Result<Vec<Stored>> {
    sqlx::query_as(
        "select m.id, q.name as queue, m.payload::text, m.priority, m.visible_at, m.enqueued_at
         from pgqrs.messages m join pgqrs.queues q on q.id = m.queue_id order by m.id",
    )
    .fetch_all(pool)
    .await
}

pub(crate) async fn count(pool: &PgPool) -> sqlx::Result<i64> {
    sqlx::query_scalar("select count(*) from pgqrs.messages")
        .fetch_one(pool)
        .await
}

/// How many messages, dead letters and archived messages there are, in one snapshot.
pub(crate) async fn places(pool: &PgPool) -> sqlx::Result<(i64, i64, i64)> {
    sqlx::query_as(
        "select (select count(*) from pgqrs.messages), (select count(*) from pgqrs.dead_letters),
             (select count(*) from pgqrs.archive)",
    )
    .fetch_one(pool)
    .await
}

/// All that is stored of messages, wherever they are, with every column: to see that nothing has changed.
pub(crate) async fn everything(pool: &PgPool) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar(
        "select 'message ' || m::text from pgqrs.messages m
         union all select 'dead letter ' || d::text from pgqrs.dead_letters d
         union all select 'archived ' || a::text from pgqrs.archive a
         order by 1",
    )
    .fetch_all(pool)
    .await
}

/// What time it is for the database.
pub(crate) async fn now(pool: &PgPool) -> sqlx::Result<DateTime<Utc>> {
    sqlx::query_scalar("select clock_timestamp()")
        .fetch_one(pool)
        .await
}

/// Lets this much time pass for a message: its schedule, or its lease. A store that has read the queue
/// before may look past it for a moment: see [`newcomer`].
pub(crate) async fn age(pool: &PgPool, message: MessageId, by: Duration) -> TestResult {
    let aged = sqlx::query(
        "update pgqrs.messages set visible_at = visible_at - $2 * interval '1 second',
             lease_until = lease_until - $2 * interval '1 second' where id = $1",
    )
    .bind(message.get())
    .bind(by.as_secs_f64())
    .execute(pool)
    .await?;
    assert_eq!(aged.rows_affected(), 1, "there is no message {message}");
    Ok(())
}

/// Lets a message's lease, or its schedule, end now, ahead of all watermarks.
pub(crate) async fn expire(pool: &PgPool, message: MessageId) -> TestResult {
    let expired =
        "update pgqrs.messages set visible_at = now(), lease_until = least(lease_until, now())
                   where id = $1";
    let expired = sqlx::query(expired)
        .bind(message.get())
        .execute(pool)
        .await?;
    assert_eq!(expired.rows_affected(), 1, "there is no message {message}");
    Ok(())
}

/// A store that has not read any queue yet, and so looks at all of it.
pub(crate) fn newcomer(pool: &PgPool) -> Store {
    Store::from(pool.clone())
}

/// What the server counted of a table's changes: inserts, updates, deletes. Sessions report theirs when
/// they end, a little after they were closed, and PostgreSQL 14 shows reports up to half a second later: so
/// this waits until the sessions are gone, and until the report of one that came after them is shown.
/// The caller closes `pool` first.
pub(crate) async fn changes(url: &str, table: &str) -> sqlx::Result<(i64, i64, i64)> {
    let options = PgPoolOptions::new().max_connections(1);
    let pool = options.connect(url).await?;
    until("all other sessions have ended", async || {
        let others = "select count(*) from pg_stat_activity
                      where datname = current_database() and pid <> pg_backend_pid()
                          and backend_type = 'client backend'";
        let others = sqlx::query_scalar(others).fetch_one(&pool).await;
        matches!(others, Ok(0_i64))
    })
    .await;
    let mut last = PgConnection::connect(url).await?;
    last.execute(
        "create table if not exists public.reports (); insert into public.reports default values",
    )
    .await?;
    last.close().await?;
    until("the last session's report is shown", async || {
        let shown = "select n_tup_ins = (select count(*) from public.reports)
                     from pg_stat_user_tables where relname = 'reports'";
        let shown = sqlx::query_scalar(shown).fetch_one(&pool).await;
        matches!(shown, Ok(true))
    })
    .await;
    let changes = sqlx::query_as(
        "select n_tup_ins, n_tup_upd, n_tup_del from pg_stat_user_tables
         where schemaname = 'pgqrs' and relname = $1",
    )
    .bind(table)
    .fetch_one(&pool)
    .await;
    pool.close().await;
    changes
}

/// How much more than usual the tests under `adversary/` are to do; `cargo xtask soak --adversary` sets it.
pub(crate) fn scale() -> usize {
    let scale = std::env::var("PGQRS_ADVERSARY").ok();
    scale.and_then(|scale| scale.parse().ok()).unwrap_or(1)
}

/// Waits until a condition holds. Fails after thirty seconds, saying what it waited for.
pub(crate) async fn until(what: &str, holds: impl AsyncFnMut() -> bool) {
    let held = until_within(Duration::from_secs(30), holds).await;
    assert!(held, "never came: {what}");
}

/// Waits until a condition holds, for at most `limit`. Returns whether it does.
pub(crate) async fn until_within(limit: Duration, mut holds: impl AsyncFnMut() -> bool) -> bool {
    // What takes longer is asked for less often: looking takes the server's and this process's time from what is tested.
    let paces = [(20, 5), (usize::MAX, 25)];
    let wait = async {
        for (times, milliseconds) in paces {
            let mut tick = tokio::time::interval(Duration::from_millis(milliseconds));
            tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            for _ in 0..times {
                if holds().await {
                    return;
                }
                tick.tick().await;
            }
        }
    };
    tokio::time::timeout(limit, wait).await.is_ok()
}

/// The backend that waits for a lock and whose statement contains `text`, once there is one.
pub(crate) async fn blocked_backend(pool: &PgPool, text: &str) -> i32 {
    let mut backend = None;
    until("a session that waits for a lock", async || {
        backend = sqlx::query_scalar(
            "select pid from pg_stat_activity
             where datname = current_database() and wait_event_type = 'Lock' and strpos(query, $1) > 0",
        )
        .bind(text)
        .fetch_optional(pool)
        .await
        .expect("pg_stat_activity can be read");
        backend.is_some()
    })
    .await;
    backend.expect("just seen")
}

/// Waits until `many` backends wait for a lock with such a statement.
pub(crate) async fn blocked_backends(pool: &PgPool, text: &str, many: i64) {
    until("the expected number of sessions wait for a lock", async || {
        let blocked: i64 = sqlx::query_scalar(
            "select count(*) from pg_stat_activity
             where datname = current_database() and wait_event_type = 'Lock' and strpos(query, $1) > 0",
        )
        .bind(text)
        .fetch_one(pool)
        .await
        .expect("pg_stat_activity can be read");
        blocked == many
    })
    .await;
}

pub(crate) async fn terminate(pool: &PgPool, backend: i32) -> TestResult {
    let done: bool = sqlx::query_scalar("select pg_terminate_backend($1)")
        .bind(backend)
        .fetch_one(pool)
        .await?;
    assert!(done, "no backend {backend}");
    Ok(())
}
