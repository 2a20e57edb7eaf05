//! Acknowledgements of messages of any queues.

use sqlx::PgConnection;

use super::{Columns, message_ids, missing, twice};
use crate::{
    error::Result,
    message::{MessageId, Receipt},
};

/// Deletes messages of any queues whose leases are still held. Returns their ids.
pub(crate) async fn ack_each(
    connection: &mut PgConnection,
    receipts: &[Receipt],
) -> Result<Vec<MessageId>> {
    twice(connection, receipts, delete_each).await
}

async fn delete_each(
    connection: &mut PgConnection,
    receipts: &[Receipt],
) -> Result<Vec<MessageId>> {
    let Columns {
        ids,
        tokens,
        distinct_tokens,
        ..
    } = receipts.iter().collect();
    let queues: Vec<_> = receipts.iter().map(|receipt| receipt.queue_id).collect();
    let deleted = sqlx::query_scalar!(
        "delete from pgqrs.messages m
         where m.ctid = any (array(
             select held.place
             from unnest($1::integer[], $2::bigint[], $3::bigint[]) as receipt (queue_id, id, token)
             cross join lateral (
                 select m.ctid as place from pgqrs.messages m
                 where m.queue_id = receipt.queue_id and m.id = receipt.id and m.lease_token = receipt.token
                 offset 0
             ) held
         ))
             -- Again, for a version that another transaction has just made of it.
             and m.lease_token = any ($4)
         returning m.id",
        &queues,
        &ids,
        &tokens,
        &distinct_tokens,
    )
    .fetch_all(connection)
    .await?;
    Ok(message_ids(deleted))
}

/// The same, and moves those of queues that archive acknowledged messages to the archive.
pub(crate) async fn ack_or_archive_each(
    connection: &mut PgConnection,
    receipts: &[Receipt],
    archiving: &[i32],
) -> Result<Vec<MessageId>> {
    let mut settled = delete_or_archive_each(connection, receipts, archiving).await?;
    if settled.len() < receipts.len() {
        let missing = missing(receipts, &settled);
        settled.extend(delete_or_archive_each(connection, &missing, archiving).await?);
    }
    Ok(settled)
}

async fn delete_or_archive_each(
    connection: &mut PgConnection,
    receipts: &[Receipt],
    archiving: &[i32],
) -> Result<Vec<MessageId>> {
    let Columns {
        ids,
        tokens,
        distinct_tokens,
        ..
    } = receipts.iter().collect();
    let queues: Vec<_> = receipts.iter().map(|receipt| receipt.queue_id).collect();
    let settled = sqlx::query_scalar!(
        "with done as (
             delete from pgqrs.messages m
             where m.ctid = any (array(
                 select held.place
                 from unnest($1::integer[], $2::bigint[], $3::bigint[]) as receipt (queue_id, id, token)
                 cross join lateral (
                     select m.ctid as place from pgqrs.messages m
                     where m.queue_id = receipt.queue_id and m.id = receipt.id and m.lease_token = receipt.token
                     offset 0
                 ) held
             ))
                 -- Again, for a version that another transaction has just made of it.
                 and m.lease_token = any ($5)
             returning m.*
         ), archived as (
             insert into pgqrs.archive (
                 queue_id, id, priority, enqueued_at, attempt, producer_id, consumer_id, max_attempts, unique_key,
                 waiting_key, headers, payload
             )
             select queue_id, id, priority, enqueued_at, attempt, producer_id, nullif(consumer_id, 0), max_attempts,
                 unique_key, waiting_key, headers, payload
             from done
             where queue_id = any ($4)
         )
         select id from done",
        &queues,
        &ids,
        &tokens,
        archiving,
        &distinct_tokens,
    )
    .fetch_all(connection)
    .await?;
    Ok(message_ids(settled))
}
