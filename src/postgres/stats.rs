//! How many messages queues hold: counted up to a limit, or exactly.

use std::time::Duration;

use sqlx::PgConnection;

use crate::{
    admin::rows::QueueStats,
    count::Count,
    error::{Error, Result},
    queue::QueueName,
};

/// How many messages of a queue are counted of each priority and state, and how many dead letters.
pub(crate) const LIMIT: i64 = 10_000;
/// How many messages are counted of each priority and state in all queues together, as long as each queue gets its
/// [`LEAST`].
const TOTAL: i64 = 200_000;
/// How many are counted of each queue however many queues there are.
const LEAST: i64 = 100;
/// How many queues are counted.
pub(crate) const QUEUES: i64 = 10_000;

/// A row of either statement.
struct Row {
    queue: String,
    ready: i64,
    delayed: i64,
    parked: i64,
    leased: i64,
    dead: i64,
    stopped_groups: i64,
    /// Whether there are more messages that are due, delayed, or parked, and more dead letters.
    more_due: bool,
    more_delayed: bool,
    more_parked: bool,
    more_dead: bool,
    /// In microseconds.
    oldest_ready: Option<i64>,
}

impl TryFrom<Row> for QueueStats {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self> {
        Ok(Self {
            queue: QueueName::new(row.queue)?,
            ready: Count::new(row.ready, row.more_due),
            delayed: Count::new(row.delayed, row.more_delayed),
            parked: Count::new(row.parked, row.more_parked),
            // They were due when they were claimed.
            leased: Count::new(row.leased, row.more_due),
            dead: Count::new(row.dead, row.more_dead),
            stopped_groups: Count::new(row.stopped_groups, row.stopped_groups >= LIMIT),
            oldest_ready: row
                .oldest_ready
                .map(|age| Duration::from_micros(age.unsigned_abs())),
        })
    }
}

/// Counts the messages of a queue, or of the first [`QUEUES`] by name, up to the limits above. An empty list if there is
/// no such queue.
pub(crate) async fn count(
    connection: &mut PgConnection,
    queue: Option<&QueueName>,
) -> Result<Vec<QueueStats>> {
    sqlx::query_as!(
        Row,
        r#"
        with queue as materialized (
            select id, name from pgqrs.queues
            where $1::text is null or name = $1
            order by name
            limit $2
        ), share as materialized (
            select least($3::bigint, greatest($4::bigint, $5::bigint / greatest(count(*), 1))) as most from queue
        )
        select
            queue.name as "queue!",
            counted.ready as "ready!",
            counted.delayed as "delayed!",
            counted.parked as "parked!",
            counted.leased as "leased!",
            dead.letters as "dead!",
            counted.more_due as "more_due!",
            counted.more_delayed as "more_delayed!",
            counted.more_parked as "more_parked!",
            stopped.groups as "stopped_groups!",
            dead.letters >= share.most as "more_dead!",
            (extract(epoch from statement_timestamp() - counted.ready_since) * 1000000)::bigint as oldest_ready
        from queue
        cross join share
        cross join lateral (
            select
                coalesce(sum(part.available) filter (where span.state = 'due'), 0)::bigint as ready,
                coalesce(sum(part.available - part.parked) filter (where span.state <> 'due'), 0)::bigint as delayed,
                coalesce(sum(part.parked), 0)::bigint as parked,
                coalesce(sum(part.leased), 0)::bigint as leased,
                bool_or(part.is_cut and span.state = 'due') as more_due,
                bool_or(part.is_cut and span.state = 'delayed') as more_delayed,
                bool_or(part.is_cut and span.state = 'parked') as more_parked,
                min(part.available_since) filter (where span.state = 'due') as ready_since
            from unnest('{0,1,2,3}'::smallint[]) as level (priority)
            cross join (
                values
                    ('-infinity'::timestamptz, 0::bigint, statement_timestamp(), 'due'),
                    (statement_timestamp(), 9223372036854775807, '294276-12-31 23:59:59.999999+00', 'delayed'),
                    ('infinity', 0, 'infinity', 'parked')
            ) as span (after_time, after_id, until_time, state)
            -- Ranges of the index, as a claim reads them, each only up to the limit.
            cross join lateral (
                select
                    count(*) filter (where m.lease_until <= statement_timestamp()) as available,
                    count(*) filter (where m.lease_until > statement_timestamp()) as leased,
                    -- Somebody may have set another one to 'infinity' by hand.
                    count(*) filter (
                        where m.lease_until <= statement_timestamp() and m.group_key is not null
                            and m.visible_at = 'infinity'
                    ) as parked,
                    count(*) >= share.most as is_cut,
                    -- Somebody may have set it to '-infinity' by hand, from which on there is no age.
                    min(greatest(m.visible_at, m.lease_until, timestamptz '0001-01-01 00:00+00'))
                        filter (where m.lease_until <= statement_timestamp()) as available_since
                from (
                    select m.visible_at, m.lease_until, m.group_key
                    from pgqrs.messages m
                    where m.queue_id + 0 = queue.id and m.priority = level.priority and m.priority >= 0
                        and (m.visible_at, m.id) > (span.after_time, span.after_id)
                        and m.visible_at >= span.after_time and m.visible_at <= span.until_time
                    order by m.visible_at, m.id
                    limit share.most
                ) m
            ) part
        ) counted
        cross join lateral (
            select count(*) as letters
            from (
                select from pgqrs.dead_letters d where d.queue_id = queue.id order by d.id limit share.most
            ) d
        ) dead
        cross join lateral (
            select count(*) as groups
            from (
                -- As `groups_stopped` has it.
                select from pgqrs.groups g
                where g.queue_id + 0 = queue.id and g.stopped_at is not null
                order by g.stopped_at
                limit 10000
            ) g
        ) stopped
        order by queue.name
        "#,
        queue.map(QueueName::as_str),
        QUEUES,
        LIMIT,
        LEAST,
        TOTAL,
    )
    .fetch_all(connection)
    .await?
    .into_iter()
    .map(QueueStats::try_from)
    .collect()
}

