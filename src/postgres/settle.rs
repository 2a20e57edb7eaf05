//! Statements that end or extend leases: ack, archive, release, extend, [`failures`], and those of messages with groups
//! ([`grouped`]). A message is identified by its
//! [`Receipt`], and a stale receipt changes nothing.
//!
//! Many messages are found by primary key one by one, and then changed by `ctid`: a join has plans that read the whole
//! queue, which the planner chooses while the table is new, and a connection keeps. The price: a message that was
//! changed while the statement ran, for example by an extension of its lease, has moved and isn't found. So missing
//! messages are looked up a second time.

pub(crate) mod each;
pub(crate) mod fail;
pub(crate) mod failures;
pub(crate) mod grouped;
mod lock_wait;
mod slow_down;
pub(crate) mod statement;

use std::{collections::HashSet, time::Duration};

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use crate::{
    error::Result,
    message::{MessageId, Receipt, microseconds},
};

/// Receipts of one queue, as columns.
struct Columns {
    queue_id: Option<i32>,
    ids: Vec<i64>,
    tokens: Vec<i64>,
    /// Each token once. The server compares one by one, and messages of a claim have the same.
    distinct_tokens: Vec<i64>,
}

impl<'a> FromIterator<&'a Receipt> for Columns {
    fn from_iter<I: IntoIterator<Item = &'a Receipt>>(receipts: I) -> Self {
        let mut columns = Self {
            queue_id: None,
            ids: Vec::new(),
            tokens: Vec::new(),
            distinct_tokens: Vec::new(),
        };
        for receipt in receipts {
            columns.queue_id = Some(receipt.queue_id);
            columns.ids.push(receipt.id.get());
            columns.tokens.push(receipt.token);
        }
        columns.distinct_tokens.clone_from(&columns.tokens);
        columns.distinct_tokens.sort_unstable();
        columns.distinct_tokens.dedup();
        columns
    }
}

/// Deletes a message whose lease is still held; `false` if it isn't.
pub(crate) async fn ack(connection: &mut PgConnection, receipt: Receipt) -> Result<bool> {
    let deleted = sqlx::query!(
        "delete from pgqrs.messages where queue_id = $1 and id = $2 and lease_token = $3",
        receipt.queue_id,
        receipt.id.get(),
        receipt.token,
    )
    .execute(connection)
    .await?;
    Ok(deleted.rows_affected() == 1)
}

/// Notes in a transaction that it has settled a message: a savepoint that it is rolled back to takes the note with it.
/// Returns the transaction's id; `None` outside of one.
pub(crate) async fn note_settled(
    connection: &mut PgConnection,
    receipt: Receipt,
) -> Result<Option<i64>> {
    let transaction = sqlx::query_scalar!(
        r#"select pg_current_xact_id_if_assigned()::text::bigint
        from set_config('pgqrs.settled', $1::bigint::text, true)"#,
        receipt.token,
    );
    Ok(transaction.fetch_one(connection).await?)
}

/// Whether a message, which a handler has settled itself, still is: in this transaction as it is noted there, and if it was
/// another one, because the message isn't there any more.
pub(crate) async fn is_settled(
    connection: &mut PgConnection,
    receipt: Receipt,
    transaction: Option<i64>,
) -> Result<bool> {
    let settled = sqlx::query_scalar!(
        r#"select
            case when pg_current_xact_id_if_assigned()::text::bigint = $4
                then coalesce(current_setting('pgqrs.settled', true) = $3::bigint::text, false)
                else not exists (
                    select from pgqrs.messages where queue_id = $1 and id = $2 and lease_token = $3
                )
            end as "settled!""#,
        receipt.queue_id,
        receipt.id.get(),
        receipt.token,
        transaction,
    );
    Ok(settled.fetch_one(connection).await?)
}

/// Deletes messages of one queue whose leases are still held. Returns only their number: returning each id costs both
/// sides more than deleting the message.
pub(crate) async fn ack_many(connection: &mut PgConnection, receipts: &[Receipt]) -> Result<u64> {
    let columns: Columns = receipts.iter().collect();
    let deleted = delete(connection, &columns).await?;
    if deleted < receipts.len() as u64 {
        return Ok(deleted + delete(connection, &columns).await?);
    }
    Ok(deleted)
}

