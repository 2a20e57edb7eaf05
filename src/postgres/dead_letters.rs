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
        select d.id, d.priority, d.enqueued_at, d.attempt, d.max_attempts, d.unique_key, d.waiting_key, d.group_key, d.reason,
            d.last_error, d.died_at,
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
        group: row.group_key,
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
            where group_key is null
            -- In the order of keys in which sends take them: no two wait for each other.
            order by waiting_key nulls first, unique_key, id
            on conflict do nothing
            returning id
        ), counted as (
            insert into pgqrs.groups as g (queue_id, key, parked, sent)
            select queue_id, group_key, count(*), 0
            from letters, limited
            where group_key is not null
            group by queue_id, group_key
            order by group_key
            on conflict (queue_id, key) do update
                set parked = g.parked + excluded.parked,
                    stopped_at = case when g.stopped_by in (select id from letters) then null else g.stopped_at end,
                    stopped_by = case when g.stopped_by in (select id from letters) then null else g.stopped_by end
            returning key
        ), parked as (
            -- At once promoted, if there is room. To the front: it is what the others were sent after.
            insert into pgqrs.messages (
                queue_id, id, priority, visible_at, enqueued_at, producer_id, max_attempts, group_key, group_place, headers,
                last_error, payload_bytes, payload
            )
            overriding system value
            select queue_id, id, priority, 'infinity', enqueued_at, producer_id, max_attempts, group_key,
                case when group_place > 0 then group_place - 4611686018427387904 else group_place end,
                headers, last_error, octet_length(payload::text), payload
            from letters
            where group_key is not null and (select count(*) from counted) > 0
            returning queue_id, id, group_key
        ), promoted as materialized (
            select pgqrs.settle_groups(
                array_agg(queue_id), array_agg(group_key::text), array_agg(null::text), array_agg(id)
            ) as ready
            from parked
        ), revived as (
            delete from pgqrs.dead_letters d
            using (select id from requeued union all select id from parked) back
            where d.queue_id = (select id from queue) and d.id = back.id
        )
        select limited.found as "letters!",
            (select count(*) from requeued) + (select count(*) from parked) as "back!",
            -- So that it is executed.
            (select promoted.ready is not null from promoted) as "is_next_ready!"
        from queue, limited
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

/// What a deletion of dead letters has done.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DeletedLetters {
    pub(crate) letters: i64,
    /// Whether messages of their groups are ready now.
    pub(crate) is_next_ready: bool,
}

/// Deletes dead letters that died before an age, and resumes the groups that they have stopped; `None` if there is no such
/// queue.
pub(crate) async fn purge(
    connection: &mut PgConnection,
    queue: &QueueName,
    older_than: Duration,
) -> Result<Option<DeletedLetters>> {
    let deleted = sqlx::query_as!(
        DeletedLetters,
        r#"
        with queue as (
            select id from pgqrs.queues where name = $1
        ), deleted as (
            delete from pgqrs.dead_letters d
            using queue
            where d.queue_id = queue.id
                and d.died_at <= statement_timestamp() - $2::bigint * interval '1 microsecond'
            returning d.queue_id, d.id, d.group_key
        ), locked as materialized (
            select l.queue_id, l.key
            from pgqrs.lock_groups(
                array(select queue_id from deleted where group_key is not null),
                array(select group_key from deleted where group_key is not null),
                null
            ) l
        ), resumed as (
            -- The groups that they have stopped.
            update pgqrs.groups g
            set stopped_at = null, stopped_by = null
            from locked l
            where g.queue_id = l.queue_id and g.key = l.key and g.stopped_by in (select deleted.id from deleted)
            returning g.queue_id, g.key
        )
        select (select count(*) from deleted) as "letters!",
            (
                select case when count(*) > 0 then
                    pgqrs.settle_groups(
                        array_agg(queue_id), array_agg(key::text), array_agg(null::text), array_agg(null::bigint)
                    )
                end
                from resumed
            ) is not null as "is_next_ready!"
        from queue
        "#,
        queue.as_str(),
        age(older_than),
    )
    .fetch_optional(connection)
    .await?;
    Ok(deleted)
}

/// The same for the dead letters with these ids.
pub(crate) async fn delete(
    connection: &mut PgConnection,
    queue: &QueueName,
    messages: &[MessageId],
) -> Result<Option<DeletedLetters>> {
    let ids: Vec<_> = messages.iter().map(|id| id.get()).collect();
    let deleted = sqlx::query_as!(
        DeletedLetters,
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
            returning d.queue_id, d.id, d.group_key
        ), locked as materialized (
            select l.queue_id, l.key
            from pgqrs.lock_groups(
                array(select queue_id from deleted where group_key is not null),
                array(select group_key from deleted where group_key is not null),
                null
            ) l
        ), resumed as (
            -- The groups that they have stopped.
            update pgqrs.groups g
            set stopped_at = null, stopped_by = null
            from locked l
            where g.queue_id = l.queue_id and g.key = l.key and g.stopped_by in (select deleted.id from deleted)
            returning g.queue_id, g.key
        )
        select (select count(*) from deleted) as "letters!",
            (
                select case when count(*) > 0 then
                    pgqrs.settle_groups(
                        array_agg(queue_id), array_agg(key::text), array_agg(null::text), array_agg(null::bigint)
                    )
                end
                from resumed
            ) is not null as "is_next_ready!"
        from queue
        "#,
        queue.as_str(),
        &ids,
    )
    .fetch_optional(connection)
    .await?;
    Ok(deleted)
}