/// Counts all messages of a queue. `None` if there is no such queue.
pub(crate) async fn count_exactly(
    connection: &mut PgConnection,
    queue: &QueueName,
) -> Result<Option<QueueStats>> {
    sqlx::query_as!(
        Row,
        r#"
        select
            q.name as "queue!",
            count(m.id) filter (
                where greatest(m.visible_at, m.lease_until) <= statement_timestamp()
            ) as "ready!",
            count(m.id) filter (
                where m.visible_at > statement_timestamp() and m.lease_until <= statement_timestamp()
                    and (m.group_key is null or m.visible_at < 'infinity')
            ) as "delayed!",
            count(m.id) filter (
                where m.group_key is not null and m.visible_at = 'infinity' and m.lease_until <= statement_timestamp()
            ) as "parked!",
            count(m.id) filter (where m.lease_until > statement_timestamp()) as "leased!",
            (select count(*) from pgqrs.dead_letters d where d.queue_id = q.id) as "dead!",
            false as "more_due!",
            false as "more_delayed!",
            false as "more_parked!",
            (
                select count(*) from pgqrs.groups g where g.queue_id + 0 = q.id and g.stopped_at is not null
            ) as "stopped_groups!",
            false as "more_dead!",
            -- Somebody may have set it to '-infinity' by hand, from which on there is no age.
            (extract(epoch from
                statement_timestamp()
                - min(greatest(m.visible_at, m.lease_until, timestamptz '0001-01-01 00:00+00'))
                    filter (where greatest(m.visible_at, m.lease_until) <= statement_timestamp())
            ) * 1000000)::bigint as oldest_ready
        from pgqrs.queues q
        left join pgqrs.messages m on m.queue_id = q.id
        where q.name = $1
        group by q.id
        "#,
        queue.as_str(),
    )
    .fetch_optional(connection)
    .await?
    .map(QueueStats::try_from)
    .transpose()
}
