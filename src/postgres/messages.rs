//! Statements on `pgqrs.messages` besides inserts, claims and settlements: list, cancel, reschedule, release. All of them
//! filter by queue, which is the first column of every key.

use sqlx::PgConnection;

use crate::{
    admin::rows::QueuedMessage,
    error::Result,
    key::payload_hash,
    lifecycle::WorkerId,
    message::{MessageId, Page, Priority, Visible},
    postgres::json::{Json, JsonText, headers},
    queue::QueueName,
};

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
                least(
                    case when m.group_key is not null and m.visible_at = 'infinity' then m.due_at else m.visible_at end,
                    timestamptz '262000-01-01 00:00+00'
                ),
                timestamptz '0001-01-01 00:00+00'
            ) as "visible_at!",
            m.group_key, m.group_key is not null and m.visible_at = 'infinity' as "is_parked!",
            m.enqueued_at, m.attempt, m.producer_id, nullif(m.consumer_id, 0) as consumer_id,
            case
                when m.lease_until > statement_timestamp()
                then least(m.lease_until, timestamptz '262000-01-01 00:00+00')
            end as lease_expires_at,
            m.max_attempts, coalesce(m.snoozes, 0) as "snoozes!", m.undecodable_since,
            case
                when m.expires_at is not null
                then greatest(
                    least(m.expires_at, timestamptz '262000-01-01 00:00+00'), timestamptz '0001-01-01 00:00+00'
                )
            end as expires_at,
            m.unique_key, m.waiting_key, m.last_error,
            m.headers as "headers?: JsonText",
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
        group: row.group_key,
        is_parked: row.is_parked,
        enqueued_at: row.enqueued_at,
        attempt: row.attempt.unsigned_abs(),
        max_attempts: row.max_attempts.map(i32::unsigned_abs),
        expires_at: row.expires_at,
        snoozes: row.snoozes.unsigned_abs(),
        undecodable_since: row.undecodable_since,
        lease_expires_at: row.lease_expires_at,
        producer: row.producer_id.map(WorkerId::from),
        consumer: row.consumer_id.map(WorkerId::from),
        unique_key: row.unique_key,
        waiting_key: row.waiting_key,
        last_error: row.last_error,
        headers: headers(row.headers),
        payload: row.payload,
    });
    Ok(messages.collect())
}

/// Deletes a message, leased or not, and notifies its consumer; `None` if there is none.
pub(crate) async fn cancel(
    connection: &mut PgConnection,
    queue: &QueueName,
    message: MessageId,
    archive: bool,
    channel: &str,
) -> Result<Option<CancelledMessage>> {
    let cancelled = sqlx::query_as!(
        CancelledMessage,
        r#"
        with in_group as materialized (
            select m.queue_id, m.group_key
            from pgqrs.queues q
            join pgqrs.messages m on m.queue_id = q.id and m.id = $2
            where q.name = $1 and m.group_key is not null
        ), locked as materialized (
            select count(*) as groups from in_group
            cross join lateral pgqrs.lock_groups(array[in_group.queue_id], array[in_group.group_key::text], null)
        ), cancelled as (
            delete from pgqrs.messages m
            using pgqrs.queues q, locked
            where q.name = $1 and m.queue_id = q.id and m.id = $2 and (m.group_key is null or locked.groups > 0)
            returning m.*
        ), archived as (
            insert into pgqrs.archive (
                queue_id, id, priority, enqueued_at, attempt, producer_id, consumer_id, max_attempts, unique_key,
                waiting_key, headers, payload, group_key
            )
            select queue_id, id, priority, enqueued_at, attempt, producer_id, nullif(consumer_id, 0), max_attempts,
                unique_key, waiting_key, headers, payload, group_key
            from cancelled
            where $3
        ), settled as materialized (
            select case when count(group_key) > 0 then
                pgqrs.settle_groups(
                    array_agg(queue_id), array_agg(group_key::text),
                    array_agg(case when visible_at = 'infinity' then 'parked' else 'done' end), array_agg(id)
                )
            end as ready
            from cancelled
        ), notified as materialized (
            -- Here and not afterwards, so that it isn't lost with this process. A call of this kind is rare enough.
            select pg_notify($4, concat_ws(' ', queue_id, id, lease_token)) from cancelled where lease_token <> 0
        )
        select queue_id, id, lease_token, (select count(*) from notified) > 0 as "is_leased!",
            (select settled.ready is not null from settled) as "is_next_ready!"
        from cancelled
        "#,
        queue.as_str(),
        message.get(),
        archive,
        channel,
    )
    .fetch_optional(connection)
    .await?;
    Ok(cancelled)
}

