//! Statements on `pgqrs.dead_letters`, for administration. A message is inserted here by a claim that finds its
//! attempts used up, or by a failure, both of which are statements on `pgqrs.messages`.

use std::time::Duration;

use sqlx::PgConnection;

use crate::{
    admin::rows::{DeadLetter, Requeued},
    error::{Error, Result},
    message::{MessageId, Page, Priority, age},
    postgres::{
        json::{JsonText, headers},
        keyed::KEY_TIMEOUT,
    },
    queue::QueueName,
};

pub(crate) async fn list(
    connection: &mut PgConnection,
    queue: &QueueName,
    page: &Page,
) -> Result<Vec<DeadLetter>> {
    let rows = sqlx::query!(
        r#"
        select d.id, d.priority, d.enqueued_at, d.attempt, d.max_attempts, d.unique_key, d.waiting_key, d.reason, d.last_error, d.died_at,
            d.headers as "headers?: JsonText",
            case when $4 then d.payload::text end as payload
        from pgqrs.queues q
        join pgqrs.dead_letters d on d.queue_id = q.id
        where q.name = $1 and d.id > $2
        order by d.id
        limit $3
        "#,
        queue.as_str(),
        page.after(),
        page.limit(),
        page.with_payload(),
    )
    .fetch_all(connection)
    .await?;
    let letters = rows.into_iter().map(|row| DeadLetter {
        id: MessageId::from(row.id),
        priority: Priority::from_rank(row.priority),
        enqueued_at: row.enqueued_at,
        attempt: row.attempt.unsigned_abs(),
        max_attempts: row.max_attempts.map(i32::unsigned_abs),
        unique_key: row.unique_key,
        waiting_key: row.waiting_key,
        reason: row.reason,
        last_error: row.last_error,
        died_at: row.died_at,
        headers: headers(row.headers),
        payload: row.payload,
    });
    Ok(letters.collect())
}

pub(crate) async fn count(connection: &mut PgConnection, queue: &QueueName) -> Result<Option<u64>> {
    let count = sqlx::query_scalar!(
        r#"
        select (select count(*) from pgqrs.dead_letters d where d.queue_id = q.id) as "count!"
        from pgqrs.queues q
        where q.name = $1
        "#,
        queue.as_str(),
    )
    .fetch_optional(connection)
    .await?;
    Ok(count.map(i64::unsigned_abs))
}

/// Requeues dead letters, ready and with all attempts before them, and without a time at which they expire: those with
/// these ids, or all that died before an age. Those whose key another message has stay dead letters. `None` if there is no such queue.
pub(crate) async fn requeue(
    connection: &mut PgConnection,
    queue: &QueueName,
    messages: Option<&[MessageId]>,
    older_than: Duration,
) -> Result<Option<Requeued>> {
    let ids = messages.map(|ids| ids.iter().map(|id| id.get()).collect::<Vec<_>>());
    let requeued = sqlx::query!(
        r#"
        with queue as materialized (
            select id from pgqrs.queues where name = $1
        ), wanted as materialized (
            select found.place
            from unnest($2::bigint[]) as wanted (id)
            -- One by one: a list of ids has plans that read all dead letters of the queue.
            cross join lateral (
                select d.ctid as place from pgqrs.dead_letters d
                where d.queue_id = (select id from queue) and d.id = wanted.id
                offset 0
            ) found
            union all
            select d.ctid from pgqrs.dead_letters d where $2::bigint[] is null and d.queue_id = (select id from queue)
        ), letters as materialized (
            select d.*
            from pgqrs.dead_letters d
            where d.ctid = any (array(select place from wanted)) and d.queue_id = (select id from queue)
                and d.died_at <= statement_timestamp() - $3::bigint * interval '1 microsecond'
            order by d.id
            for update
        ), limited as materialized (
            -- From here on. An open transaction that has stored a message with the same key is waited for, but not for long;
            -- others that requeue the same dead letters are waited for as usual.
            select count(*) as found, set_config('lock_timeout', $4::bigint::text, true) from letters
        ), requeued as (
            insert into pgqrs.messages (
                queue_id, id, priority, visible_at, enqueued_at, producer_id, max_attempts, unique_key, waiting_key,
                payload_hash, headers, last_error, payload_bytes, payload
            )
            overriding system value
            select queue_id, id, priority, statement_timestamp(), enqueued_at, producer_id, max_attempts, unique_key,
                waiting_key,
                -- As `payload_hash()` computes it.
                case
                    when coalesce(unique_key, waiting_key) is not null
                    then substring(sha256(convert_to(payload::text, 'UTF8')), 1, 16)
                end,
                headers, last_error, octet_length(payload::text), payload
            from letters, limited
            -- In the order of keys in which sends take them: no two wait for each other.
            order by waiting_key nulls first, unique_key, id
            on conflict do nothing
            returning id
        ), revived as (
            delete from pgqrs.dead_letters d
            using requeued
            where d.queue_id = (select id from queue) and d.id = requeued.id
        )
        select limited.found as "letters!", (select count(*) from requeued) as "back!" from queue, limited
        "#,
        queue.as_str(),
        ids.as_deref(),
        age(older_than),
        i64::try_from(KEY_TIMEOUT.as_millis()).unwrap_or(i64::MAX),
    )
    .fetch_optional(connection)
    .await
    .map_err(|error| Error::from(error).or_key_held(queue))?;
    Ok(requeued.map(|row| Requeued {
        back: row.back.unsigned_abs(),
        held: (row.letters - row.back).unsigned_abs(),
    }))
}

/// Returns the number of deleted dead letters; `None` if there is no such queue.
pub(crate) async fn purge(
    connection: &mut PgConnection,
    queue: &QueueName,
    older_than: Duration,
) -> Result<Option<u64>> {
    let purged = sqlx::query_scalar!(
        r#"
        with queue as (
            select id from pgqrs.queues where name = $1
        ), purged as (
            delete from pgqrs.dead_letters d
            using queue
            where d.queue_id = queue.id
                and d.died_at <= statement_timestamp() - $2::bigint * interval '1 microsecond'
            returning d.id
        )
        select (select count(*) from purged) as "count!" from queue
        "#,
        queue.as_str(),
        age(older_than),
    )
    .fetch_optional(connection)
    .await?;
    Ok(purged.map(i64::unsigned_abs))
}

/// Deletes the dead letters with these ids. Returns the number of them; `None` if there is no such queue.
pub(crate) async fn delete(
    connection: &mut PgConnection,
    queue: &QueueName,
    messages: &[MessageId],
) -> Result<Option<u64>> {
    let ids: Vec<_> = messages.iter().map(|id| id.get()).collect();
    let deleted = sqlx::query_scalar!(
        r#"
        with queue as materialized (
            select id from pgqrs.queues where name = $1
        ), deleted as (
            delete from pgqrs.dead_letters d
            where d.ctid = any (array(
                select found.place
                from unnest($2::bigint[]) as wanted (id)
                -- One by one: a list of ids has plans that read all dead letters of the queue.
                cross join lateral (
                    select d.ctid as place from pgqrs.dead_letters d
                    where d.queue_id = (select id from queue) and d.id = wanted.id
                    offset 0
                ) found
            ))
                and d.queue_id = (select id from queue)
            returning d.id
        )
        select (select count(*) from deleted) as "count!" from queue
        "#,
        queue.as_str(),
        &ids,
    )
    .fetch_optional(connection)
    .await?;
    Ok(deleted.map(i64::unsigned_abs))
}
