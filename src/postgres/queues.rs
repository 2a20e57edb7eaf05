//! Statements on `pgqrs.queues`, for the administration of queues. An enqueue reads this table and never writes to it.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::{Connection, PgConnection};

use crate::{
    admin::rows::{QueueInfo, QueueOptions},
    error::{Error, Result},
    postgres::session,
    queue::QueueName,
};

/// A row of `pgqrs.queues`.
struct Row {
    name: String,
    max_attempts: i32,
    created_at: DateTime<Utc>,
}

impl TryFrom<Row> for QueueInfo {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self> {
        Ok(Self {
            name: QueueName::new(row.name)?,
            max_attempts: row.max_attempts.unsigned_abs(),
            created_at: row.created_at,
        })
    }
}

/// Creates a queue; `None` if there is one of that name.
pub(crate) async fn create(
    connection: &mut PgConnection,
    name: &QueueName,
) -> Result<Option<QueueInfo>> {
    sqlx::query_as!(
        Row,
        "insert into pgqrs.queues (name) values ($1)
         on conflict (name) do nothing
         returning name, max_attempts, created_at",
        name.as_str(),
    )
    .fetch_optional(connection)
    .await?
    .map(QueueInfo::try_from)
    .transpose()
}

pub(crate) async fn find(
    connection: &mut PgConnection,
    name: &QueueName,
) -> Result<Option<QueueInfo>> {
    sqlx::query_as!(
        Row,
        "select name, max_attempts, created_at from pgqrs.queues where name = $1",
        name.as_str(),
    )
    .fetch_optional(connection)
    .await?
    .map(QueueInfo::try_from)
    .transpose()
}

/// Changes a queue's settings; `None` if there is no queue of that name.
pub(crate) async fn configure(
    connection: &mut PgConnection,
    name: &QueueName,
    options: QueueOptions,
) -> Result<Option<QueueInfo>> {
    let max_attempts = options
        .max_attempts
        .map(|attempts| i32::try_from(attempts).unwrap_or(i32::MAX));
    sqlx::query_as!(
        Row,
        "update pgqrs.queues set max_attempts = coalesce($2, max_attempts) where name = $1
         returning name, max_attempts, created_at",
        name.as_str(),
        max_attempts,
    )
    .fetch_optional(connection)
    .await?
    .map(QueueInfo::try_from)
    .transpose()
}

pub(crate) async fn list(connection: &mut PgConnection) -> Result<Vec<QueueInfo>> {
    sqlx::query_as!(
        Row,
        "select name, max_attempts, created_at from pgqrs.queues order by name"
    )
    .fetch_all(connection)
    .await?
    .into_iter()
    .map(QueueInfo::try_from)
    .collect()
}

/// Deletes an empty queue, and everything that belongs to it. Returns the number of messages in the way; 0 if the queue
/// was deleted; `None` if there is none. A client that vanishes meanwhile blocks others for at most `idle_timeout`.
pub(crate) async fn delete(
    connection: &mut PgConnection,
    name: &QueueName,
    idle_timeout: Duration,
) -> Result<Option<u64>> {
    let mut transaction = connection.begin().await?;
    session::limit_idle_in_transaction(&mut transaction, idle_timeout).await?;
    hold_enqueues(&mut transaction).await?;
    let messages = delete_if_empty(&mut transaction, name).await?;
    transaction.commit().await?;
    Ok(messages)
}

/// Blocks inserts of messages until the transaction ends.
///
/// Enqueues take no lock on their queue's row, since that would cost each of them. So a queue can only be found empty,
/// and then be deleted, while no enqueue is running: an enqueue that waits here looks for its queue afterwards and
/// doesn't find it. The time-out bounds how long a transaction that has enqueued and stays open can block all enqueues
/// that queue up behind this lock.
async fn hold_enqueues(connection: &mut PgConnection) -> Result<()> {
    sqlx::query!("select set_config('lock_timeout', '2s', true)")
        .fetch_one(&mut *connection)
        .await?;
    sqlx::query!("lock table pgqrs.messages in share row exclusive mode")
        .execute(connection)
        .await?;
    Ok(())
}

async fn delete_if_empty(connection: &mut PgConnection, name: &QueueName) -> Result<Option<u64>> {
    let messages = sqlx::query_scalar!(
        r#"
        with held as (
            select q.id, (select count(*) from pgqrs.messages m where m.queue_id = q.id) as messages
            from pgqrs.queues q
            where q.name = $1
        ), deleted as (
            delete from pgqrs.queues q using held where q.id = held.id and held.messages = 0
        ), forgotten as (
            delete from pgqrs.dead_letters d using held where d.queue_id = held.id and held.messages = 0
        ), archived as (
            delete from pgqrs.archive a using held where a.queue_id = held.id and held.messages = 0
        ), orphaned as (
            -- Its workers have nothing to work for any more; their handles find them stopped.
            delete from pgqrs.workers w using held where w.queue_id = held.id and held.messages = 0
        )
        select messages as "messages!" from held
        "#,
        name.as_str(),
    )
    .fetch_optional(connection)
    .await?;
    Ok(messages.map(i64::unsigned_abs))
}

/// Returns the number of deleted messages; `None` if there is no such queue.
pub(crate) async fn purge(connection: &mut PgConnection, name: &QueueName) -> Result<Option<u64>> {
    let purged = sqlx::query_scalar!(
        r#"
        with queue as (
            select id from pgqrs.queues where name = $1
        ), purged as (
            delete from pgqrs.messages m using queue where m.queue_id = queue.id returning m.id
        )
        select (select count(*) from purged) as "purged!" from queue
        "#,
        name.as_str(),
    )
    .fetch_optional(connection)
    .await?;
    Ok(purged.map(i64::unsigned_abs))
}