async fn delete(connection: &mut PgConnection, columns: &Columns) -> Result<u64> {
    let deleted = sqlx::query!(
        "delete from pgqrs.messages m
         where m.ctid = any (array(
             select held.place
             from unnest($2::bigint[], $3::bigint[]) as receipt (id, token)
             cross join lateral (
                 select m.ctid as place from pgqrs.messages m
                 where m.queue_id = $1 and m.id = receipt.id and m.lease_token = receipt.token
                 offset 0
             ) held
         ))
             -- Again, for a version that another transaction has just made of it.
             and m.lease_token = any ($4)",
        columns.queue_id,
        &columns.ids,
        &columns.tokens,
        &columns.distinct_tokens,
    )
    .execute(connection)
    .await?;
    Ok(deleted.rows_affected())
}

/// Moves messages of one queue whose leases are still held to the archive. Returns their ids.
pub(crate) async fn archive(
    connection: &mut PgConnection,
    receipts: &[Receipt],
) -> Result<Vec<MessageId>> {
    twice(connection, receipts, move_to_archive).await
}

async fn move_to_archive(
    connection: &mut PgConnection,
    receipts: &[Receipt],
) -> Result<Vec<MessageId>> {
    let columns: Columns = receipts.iter().collect();
    let archived = sqlx::query_scalar!(
        "with done as (
             delete from pgqrs.messages m
             where m.ctid = any (array(
                 select held.place
                 from unnest($2::bigint[], $3::bigint[]) as receipt (id, token)
                 cross join lateral (
                     select m.ctid as place from pgqrs.messages m
                     where m.queue_id = $1 and m.id = receipt.id and m.lease_token = receipt.token
                     offset 0
                 ) held
             ))
                 -- Again, for a version that another transaction has just made of it.
                 and m.lease_token = any ($4)
             returning m.*
         )
         insert into pgqrs.archive (
             queue_id, id, priority, enqueued_at, attempt, producer_id, consumer_id, max_attempts, unique_key, waiting_key,
             headers, payload
         )
         select queue_id, id, priority, enqueued_at, attempt, producer_id, nullif(consumer_id, 0), max_attempts,
             unique_key, waiting_key, headers, payload
         from done
         returning id",
        columns.queue_id,
        &columns.ids,
        &columns.tokens,
        &columns.distinct_tokens,
    )
    .fetch_all(connection)
    .await?;
    Ok(message_ids(archived))
}

/// Extends a lease from now on, and returns the time when it runs out; `None` if it isn't held any more. Waits for
/// another transaction that is changing the message, such as another extension.
pub(crate) async fn extend(
    connection: &mut PgConnection,
    receipt: Receipt,
    lease: Duration,
) -> Result<Option<DateTime<Utc>>> {
    let until = sqlx::query_scalar!(
        "update pgqrs.messages
         set lease_until = statement_timestamp() + $4::bigint * interval '1 microsecond'
         where queue_id = $1 and id = $2 and lease_token = $3
         returning lease_until",
        receipt.queue_id,
        receipt.id.get(),
        receipt.token,
        microseconds(lease),
    )
    .fetch_optional(connection)
    .await?;
    Ok(until)
}

/// A lease that was extended, and when it runs out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Extended {
    pub(crate) id: MessageId,
    pub(crate) expires_at: DateTime<Utc>,
}

