//! Statements on `pgqrs.messages` besides claims and settlements: insert, list, cancel, reschedule. All of them filter
//! by queue, which is the first column of every key.

use chrono::{DateTime, Utc};
use sqlx::{Connection, PgConnection};

use crate::{
    admin::rows::QueuedMessage,
    error::Result,
    lifecycle::WorkerId,
    message::{Envelope, MessageId, NewMessage, Page, Priority, Visible},
    postgres::{
        columns::{Columns, next_chunk},
        json::Json,
        workers,
    },
    queue::QueueName,
};

/// Inserts messages, and returns their ids in the order of the messages. One statement; if the batch is too large for
/// one, a transaction of several (a savepoint, inside the caller's own).
pub(crate) async fn insert(
    connection: &mut PgConnection,
    envelope: &Envelope,
    messages: &[NewMessage],
) -> Result<Vec<MessageId>> {
    let (first, mut rest) = next_chunk(messages);
    if rest.is_empty() {
        return insert_chunk(connection, envelope, envelope.visible, first).await;
    }
    let mut transaction = connection.begin().await?;
    // All of a batch becomes visible at the same time, not chunk by chunk.
    let visible = Visible::Exactly(resolve(&mut transaction, envelope.visible).await?);
    let mut ids = insert_chunk(&mut transaction, envelope, visible, first).await?;
    while !rest.is_empty() {
        let (chunk, after) = next_chunk(rest);
        ids.extend(insert_chunk(&mut transaction, envelope, visible, chunk).await?);
        rest = after;
    }
    transaction.commit().await?;
    Ok(ids)
}

async fn insert_chunk(
    connection: &mut PgConnection,
    envelope: &Envelope,
    visible: Visible,
    messages: &[NewMessage],
) -> Result<Vec<MessageId>> {
    let Envelope {
        queue,
        producer,
        priority,
        ..
    } = envelope;
    let times = visible.times();
    let columns = Columns::of(messages);
    let mut ids = sqlx::query_scalar!(
        "insert into pgqrs.messages (
             queue_id, priority, visible_at, enqueued_at, producer_id, payload_bytes, payload
         )
         select
             m.queue_id,
             $2,
             -- The statement's time and not the transaction's: the caller's own may be long open.
             coalesce(
                 $3::timestamptz,
                 greatest($4::timestamptz, statement_timestamp() + $5::bigint * interval '1 microsecond')
             ),
             statement_timestamp(),
             $6::bigint,
             -- Without its header of four bytes.
             pg_column_size(m.payload) - 4,
             m.payload
         from (
             -- In the list and not after `from`: there all rows would be written down before the first is used.
             select q.id as queue_id, unnest($7::json[]) as payload
             from pgqrs.queues q
             where q.name = $1
                 -- A suspended or stopped producer finds no queue.
                 and ($6::bigint is null or exists (
                     select from pgqrs.workers w
                     where w.id = $6 and w.queue_id = q.id and w.status = 'ready'
                 ))
         ) m
         returning id",
        queue.as_str(),
        priority.rank(),
        times.exactly,
        times.not_before,
        times.delay,
        producer.map(WorkerId::get),
        &columns.payloads as &[Json<'_>],
    )
    .fetch_all(&mut *connection)
    .await?;
    if ids.is_empty() {
        return Err(workers::refusal(connection, queue, *producer).await?);
    }
    // Ids are drawn in the batch's order; the order in which the rows are returned isn't guaranteed.
    ids.sort_unstable();
    Ok(ids.into_iter().map(MessageId::from).collect())
}

/// When messages that are enqueued now become visible, by the database's clock.
pub(crate) async fn resolve(
    connection: &mut PgConnection,
    visible: Visible,
) -> Result<DateTime<Utc>> {
    let times = visible.times();
    let time = sqlx::query_scalar!(
        r#"
        select greatest(
            $1::timestamptz, statement_timestamp() + $2::bigint * interval '1 microsecond'
        ) as "time!"
        "#,
        times.not_before,
        times.delay,
    )
    .fetch_one(connection)
    .await?;
    Ok(time)
}

