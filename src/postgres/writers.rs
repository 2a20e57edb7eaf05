//! Statements on `pgqrs.writers`: the numbers by which a send is stored exactly once. A number is used for one attempt.
//! Querying the outcome of an attempt also fences it, so that it can't take effect late.

pub(crate) mod with_headers;

use std::collections::HashMap;

use sqlx::PgConnection;

use crate::{
    error::{Error, Result},
    lifecycle::WorkerId,
    message::Envelope,
    postgres::{columns::Columns, json::Json},
    sent::Duplicate,
};

/// The number of one attempt of one writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Try {
    /// Identifies the writer.
    pub(crate) token: i64,
    /// Even; the odd number after it means that the attempt was fenced.
    pub(crate) sequence: i64,
}

/// Messages of one statement: of any queues, priorities and times.
pub(crate) struct Batch<'a> {
    pub(crate) envelopes: Vec<&'a Envelope>,
    pub(crate) ids: Vec<i64>,
    /// For each message the position of its envelope, from 1.
    pub(crate) envelope: Vec<i32>,
    pub(crate) columns: Columns<'a>,
}

/// The statement that stores a batch.
pub(crate) enum Shape<'a> {
    /// [`write_one`].
    One {
        envelope: &'a Envelope,
        id: i64,
        payload: &'a Json<'a>,
    },
    /// [`with_headers::write_one`].
    OneWithHeaders {
        envelope: &'a Envelope,
        id: i64,
        headers: &'a Json<'a>,
        payload: &'a Json<'a>,
    },
    /// [`write_alike`].
    Alike(&'a Envelope),
    /// [`with_headers::write_alike`].
    AlikeWithHeaders(&'a Envelope),
    /// [`write_mixed`].
    Mixed,
}

impl Batch<'_> {
    /// Chooses the fastest statement that can store the batch.
    pub(crate) fn shape(&self) -> Shape<'_> {
        let (envelope, id) = match (&self.envelopes[..], &self.ids[..]) {
            ([envelope], [id]) if envelope.producer.is_none() => (envelope, *id),
            ([envelope], _) if !self.columns.has_headers() => return Shape::Alike(envelope),
            ([envelope], _) => return Shape::AlikeWithHeaders(envelope),
            _ => return Shape::Mixed,
        };
        match (&self.columns.payloads[..], &self.columns.headers[..]) {
            ([payload], [Some(headers)]) => Shape::OneWithHeaders {
                envelope,
                id,
                headers,
                payload,
            },
            ([payload], _) => Shape::One {
                envelope,
                id,
                payload,
            },
            _ => Shape::Alike(envelope),
        }
    }
}

/// The outcome of a statement that completed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// All of the batch is stored.
    Stored,
    /// Nothing is stored, and the number is unused: the envelopes at these positions have a queue that doesn't exist
    /// or is closed, or a producer that may not send.
    Refused(Vec<usize>),
    /// Nothing was stored by this statement: its number was used before, or its writer's row is missing.
    Taken,
}

/// Draws ids for messages, ascending, and inserts the row of a new writer. Without that row, the writer stores nothing.
pub(crate) async fn reserve(
    connection: &mut PgConnection,
    new: Option<i64>,
    ids: usize,
) -> Result<Vec<i64>> {
    let mut reserved = sqlx::query_scalar!(
        r#"
        with begun as (
            insert into pgqrs.writers (token, sequence) select $1::bigint, 0 where $1 is not null
        )
        select array(
            select nextval('pgqrs.messages_id_seq') from generate_series(1, $2::bigint)
        ) as "ids!"
        "#,
        new,
        i64::try_from(ids).unwrap_or(i64::MAX),
    )
    .fetch_all(connection)
    .await?;
    reserved
        .pop()
        .ok_or_else(|| Error::from(sqlx::Error::RowNotFound))
}

/// Stores one message without a producer, as most single sends are. Arrays of one element and reading a producer's
/// state would make it a sixth slower.
pub(crate) async fn write_one(
    connection: &mut PgConnection,
    this: Try,
    envelope: &Envelope,
    id: i64,
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
         insert into pgqrs.messages (queue_id, id, priority, visible_at, enqueued_at, payload_bytes, payload)
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
             $10
         from advanced",
        this.token,
        this.sequence,
        envelope.queue.as_str(),
        id,
        envelope.priority.rank(),
        times.exactly,
        times.not_before,
        times.delay,
        i32::try_from(payload.0.len()).unwrap_or(i32::MAX),
        // Bound last, since what follows it may make the buffer grow by as much again.
        payload as &Json<'_>,
    )
    .execute(&mut *connection)
    .await?;
    if stored.rows_affected() > 0 {
        return Ok(Written::Stored);
    }
    why_nothing_is_stored(connection, this).await
}