/// Extends leases of messages of one queue from now on, unless they run longer already. Returns those that are still
/// held, except those that another transaction is changing.
pub(crate) async fn extend_many(
    connection: &mut PgConnection,
    receipts: &[Receipt],
    lease: Duration,
) -> Result<Vec<Extended>> {
    let columns: Columns = receipts.iter().collect();
    let rows = sqlx::query!(
        r#"
        update pgqrs.messages m
        -- A handler may have extended its own lease by more.
        set lease_until = greatest(m.lease_until, statement_timestamp() + $4::bigint * interval '1 microsecond')
        where m.ctid = any (array(
            select held.place
            from unnest($2::bigint[], $3::bigint[]) as receipt (id, token)
            cross join lateral (
                select m.ctid as place from pgqrs.messages m
                where m.queue_id = $1 and m.id = receipt.id and m.lease_token = receipt.token
                -- One that its handler is settling, in a transaction that takes its time, must not hold up
                -- the others; and needs no lease any more.
                for update skip locked
                offset 0
            ) held
        ))
        -- Somebody may have set it to 'infinity' by hand, and Rust has no such time.
        returning m.id, least(m.lease_until, timestamptz '262000-01-01 00:00+00') as "lease_until!"
        "#,
        columns.queue_id,
        &columns.ids,
        &columns.tokens,
        microseconds(lease),
    )
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Extended {
            id: MessageId::from(row.id),
            expires_at: row.lease_until,
        })
        .collect())
}

/// Makes messages of one queue ready again at once, and returns their number. No handler was called with `untouched`
/// messages, so this delivery doesn't count as an attempt.
pub(crate) async fn release(
    connection: &mut PgConnection,
    receipts: &[Receipt],
    untouched: bool,
) -> Result<u64> {
    let columns: Columns = receipts.iter().collect();
    let released = make_ready(connection, &columns, untouched).await?;
    if released < receipts.len() as u64 {
        return Ok(released + make_ready(connection, &columns, untouched).await?);
    }
    Ok(released)
}

async fn make_ready(
    connection: &mut PgConnection,
    columns: &Columns,
    untouched: bool,
) -> Result<u64> {
    let released = sqlx::query!(
        "update pgqrs.messages m
         -- Not only the lease: every watermark is past the old time.
         set visible_at = statement_timestamp(),
             lease_until = '-infinity',
             lease_token = 0,
             consumer_id = 0,
             attempt = m.attempt - $4::integer
         where m.ctid = any (array(
             select held.place
             from unnest($2::bigint[], $3::bigint[]) as receipt (id, token)
             cross join lateral (
                 select m.ctid as place from pgqrs.messages m
                 where m.queue_id = $1 and m.id = receipt.id and m.lease_token = receipt.token
                 offset 0
             ) held
         ))
             -- Again, for a version that another transaction has just made of it.
             and m.lease_token = any ($5)",
        columns.queue_id,
        &columns.ids,
        &columns.tokens,
        i32::from(untouched),
        &columns.distinct_tokens,
    )
    .execute(connection)
    .await?;
    Ok(released.rows_affected())
}

/// Settles messages by a statement, and once more those that it has missed. Returns the ids of the settled ones.
async fn twice(
    connection: &mut PgConnection,
    receipts: &[Receipt],
    statement: impl AsyncFn(&mut PgConnection, &[Receipt]) -> Result<Vec<MessageId>>,
) -> Result<Vec<MessageId>> {
    let mut settled = statement(connection, receipts).await?;
    if settled.len() < receipts.len() {
        settled.extend(statement(connection, &missing(receipts, &settled)).await?);
    }
    Ok(settled)
}

/// Of these messages of one queue, those that are still there: after a settlement, the ones whose leases were lost.
pub(crate) async fn still_queued(
    connection: &mut PgConnection,
    receipts: &[Receipt],
) -> Result<Vec<MessageId>> {
    let Columns { queue_id, ids, .. } = receipts.iter().collect();
    let found = sqlx::query_scalar!(
        "select found.id
         from unnest($2::bigint[]) as receipt (id)
         cross join lateral (
             select m.id from pgqrs.messages m where m.queue_id = $1 and m.id = receipt.id offset 0
         ) found",
        queue_id,
        &ids,
    )
    .fetch_all(connection)
    .await?;
    Ok(message_ids(found))
}

/// Receipts whose messages aren't among the settled.
pub(crate) fn missing(receipts: &[Receipt], settled: &[MessageId]) -> Vec<Receipt> {
    let settled: HashSet<_> = settled.iter().collect();
    let rest = receipts.iter().filter(|one| !settled.contains(&one.id));
    rest.copied().collect()
}

fn message_ids(rows: Vec<i64>) -> Vec<MessageId> {
    rows.into_iter().map(MessageId::from).collect()
}
