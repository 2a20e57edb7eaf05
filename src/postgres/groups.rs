//! Statements on `pgqrs.groups`, for administration. Sends and settlements, which count messages there, are statements on
//! `pgqrs.messages`.

use sqlx::PgConnection;

use crate::{
    admin::rows::{
        groups::{GroupInfo, GroupOrder},
        rate::Rate,
    },
    error::Result,
    message::{MessageId, microseconds},
    queue::QueueName,
};

/// Lists groups of a queue; only one if it is named.
pub(crate) async fn list(
    connection: &mut PgConnection,
    queue: &QueueName,
    group: Option<&str>,
    order: GroupOrder,
    limit: u32,
) -> Result<Vec<GroupInfo>> {
    let rows = sqlx::query!(
        r#"
        select g.key as "key!", g.live as "live!", g.parked as "parked!", g.at_once as "at_once?",
            g.stopped_at as "stopped_at?", g.stopped_by as "stopped_by?", g.rate_n as "rate_n?",
            (extract(epoch from g.rate_per) * 1000000)::bigint as "rate_per?", oldest.enqueued_at as "enqueued_at?"
        from (
            select g.*, q.id
            from pgqrs.queues q
            cross join lateral (
                select g.*, r.rate_n, r.rate_per
                from pgqrs.groups g
                left join pgqrs.group_rates r on r.queue_id = g.queue_id and r.key = g.key
                where g.queue_id = q.id
                union all
                -- Groups that have nothing but a rate of their own.
                select r.queue_id, r.key, 0, 0, 0, null, null, null, r.rate_n, r.rate_per
                from pgqrs.group_rates r
                where r.queue_id = q.id and r.rate_n is not null
                    and not exists (select from pgqrs.groups g where g.queue_id = r.queue_id and g.key = r.key)
            ) g
            where q.name = $1 and ($2::text is null or g.key = $2) and (not $3 or g.stopped_at is not null)
            order by case when $3 then g.stopped_at end, case when not $3 and not $4 then -g.parked end, g.key
            -- By age, the oldest message of each is looked up first.
            limit case when not $4 then $5::bigint end
        ) g
        left join lateral (
            select m.enqueued_at from pgqrs.messages m
            -- As `messages_parked` has it, and no other index.
            where m.queue_id + 0 = g.id and m.group_key = g.key and m.group_key is not null
                and m.visible_at = 'infinity'
            order by m.group_place, m.id
            limit 1
        ) oldest on g.parked > 0
        order by case when $3 then g.stopped_at when $4 then oldest.enqueued_at end,
            case when not $3 and not $4 then -g.parked end, g.key
        limit $5
        "#,
        queue.as_str(),
        group,
        order == GroupOrder::Stopped,
        order == GroupOrder::Oldest,
        i64::from(limit),
    )
    .fetch_all(connection)
    .await?;
    let groups = rows.into_iter().map(|row| GroupInfo {
        group: row.key,
        live: u64::from(row.live.unsigned_abs()),
        parked: row.parked.unsigned_abs(),
        at_once: row.at_once.map(i32::unsigned_abs),
        rate: Rate::of_columns(row.rate_n, row.rate_per),
        stopped_at: row.stopped_at,
        stopped_by: row.stopped_by.map(MessageId::from),
        oldest_parked: row.enqueued_at,
    });
    Ok(groups.collect())
}

/// What a statement has done with groups.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Promoted {
    /// Whether messages are ready now that were parked.
    pub(crate) is_next_ready: bool,
}

/// Lets as many messages of each group in as there is room for. Waits for no group that another transaction has locked:
/// its next settlement does the same. `None` if there is no such queue.
pub(crate) async fn promote(
    connection: &mut PgConnection,
    queue: &QueueName,
) -> Result<Option<Promoted>> {
    let promoted = sqlx::query!(
        r#"
        with waiting as materialized (
            select g.queue_id, g.key
            from pgqrs.queues q
            join pgqrs.groups g on g.queue_id = q.id
            where q.name = $1 and g.parked > 0 and g.stopped_at is null and g.live < coalesce(g.at_once, q.groups_at_once, 1)
        ), promoted as materialized (
            select pgqrs.settle_groups(
                array_agg(l.queue_id), array_agg(l.key), array_agg(null::text), array_agg(null::bigint)
            ) as ready
            from pgqrs.lock_groups(
                array(select queue_id from waiting), array(select key::text from waiting), 0
            ) l
        )
        select promoted.ready is not null as "is_next_ready!" from promoted, pgqrs.queues q where q.name = $1
        "#,
        queue.as_str(),
    )
    .fetch_optional(connection)
    .await?;
    Ok(promoted.map(|row| Promoted {
        is_next_ready: row.is_next_ready,
    }))
}

/// Stops a group, which needn't have messages yet; `false` if there is no such queue.
pub(crate) async fn stop(
    connection: &mut PgConnection,
    queue: &QueueName,
    group: &str,
) -> Result<bool> {
    let stopped = sqlx::query!(
        "insert into pgqrs.groups as g (queue_id, key, stopped_at)
         select id, $2, statement_timestamp() from pgqrs.queues where name = $1
         on conflict (queue_id, key) do update
             -- What an operator has stopped, no dead letter has resumed.
             set stopped_at = coalesce(g.stopped_at, excluded.stopped_at), stopped_by = null",
        queue.as_str(),
        group,
    )
    .execute(connection)
    .await?;
    Ok(stopped.rows_affected() > 0)
}

