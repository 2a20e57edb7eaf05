//! The statements for messages of one envelope of which some have headers. Each differs from its namesake in
//! `postgres/writers.rs` by one column and one parameter, and exists so that a send without headers has neither.

use sqlx::PgConnection;

use super::{Batch, Try, Written, why_nothing_is_stored};
use crate::{error::Result, lifecycle::WorkerId, message::Envelope, postgres::json::Json};

/// Stores one message without a producer.
pub(crate) async fn write_one(
    connection: &mut PgConnection,
    this: Try,
    envelope: &Envelope,
    id: i64,
    headers: &Json<'_>,
    payload: &Json<'_>,
) -> Result<Written> {
    let times = envelope.visible.times();
    let stored = sqlx::query!(
        "with advanced as (
             -- An earlier try that is still under way holds the row's lock, and is waited for.
             update pgqrs.writers w set sequence = $2
             from pgqrs.queues q
             where w.token = $1 and w.sequence < $2 and q.name = $3 and q.closed_at is null
             returning q.id as queue_id
         )
         insert into pgqrs.messages (
             queue_id, id, priority, visible_at, enqueued_at, headers, payload_bytes, payload
         )
         overriding system value
         select
             queue_id,
             $4,
             $5,
             coalesce(
                 $6::timestamptz,
                 greatest($7::timestamptz, statement_timestamp() + $8::bigint * interval '1 microsecond')
             ),
             statement_timestamp(),
             $9,
             $10,
             $11
         from advanced",
        this.token,
        this.sequence,
        envelope.queue.as_str(),
        id,
        envelope.priority.rank(),
        times.exactly,
        times.not_before,
        times.delay,
        headers as &Json<'_>,
        i32::try_from(payload.0.len()).unwrap_or(i32::MAX),
        payload as &Json<'_>,
    )
    .execute(&mut *connection)
    .await?;
    if stored.rows_affected() > 0 {
        return Ok(Written::Stored);
    }
    why_nothing_is_stored(connection, this).await
}

/// Stores messages, of which some may have no headers.
pub(crate) async fn write_alike(
    connection: &mut PgConnection,
    this: Try,
    envelope: &Envelope,
    batch: &Batch<'_>,
) -> Result<Written> {
    let times = envelope.visible.times();
    let stored = sqlx::query!(
        "with advanced as (
             -- An earlier try that is still under way holds the row's lock, and is waited for.
             update pgqrs.writers w set sequence = $2
             from pgqrs.queues q
             where w.token = $1 and w.sequence < $2 and q.name = $3 and q.closed_at is null
                 -- A suspended or stopped producer finds no queue.
                 and ($4::bigint is null or exists (
                     select from pgqrs.workers w
                     where w.id = $4 and w.queue_id = q.id and w.status = 'ready'
                 ))
             returning
                 q.id as queue_id,
                 -- The statement's time and not the transaction's: a large batch has several statements.
                 coalesce(
                     $6::timestamptz,
                     greatest($7::timestamptz, statement_timestamp() + $8::bigint * interval '1 microsecond')
                 ) as visible_at
         )
         insert into pgqrs.messages (
             queue_id, id, priority, visible_at, enqueued_at, producer_id, headers, payload_bytes, payload
         )
         overriding system value
         select
             m.queue_id, m.id, $5, m.visible_at, statement_timestamp(), $4, m.headers,
             -- Without its header of four bytes.
             pg_column_size(m.payload) - 4,
             m.payload
         from (
             -- In the list and not after `from`: there all rows would be written down before the first is used.
             select
                 queue_id, visible_at, unnest($9::bigint[]) as id, unnest($10::json[]) as headers,
                 unnest($11::json[]) as payload
             from advanced
         ) m",
        this.token,
        this.sequence,
        envelope.queue.as_str(),
        envelope.producer.map(WorkerId::get),
        envelope.priority.rank(),
        times.exactly,
        times.not_before,
        times.delay,
        &batch.ids,
        &batch.columns.headers as &[Option<Json<'_>>],
        &batch.columns.payloads as &[Json<'_>],
    )
    .execute(&mut *connection)
    .await?;
    if stored.rows_affected() > 0 {
        return Ok(Written::Stored);
    }
    why_nothing_is_stored(connection, this).await
}