/// Stores messages of one envelope, without a table of envelopes, which makes a few of them a quarter slower.
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
             queue_id, id, priority, visible_at, enqueued_at, producer_id, payload_bytes, payload
         )
         overriding system value
         select
             m.queue_id, m.id, $5, m.visible_at, statement_timestamp(), $4,
             -- Without its header of four bytes.
             pg_column_size(m.payload) - 4,
             m.payload
         from (
             -- In the list and not after `from`: there all rows would be written down before the first is used.
             select queue_id, visible_at, unnest($9::bigint[]) as id, unnest($10::json[]) as payload
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
        &batch.columns.payloads as &[Json<'_>],
    )
    .execute(&mut *connection)
    .await?;
    if stored.rows_affected() > 0 {
        return Ok(Written::Stored);
    }
    why_nothing_is_stored(connection, this).await
}

/// Why a statement for one envelope stored nothing. Its number is unused, so either the queue or the row was not found.
async fn why_nothing_is_stored(connection: &mut PgConnection, this: Try) -> Result<Written> {
    let has_row = sqlx::query_scalar!(
        r#"select exists (select from pgqrs.writers where token = $1) as "has_row!""#,
        this.token,
    )
    .fetch_one(connection)
    .await?;
    Ok(if has_row {
        Written::Refused(vec![0])
    } else {
        Written::Taken
    })
}