pub(crate) async fn list(
    connection: &mut PgConnection,
    queue: &QueueName,
    page: &Page,
) -> Result<Vec<QueuedMessage>> {
    let rows = sqlx::query!(
        r#"
        select m.id, m.priority,
            -- Somebody may have set it to an infinite time by hand, and Rust has no such time.
            greatest(
                least(m.visible_at, timestamptz '262000-01-01 00:00+00'), timestamptz '0001-01-01 00:00+00'
            ) as "visible_at!",
            m.enqueued_at, m.attempt, m.producer_id, nullif(m.consumer_id, 0) as consumer_id,
            case
                when m.lease_until > statement_timestamp()
                then least(m.lease_until, timestamptz '262000-01-01 00:00+00')
            end as lease_expires_at,
            m.last_error,
            case when $4 then m.payload::text end as payload
        from pgqrs.queues q
        join pgqrs.messages m on m.queue_id = q.id
        where q.name = $1 and m.id > $2
        order by m.id
        limit $3
        "#,
        queue.as_str(),
        page.after(),
        page.limit(),
        page.with_payload(),
    )
    .fetch_all(connection)
    .await?;
    let messages = rows.into_iter().map(|row| QueuedMessage {
        id: MessageId::from(row.id),
        priority: Priority::from_rank(row.priority),
        visible_at: row.visible_at,
        enqueued_at: row.enqueued_at,
        attempt: row.attempt.unsigned_abs(),
        lease_expires_at: row.lease_expires_at,
        producer: row.producer_id.map(WorkerId::from),
        consumer: row.consumer_id.map(WorkerId::from),
        last_error: row.last_error,
        payload: row.payload,
    });
    Ok(messages.collect())
}

/// Deletes a message that isn't leased; `false` if there is none.
pub(crate) async fn cancel(
    connection: &mut PgConnection,
    queue: &QueueName,
    message: MessageId,
) -> Result<bool> {
    let cancelled = sqlx::query!(
        "delete from pgqrs.messages m
         using pgqrs.queues q
         where q.name = $1 and m.queue_id = q.id and m.id = $2
             and m.lease_until <= statement_timestamp()",
        queue.as_str(),
        message.get(),
    )
    .execute(connection)
    .await?;
    Ok(cancelled.rows_affected() == 1)
}

/// Reschedules a message that isn't leased; `false` if there is none.
pub(crate) async fn reschedule(
    connection: &mut PgConnection,
    queue: &QueueName,
    message: MessageId,
    visible: Visible,
) -> Result<bool> {
    let times = visible.times();
    let moved = sqlx::query!(
        "update pgqrs.messages m
         set visible_at =
                 greatest($3::timestamptz, statement_timestamp() + $4::bigint * interval '1 microsecond'),
             lease_until = '-infinity',
             lease_token = 0
         from pgqrs.queues q
         where q.name = $1 and m.queue_id = q.id and m.id = $2
             and m.lease_until <= statement_timestamp()",
        queue.as_str(),
        message.get(),
        times.not_before,
        times.delay,
    )
    .execute(connection)
    .await?;
    Ok(moved.rows_affected() == 1)
}

/// Makes all messages that a worker holds ready again; `None` if there is no such worker.
pub(crate) async fn release_of(
    connection: &mut PgConnection,
    worker: WorkerId,
) -> Result<Option<u64>> {
    let released = sqlx::query_scalar!(
        r#"
        with worker as (
            select id, queue_id from pgqrs.workers where id = $1
        ), released as (
            update pgqrs.messages m
            -- Not only the lease: every watermark is past the old time.
            set visible_at = statement_timestamp(), lease_until = '-infinity', lease_token = 0, consumer_id = 0
            from worker
            where m.queue_id = worker.queue_id and m.consumer_id = worker.id
                and m.lease_until > statement_timestamp()
            returning m.id
        )
        select (select count(*) from released) as "count!" from worker
        "#,
        worker.get(),
    )
    .fetch_optional(connection)
    .await?;
    Ok(released.map(i64::unsigned_abs))
}

/// Notifies listening processes that messages are ready in these queues.
pub(crate) async fn notify(
    connection: &mut PgConnection,
    channel: &str,
    queues: &[String],
) -> Result<()> {
    sqlx::query!(
        r#"select pg_notify($1, queue) as "sent: ()" from unnest($2::text[]) as queue"#,
        channel,
        queues,
    )
    .fetch_all(connection)
    .await?;
    Ok(())
}