/// Resumes a group that is stopped; `None` if there is none.
pub(crate) async fn resume(
    connection: &mut PgConnection,
    queue: &QueueName,
    group: &str,
) -> Result<Option<Promoted>> {
    let resumed = sqlx::query!(
        r#"
        with resumed as (
            update pgqrs.groups g
            set stopped_at = null, stopped_by = null
            from pgqrs.queues q
            where q.name = $1 and g.queue_id = q.id and g.key = $2 and g.stopped_at is not null
            returning g.queue_id, g.key
        ), promoted as materialized (
            select count(*) as groups,
                pgqrs.settle_groups(
                    array_agg(queue_id), array_agg(key::text), array_agg(null::text), array_agg(null::bigint)
                ) as ready
            from resumed
        )
        select promoted.ready is not null as "is_next_ready!" from promoted where groups > 0
        "#,
        queue.as_str(),
        group,
    )
    .fetch_optional(connection)
    .await?;
    Ok(resumed.map(|row| Promoted {
        is_next_ready: row.is_next_ready,
    }))
}

/// Sets a group's own limit, or removes it; `None` if there is no such queue.
pub(crate) async fn set_at_once(
    connection: &mut PgConnection,
    queue: &QueueName,
    group: &str,
    at_once: Option<i32>,
) -> Result<Option<Promoted>> {
    let set = sqlx::query!(
        r#"
        with set as (
            insert into pgqrs.groups as g (queue_id, key, at_once)
            select id, $2, $3 from pgqrs.queues where name = $1
            on conflict (queue_id, key) do update set at_once = excluded.at_once
            returning g.queue_id, g.key
        ), promoted as materialized (
            -- It also deletes the row, if nothing is left in it.
            select count(*) as groups,
                pgqrs.settle_groups(
                    array_agg(queue_id), array_agg(key::text), array_agg(null::text), array_agg(null::bigint)
                ) as ready
            from set
        )
        select promoted.ready is not null as "is_next_ready!" from promoted where groups > 0
        "#,
        queue.as_str(),
        group,
        at_once,
    )
    .fetch_optional(connection)
    .await?;
    Ok(set.map(|row| Promoted {
        is_next_ready: row.is_next_ready,
    }))
}

/// Sets a group's own rate, or removes it; `false` if there is no such queue.
pub(crate) async fn set_rate(
    connection: &mut PgConnection,
    queue: &QueueName,
    group: &str,
    rate: Option<Rate>,
) -> Result<bool> {
    let set = sqlx::query_scalar!(
        r#"
        with queue as (
            update pgqrs.queues
            set groups_rated = coalesce($3::integer, groups_rate_n) is not null or pgqrs.is_group_rated(id, $2)
            where name = $1
            returning id, groups_rated
        ), set as (
            insert into pgqrs.group_rates as r (queue_id, key, arrives_at, rate_n, rate_per)
            select id, $2, '-infinity', $3, $4::bigint * interval '1 microsecond' from queue where groups_rated
            on conflict (queue_id, key) do update set rate_n = excluded.rate_n, rate_per = excluded.rate_per
        ), removed as (
            delete from pgqrs.group_rates r
            using queue
            where not queue.groups_rated and r.queue_id = queue.id and r.key = $2
        ), forgotten as (
            -- It was the last one: what is known of groups holds nothing back any more.
            delete from pgqrs.group_rates r
            where r.ctid = any (array(
                select others.ctid
                from queue
                join pgqrs.group_rates others on others.queue_id = queue.id and others.key <> $2
                where not queue.groups_rated
                for update of others skip locked
            ))
        )
        select id from queue
        "#,
        queue.as_str(),
        group,
        rate.and_then(|rate| i32::try_from(rate.messages()).ok()),
        rate.map(|rate| microseconds(rate.per())),
    )
    .fetch_optional(connection)
    .await?;
    Ok(set.is_some())
}

/// Deletes what is known of groups of a queue whose rates hold nothing back any more, at most this number of them.
pub(crate) async fn forget_rates(
    connection: &mut PgConnection,
    queue: &QueueName,
    limit: u32,
) -> Result<u64> {
    let forgotten = sqlx::query!(
        "delete from pgqrs.group_rates r
         where r.ctid = any (array(
             select idle.ctid
             from pgqrs.queues q
             join pgqrs.group_rates idle on idle.queue_id = q.id
             where q.name = $1 and q.groups_rated and idle.rate_n is null
                 and greatest(idle.arrives_at, idle.slowed_until) < statement_timestamp()
             limit $2
             for update of idle skip locked
         ))",
        queue.as_str(),
        i64::from(limit),
    )
    .execute(connection)
    .await?;
    Ok(forgotten.rows_affected())
}

/// Deletes the parked messages of a group, and returns how many; `None` if there is no such queue.
pub(crate) async fn purge(
    connection: &mut PgConnection,
    queue: &QueueName,
    group: &str,
) -> Result<Option<u64>> {
    let purged = sqlx::query_scalar!(
        r#"
        with locked as materialized (
            select l.queue_id, l.key
            from pgqrs.queues q
            cross join lateral pgqrs.lock_groups(array[q.id], array[$2::text], null) l
            where q.name = $1
        ), purged as (
            delete from pgqrs.messages m
            using locked l
            -- As `messages_parked` has it, and no other index.
            where m.queue_id + 0 = l.queue_id and m.group_key = l.key and m.group_key is not null
                and m.visible_at = 'infinity'
            returning m.queue_id, m.group_key, m.id
        ), settled as materialized (
            select count(*) as messages,
                pgqrs.settle_groups(
                    array_agg(queue_id), array_agg(group_key::text), array_agg('parked'::text), array_agg(id)
                ) as ready
            from purged
        )
        select settled.messages as "messages!" from settled, pgqrs.queues q where q.name = $1
        "#,
        queue.as_str(),
        group,
    )
    .fetch_optional(connection)
    .await?;
    Ok(purged.map(i64::unsigned_abs))
}