/// The same for many messages. One that another transaction changes meanwhile may be left out.
pub(crate) async fn cancel_many(
    connection: &mut PgConnection,
    queue: &QueueName,
    messages: &[MessageId],
    channel: &str,
) -> Result<Vec<CancelledMessage>> {
    let ids: Vec<_> = messages.iter().map(|id| id.get()).collect();
    let cancelled = sqlx::query_as!(
        CancelledMessage,
        r#"
        with found as materialized (
            select q.id as queue_id, found.place, found.group_key
            from pgqrs.queues q
            cross join unnest($2::bigint[]) as wanted (id)
            -- One by one: a list of ids has plans that read the whole queue.
            cross join lateral (
                select m.ctid as place, m.group_key from pgqrs.messages m
                where m.queue_id = q.id and m.id = wanted.id
                offset 0
            ) found
            where q.name = $1
        ), locked as materialized (
            select l.key
            from pgqrs.lock_groups(
                array(select queue_id from found where group_key is not null),
                array(select group_key from found where group_key is not null),
                null
            ) l
        ), cancelled as (
            delete from pgqrs.messages m
            where m.ctid = any (array(
                select found.place from found
                where found.group_key is null or found.group_key in (select locked.key from locked)
            ))
                -- Again, for a version that another transaction has just made of it.
                and m.id = any ($2)
            returning m.queue_id, m.id, m.lease_token, m.group_key, m.visible_at
        ), settled as materialized (
            select case when count(*) > 0 then
                pgqrs.settle_groups(
                    array_agg(queue_id), array_agg(group_key::text),
                    array_agg(case when visible_at = 'infinity' then 'parked' else 'done' end), array_agg(id)
                )
            end as ready
            from cancelled
            where group_key is not null
        ), notified as materialized (
            select pg_notify($3, concat_ws(' ', queue_id, id, lease_token)) from cancelled where lease_token <> 0
        )
        select queue_id, id, lease_token,
            -- Counted so that it is executed.
            lease_token <> 0 and (select count(*) from notified) > 0 as "is_leased!",
            (select settled.ready is not null from settled) as "is_next_ready!"
        from cancelled
        order by id
        "#,
        queue.as_str(),
        &ids,
        channel,
    )
    .fetch_all(connection)
    .await?;
    Ok(cancelled)
}

/// The same for all messages that have a key.
pub(crate) async fn cancel_key(
    connection: &mut PgConnection,
    queue: &QueueName,
    key: &str,
    archive: bool,
    channel: &str,
) -> Result<Vec<CancelledMessage>> {
    let cancelled = sqlx::query_as!(
        CancelledMessage,
        r#"
        with holders as materialized (
            select q.id as queue_id,
                (select m.id from pgqrs.messages m where m.queue_id + 0 = q.id and m.unique_key = $2) as by_unique_key,
                (select m.id from pgqrs.messages m where m.queue_id + 0 = q.id and m.waiting_key = $2) as by_waiting_key,
                (
                    select s.message_id from pgqrs.seen s
                    where s.queue_id = q.id and s.key = $2 and s.until > statement_timestamp()
                ) as by_seen_key
            from pgqrs.queues q
            where q.name = $1
        -- One by one, and by its id: a join, or a list of ids, has plans that read the whole queue.
        ), with_unique_key as (
            delete from pgqrs.messages m
            where m.queue_id = (select queue_id from holders) and m.id = (select by_unique_key from holders)
            returning m.*
        ), with_waiting_key as (
            delete from pgqrs.messages m
            where m.queue_id = (select queue_id from holders) and m.id = (select by_waiting_key from holders)
                -- A claim may have taken it meanwhile. With `=`, an index would be read for it.
                and m.waiting_key is not distinct from $2
            returning m.*
        ), with_seen_key as (
            delete from pgqrs.messages m
            where m.queue_id = (select queue_id from holders) and m.id = (select by_seen_key from holders)
            returning m.*
        ), cancelled as (
            select * from with_unique_key
            union all select * from with_waiting_key
            union all select * from with_seen_key
        ), archived as (
            insert into pgqrs.archive (
                queue_id, id, priority, enqueued_at, attempt, producer_id, consumer_id, max_attempts, unique_key,
                waiting_key, headers, payload
            )
            select queue_id, id, priority, enqueued_at, attempt, producer_id, nullif(consumer_id, 0), max_attempts,
                unique_key, waiting_key, headers, payload
            from cancelled
            where $3
        ), notified as materialized (
            select pg_notify($4, concat_ws(' ', queue_id, id, lease_token)) from cancelled where lease_token <> 0
        )
        select queue_id as "queue_id!", id as "id!", lease_token as "lease_token!",
            -- Counted so that it is executed.
            lease_token <> 0 and (select count(*) from notified) > 0 as "is_leased!",
            -- A message with a key has no group.
            false as "is_next_ready!"
        from cancelled
        order by id
        "#,
        queue.as_str(),
        key,
        archive,
        channel,
    )
    .fetch_all(connection)
    .await?;
    Ok(cancelled)
}

