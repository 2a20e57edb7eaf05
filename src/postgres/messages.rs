//! Statements on `pgqrs.messages`: in, out, and settled. For the verbs of the API, each of which is one
//! statement here. All of them carry the queue, since it leads every key.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::{Connection, PgConnection};

use crate::{
    error::Result,
    lifecycle::WorkerId,
    message::{Envelope, Message, MessageId, Priority, Visible, microseconds},
    postgres::workers,
    queue::QueueName,
};

/// The most messages, and about the most bytes of payload, that one statement carries.
const CHUNK_MESSAGES: usize = 1_000;
const CHUNK_BYTES: usize = 64 << 20;

/// Ids in the order of the payloads. One statement; or, where there is too much for one, a transaction
/// around a few of them (a savepoint, inside the caller's own).
pub(crate) async fn insert(
    connection: &mut PgConnection,
    envelope: &Envelope,
    payloads: &[String],
) -> Result<Vec<MessageId>> {
    let (first, mut rest) = next_chunk(payloads);
    if rest.is_empty() {
        return insert_chunk(connection, envelope, envelope.visible, first).await;
    }
    let mut transaction = connection.begin().await?;
    // A batch becomes visible at one time, not chunk by chunk.
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

/// What fits into one statement, and what is left. Takes at least one payload, where there is one.
fn next_chunk(payloads: &[String]) -> (&[String], &[String]) {
    let mut bytes = 0;
    let fitting = payloads.iter().take(CHUNK_MESSAGES).take_while(|payload| {
        bytes += payload.len();
        bytes <= CHUNK_BYTES
    });
    payloads.split_at(fitting.count().max(1).min(payloads.len()))
}

async fn insert_chunk(
    connection: &mut PgConnection,
    envelope: &Envelope,
    visible: Visible,
    payloads: &[String],
) -> Result<Vec<MessageId>> {
    let Envelope {
        queue,
        producer,
        priority,
        ..
    } = envelope;
    let (exactly, not_before, delay) = visible.bounds();
    let mut ids = sqlx::query_scalar!(
        "insert into pgqrs.messages (queue_id, priority, visible_at, enqueued_at, producer_id, payload)
         select
             q.id,
             $2,
             -- The statement's time and not the transaction's: the caller's own may be long open.
             coalesce(
                 $3::timestamptz,
                 greatest($4::timestamptz, statement_timestamp() + $5::bigint * interval '1 microsecond')
             ),
             statement_timestamp(),
             $6::bigint,
             batch.payload::json
         from pgqrs.queues q
         cross join unnest($7::text[]) with ordinality as batch (payload, place)
         where q.name = $1
             -- A suspended or stopped producer finds no queue.
             and ($6::bigint is null or exists (
                 select from pgqrs.workers w where w.id = $6 and w.queue_id = q.id and w.status = 'ready'
             ))
         order by batch.place
         returning id",
        queue.as_str(),
        priority.rank(),
        exactly,
        not_before,
        delay,
        producer.map(WorkerId::get),
        payloads,
    )
    .fetch_all(&mut *connection)
    .await?;
    if ids.is_empty() {
        return Err(workers::refusal(connection, queue, *producer).await?);
    }
    // Ids were drawn in the batch's order; the rows come back in whatever order they were written.
    ids.sort_unstable();
    Ok(ids.into_iter().map(MessageId::from).collect())
}

/// When messages become visible that are enqueued now, by the database's clock.
async fn resolve(connection: &mut PgConnection, visible: Visible) -> Result<DateTime<Utc>> {
    let (_, not_before, delay) = visible.bounds();
    let time = sqlx::query_scalar!(
        r#"
        select greatest(
            $1::timestamptz, statement_timestamp() + $2::bigint * interval '1 microsecond'
        ) as "time!"
        "#,
        not_before,
        delay,
    )
    .fetch_one(connection)
    .await?;
    Ok(time)
}

/// Takes up to `limit` ready messages under a lease, in queue order.
///
/// To be run outside a transaction: it turns synchronous commit off for its own, and nobody else's.
pub(crate) async fn claim(
    connection: &mut PgConnection,
    queue: &QueueName,
    consumer: Option<WorkerId>,
    limit: u32,
    lease: Duration,
    lease_token: i64,
) -> Result<Vec<Message>> {
    let rows = sqlx::query!(
        r#"
        -- A claim that a crash of the server undoes is only delivered again: no need to wait for the disk.
        with setting as materialized (
            select set_config('synchronous_commit', 'off', true)
        ), queue as materialized (
            select q.id
            from pgqrs.queues q, setting
            where q.name = $1
                -- A suspended or stopped consumer finds no queue.
                and ($5::bigint is null or exists (
                    select from pgqrs.workers w where w.id = $5 and w.queue_id = q.id and w.status = 'ready'
                ))
        ), next as materialized (
            select ready.*
            from queue
            cross join (values (0::smallint), (1::smallint), (2::smallint), (3::smallint)) as level (priority)
            -- A range of the index for each priority, read only until there is enough: the levels come in
            -- their order, and each range is sorted already.
            cross join lateral (
                select m.ctid as place, m.id, m.visible_at
                from pgqrs.messages m
                where m.queue_id = queue.id and m.priority = level.priority and m.visible_at <= now()
                order by m.visible_at, m.id
                limit $2
                for update skip locked
            ) ready
            limit $2
        ), claimed as (
            update pgqrs.messages m
            set visible_at = now() + $3::bigint * interval '1 microsecond',
                attempt = m.attempt + 1,
                lease_token = $4,
                consumer_id = $5
            -- The array is a fence: it runs once, so a plan can't claim more rows than the limit.
            where m.ctid = any (array(select place from next))
            returning m.id, m.priority, m.enqueued_at, m.attempt, m.visible_at, m.payload
        )
        -- A row without a message where the queue is there and nothing is ready; no row without a queue.
        select
            queue.id as "queue_id!",
            claimed.id as "id?",
            claimed.priority as "priority?",
            next.visible_at as "visible_at?",
            claimed.enqueued_at as "enqueued_at?",
            claimed.attempt as "attempt?",
            claimed.visible_at as "lease_expires_at?",
            claimed.payload::text as "payload?"
        from queue
        left join (claimed join next on next.id = claimed.id) on true
        "#,
        queue.as_str(),
        i64::from(limit),
        microseconds(lease),
        lease_token,
        consumer.map(WorkerId::get),
    )
    .fetch_all(&mut *connection)
    .await?;
    if rows.is_empty() {
        return Err(workers::refusal(connection, queue, consumer).await?);
    }
    let mut messages: Vec<Message> = rows
        .into_iter()
        .filter_map(|row| {
            Some(Message {
                queue_id: row.queue_id,
                id: MessageId::from(row.id?),
                priority: Priority::from_rank(row.priority?),
                visible_at: row.visible_at?,
                enqueued_at: row.enqueued_at?,
                attempt: row.attempt?,
                lease_token,
                lease_expires_at: row.lease_expires_at?,
                payload: row.payload?,
            })
        })
        .collect();
    // An UPDATE returns its rows as they lie in the table.
    messages.sort_unstable_by_key(|message| (message.priority, message.visible_at, message.id));
    Ok(messages)
}

/// Deletes a message whose lease is still held; `false` where it was lost.
pub(crate) async fn ack(
    connection: &mut PgConnection,
    queue_id: i32,
    id: MessageId,
    lease_token: i64,
) -> Result<bool> {
    let deleted = sqlx::query!(
        "delete from pgqrs.messages where queue_id = $1 and id = $2 and lease_token = $3",
        queue_id,
        id.get(),
        lease_token,
    )
    .execute(connection)
    .await?;
    Ok(deleted.rows_affected() == 1)
}
