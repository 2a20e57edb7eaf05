//! The insert of messages outside of a store's writers: on a pool, a connection, or in the caller's own transaction.

use sqlx::{Connection, PgConnection};

use crate::{
    error::Result,
    lifecycle::WorkerId,
    message::{Envelope, MessageId, NewMessage, Visible},
    postgres::{
        columns::{Columns, next_chunk},
        json::Json,
        keyed, visible, workers,
    },
    sent::Enqueued,
};

/// Inserts messages, and returns their ids in the order of the messages. One statement; if the batch is too large for
/// one, a transaction of several (a savepoint, inside the caller's own).
pub(crate) async fn insert(
    connection: &mut PgConnection,
    envelope: &Envelope,
    messages: &[NewMessage],
) -> Result<Enqueued> {
    if messages.iter().any(|message| message.options().is_some()) {
        // Boxed: it is large, and would be a part of each send.
        return Box::pin(keyed::insert(connection, envelope, messages)).await;
    }
    let (first, mut rest) = next_chunk(messages);
    if rest.is_empty() {
        let ids = insert_chunk(connection, envelope, envelope.visible, first).await?;
        return Ok(Enqueued::new(ids));
    }
    let mut transaction = connection.begin().await?;
    // All of a batch becomes visible at the same time, not chunk by chunk.
    let visible = Visible::Exactly(visible::resolve(&mut transaction, envelope.visible).await?);
    let mut ids = insert_chunk(&mut transaction, envelope, visible, first).await?;
    while !rest.is_empty() {
        let (chunk, after) = next_chunk(rest);
        ids.extend(insert_chunk(&mut transaction, envelope, visible, chunk).await?);
        rest = after;
    }
    transaction.commit().await?;
    Ok(Enqueued::new(ids))
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
    if columns.has_headers() {
        return insert_with_headers(connection, envelope, visible, &columns).await;
    }
    let ids = sqlx::query_scalar!(
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
             where q.name = $1 and q.closed_at is null
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
    check(connection, envelope, ids).await
}

/// The same with one column more, for messages of which some have headers.
async fn insert_with_headers(
    connection: &mut PgConnection,
    envelope: &Envelope,
    visible: Visible,
    columns: &Columns<'_>,
) -> Result<Vec<MessageId>> {
    let times = visible.times();
    let ids = sqlx::query_scalar!(
        "insert into pgqrs.messages (
             queue_id, priority, visible_at, enqueued_at, producer_id, headers, payload_bytes, payload
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
             m.headers,
             -- Without its header of four bytes.
             pg_column_size(m.payload) - 4,
             m.payload
         from (
             -- In the list and not after `from`: there all rows would be written down before the first is used.
             select q.id as queue_id, unnest($7::json[]) as headers, unnest($8::json[]) as payload
             from pgqrs.queues q
             where q.name = $1 and q.closed_at is null
                 -- A suspended or stopped producer finds no queue.
                 and ($6::bigint is null or exists (
                     select from pgqrs.workers w
                     where w.id = $6 and w.queue_id = q.id and w.status = 'ready'
                 ))
         ) m
         returning id",
        envelope.queue.as_str(),
        envelope.priority.rank(),
        times.exactly,
        times.not_before,
        times.delay,
        envelope.producer.map(WorkerId::get),
        &columns.headers as &[Option<Json<'_>>],
        &columns.payloads as &[Json<'_>],
    )
    .fetch_all(&mut *connection)
    .await?;
    check(connection, envelope, ids).await
}

async fn check(
    connection: &mut PgConnection,
    envelope: &Envelope,
    mut ids: Vec<i64>,
) -> Result<Vec<MessageId>> {
    if ids.is_empty() {
        return Err(workers::refusal_of_send(
            connection,
            &envelope.queue,
            envelope.producer,
            false,
        )
        .await?);
    }
    // Ids are drawn in the batch's order; the order in which the rows are returned isn't guaranteed.
    ids.sort_unstable();
    Ok(ids.into_iter().map(MessageId::from).collect())
}