/// A message that was cancelled.
#[derive(Debug)]
pub(crate) struct CancelledMessage {
    pub(crate) queue_id: i32,
    pub(crate) id: i64,
    pub(crate) lease_token: i64,
    /// Whether a consumer had claimed it and not settled it, even if its lease has run out: it may still be at work.
    pub(crate) is_leased: bool,
    /// Whether another message of its group is ready now.
    pub(crate) is_next_ready: bool,
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
         set visible_at = case
                 -- One that is parked stays so, and is promoted to this time.
                 when m.group_key is not null and m.visible_at = 'infinity' then m.visible_at
                 else greatest($3::timestamptz, statement_timestamp() + $4::bigint * interval '1 microsecond')
             end,
             due_at = case
                 when m.group_key is not null and m.visible_at = 'infinity'
                 then greatest($3::timestamptz, statement_timestamp() + $4::bigint * interval '1 microsecond')
             end,
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

/// The same for many messages. Returns the number of them; one that another transaction changes meanwhile may be left out.
pub(crate) async fn reschedule_many(
    connection: &mut PgConnection,
    queue: &QueueName,
    messages: &[MessageId],
    visible: Visible,
) -> Result<u64> {
    let ids: Vec<_> = messages.iter().map(|id| id.get()).collect();
    let times = visible.times();
    let moved = sqlx::query!(
        "update pgqrs.messages m
         set visible_at = case
                 -- One that is parked stays so, and is promoted to this time.
                 when m.group_key is not null and m.visible_at = 'infinity' then m.visible_at
                 else greatest($3::timestamptz, statement_timestamp() + $4::bigint * interval '1 microsecond')
             end,
             due_at = case
                 when m.group_key is not null and m.visible_at = 'infinity'
                 then greatest($3::timestamptz, statement_timestamp() + $4::bigint * interval '1 microsecond')
             end,
             lease_until = '-infinity',
             lease_token = 0
         -- One by one, by their places: a list of ids has plans that read the whole queue.
         where m.ctid = any (array(
             select found.place
             from pgqrs.queues q
             cross join unnest($2::bigint[]) as wanted (id)
             cross join lateral (
                 select m.ctid as place from pgqrs.messages m where m.queue_id = q.id and m.id = wanted.id offset 0
             ) found
             where q.name = $1
         ))
             -- Again, for a version that another transaction has just made of it.
             and m.id = any ($2)
             and m.lease_until <= statement_timestamp()",
        queue.as_str(),
        &ids,
        times.not_before,
        times.delay,
    )
    .execute(connection)
    .await?;
    Ok(moved.rows_affected())
}

/// Replaces the payload of a message that isn't leased; `false` if there is none.
pub(crate) async fn edit(
    connection: &mut PgConnection,
    queue: &QueueName,
    message: MessageId,
    payload: &str,
) -> Result<bool> {
    let edited = sqlx::query!(
        "update pgqrs.messages m
         set payload = $3,
             payload_bytes = octet_length($3::json::text),
             payload_hash = case when m.payload_hash is not null then $4::bytea end,
             undecodable_since = null
         from pgqrs.queues q
         where q.name = $1 and m.queue_id = q.id and m.id = $2
             and m.lease_until <= statement_timestamp()",
        queue.as_str(),
        message.get(),
        Json(payload) as Json<'_>,
        payload_hash(payload),
    )
    .execute(connection)
    .await?;
    Ok(edited.rows_affected() == 1)
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