/// Stores messages of several envelopes, with or without headers.
pub(crate) async fn write_mixed(
    connection: &mut PgConnection,
    this: Try,
    batch: &Batch<'_>,
) -> Result<Written> {
    let times = |envelope: &&Envelope| envelope.visible.times();
    let envelopes = &batch.envelopes;
    let queues: Vec<_> = envelopes.iter().map(|e| e.queue.as_str()).collect();
    let exactly: Vec<_> = envelopes.iter().map(|e| times(e).exactly).collect();
    let not_before: Vec<_> = envelopes.iter().map(|e| times(e).not_before).collect();
    let delays: Vec<_> = envelopes.iter().map(|e| times(e).delay).collect();
    let producers: Vec<_> = envelopes
        .iter()
        .map(|e| e.producer.map(WorkerId::get))
        .collect();
    let priorities: Vec<_> = envelopes.iter().map(|e| e.priority.rank()).collect();
    let rows = sqlx::query!(
        r#"
        -- One row, with an array a column: what is common to many messages travels once.
        with envelopes as materialized (
            select
                array_agg(q.id order by e.place) as queue_ids,
                array_agg(
                    coalesce(
                        e.exactly,
                        greatest(e.not_before, statement_timestamp() + e.delay * interval '1 microsecond')
                    )
                    order by e.place
                ) as visible_at,
                bool_and(q.id is not null) as known
            from unnest($3::text[], $4::timestamptz[], $5::timestamptz[], $6::bigint[], $7::bigint[])
                with ordinality as e (queue, exactly, not_before, delay, producer, place)
            left join pgqrs.queues q
                on q.name = e.queue and q.closed_at is null
                -- A suspended or stopped producer finds no queue.
                and (e.producer is null or exists (
                    select from pgqrs.workers w
                    where w.id = e.producer and w.queue_id = q.id and w.status = 'ready'
                ))
        ), advanced as (
            -- An earlier try that is still under way holds the row's lock, and is waited for.
            update pgqrs.writers w set sequence = $2
            from envelopes
            where w.token = $1 and w.sequence < $2 and envelopes.known
            returning envelopes.queue_ids, envelopes.visible_at
        ), stored as (
            insert into pgqrs.messages (
                queue_id, id, priority, visible_at, enqueued_at, producer_id, headers, payload_bytes, payload
            )
            overriding system value
            select
                m.queue_ids[m.envelope],
                m.id,
                ($8::smallint[])[m.envelope],
                m.visible_at[m.envelope],
                statement_timestamp(),
                ($7::bigint[])[m.envelope],
                m.headers,
                -- Without its header of four bytes.
                pg_column_size(m.payload) - 4,
                m.payload
            from (
                -- In the list and not after `from`: there all rows would be written down before the first
                -- is used.
                select
                    queue_ids,
                    visible_at,
                    unnest($9::bigint[]) as id,
                    unnest($10::integer[]) as envelope,
                    -- Null for all of them if the array is empty.
                    unnest($11::json[]) as headers,
                    unnest($12::json[]) as payload
                from advanced
            ) m
        )
        select
            exists (select from advanced) as "stored!",
            envelopes.queue_ids as "queue_ids!: Vec<Option<i32>>"
        from envelopes
        "#,
        this.token,
        this.sequence,
        &queues as &[&str],
        &exactly as &[Option<chrono::DateTime<chrono::Utc>>],
        &not_before as &[Option<chrono::DateTime<chrono::Utc>>],
        &delays,
        &producers as &[Option<i64>],
        &priorities,
        &batch.ids,
        &batch.envelope,
        &batch.columns.headers as &[Option<Json<'_>>],
        &batch.columns.payloads as &[Json<'_>],
    )
    // Reads all of the answer, down to the end of the transaction: only then are the messages stored.
    .fetch_all(connection)
    .await?;
    let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
    if row.stored {
        return Ok(Written::Stored);
    }
    let unknown = row.queue_ids.iter().enumerate();
    let refused: Vec<_> = unknown
        .filter_map(|(place, queue_id)| queue_id.is_none().then_some(place))
        .collect();
    Ok(if refused.is_empty() {
        Written::Taken
    } else {
        Written::Refused(refused)
    })
}

/// Resolves an attempt and fences it: waits for the row's lock, and advances the sequence so that the attempt never can
/// commit, unless it has. Then it returns which messages weren't stored, since others have their keys.
pub(crate) async fn settle(
    connection: &mut PgConnection,
    this: Try,
) -> Result<Option<HashMap<i64, Duplicate>>> {
    let rows = sqlx::query!(
        r#"insert into pgqrs.writers as w (token, sequence) values ($1, $2::bigint + 1)
         on conflict (token) do update
             set sequence = case when w.sequence < $2 then $2 + 1 else w.sequence end
         returning sequence, duplicates, holders, same_payload as "same_payload: Vec<Option<bool>>""#,
        this.token,
        this.sequence,
    )
    .fetch_all(connection)
    .await?;
    match rows.into_iter().next() {
        Some(row) if row.sequence == this.sequence => Ok(Some(duplicates(
            row.duplicates,
            row.holders,
            row.same_payload,
        ))),
        Some(row) if row.sequence == this.sequence + 1 => Ok(None),
        // No writer continues before its last attempt is resolved, so there is no such row.
        _ => Err(sqlx::Error::RowNotFound.into()),
    }
}

/// From the columns, which are null if there are none.
pub(super) fn duplicates(
    ids: Option<Vec<i64>>,
    holders: Option<Vec<i64>>,
    same_payload: Option<Vec<Option<bool>>>,
) -> HashMap<i64, Duplicate> {
    let ids = ids.unwrap_or_default().into_iter();
    let holders = holders.unwrap_or_default();
    let same_payload = same_payload.unwrap_or_default();
    let duplicates = holders.into_iter().zip(same_payload);
    let duplicates = duplicates.map(|(holder, same_payload)| Duplicate {
        holder,
        same_payload,
    });
    ids.zip(duplicates).collect()
}

/// Deletes rows of writers that ended long ago.
pub(crate) async fn prune(connection: &mut PgConnection) -> Result<()> {
    sqlx::query!(
        "delete from pgqrs.writers
         where token = any (array(
             select token from pgqrs.writers
             where created_at < now() - interval '1 day'
             order by created_at
             limit 1000
             for update skip locked
         ))",
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Deletes keys whose time is over, and returns how many: at most a thousand.
pub(crate) async fn prune_seen(connection: &mut PgConnection) -> Result<u64> {
    let pruned = sqlx::query!(
        "delete from pgqrs.seen
         where ctid = any (array(
             select ctid from pgqrs.seen
             where until < statement_timestamp()
             order by until
             limit 1000
             for update skip locked
         ))",
    )
    .execute(connection)
    .await?;
    Ok(pruned.rows_affected())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        message::{NewMessage, Priority, Visible},
        queue::QueueName,
    };

    fn envelope(queue: &'static str, producer: Option<WorkerId>) -> Envelope {
        Envelope {
            queue: QueueName::new(queue).expect("a name"),
            producer,
            priority: Priority::Normal,
            visible: Visible::Now,
        }
    }

    fn shape(envelopes: &[&Envelope], messages: &[NewMessage]) -> &'static str {
        let batch = Batch {
            envelopes: envelopes.to_vec(),
            ids: (0..).take(messages.len()).collect(),
            envelope: vec![1; messages.len()],
            columns: Columns::of(messages),
        };
        match batch.shape() {
            Shape::One { .. } => "one",
            Shape::OneWithHeaders { .. } => "one with headers",
            Shape::Alike(_) => "alike",
            Shape::AlikeWithHeaders(_) => "alike with headers",
            Shape::Mixed => "mixed",
        }
    }

    #[test]
    fn each_batch_is_stored_by_the_fastest_statement_that_can() {
        let two = vec![NewMessage::new("1".to_owned()); 2];
        let one = &two[..1];
        let (plain, other) = (envelope("tasks", None), envelope("emails", None));
        let of_producer = envelope("tasks", Some(WorkerId::from(7)));
        assert_eq!(shape(&[&plain], one), "one");
        assert_eq!(shape(&[&plain], &two), "alike");
        // `write_one` doesn't read the producer's state.
        assert_eq!(shape(&[&of_producer], one), "alike");
        assert_eq!(shape(&[&plain, &other], &two), "mixed");

        let mut two = two.clone();
        two[0].set_headers("{}".into());
        let one = &two[..1];
        assert_eq!(shape(&[&plain], one), "one with headers");
        assert_eq!(shape(&[&plain], &two), "alike with headers");
        assert_eq!(shape(&[&of_producer], one), "alike with headers");
        assert_eq!(shape(&[&plain, &other], &two), "mixed");
    }
}
