//! Statements on `pgqrs.queues`, for the administration of queues. An enqueue reads this table and never writes to it.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::{Connection, PgConnection};

use crate::{
    admin::rows::{
        QueueInfo, QueueOptions,
        groups::{AfterDeadLetter, Groups},
        rate::Rate,
    },
    error::{Error, Result},
    message::{age, microseconds},
    postgres::session,
    queue::QueueName,
};

/// A row of `pgqrs.queues`.
struct Row {
    name: String,
    max_attempts: i32,
    lease: Option<i64>,
    retry_min: Option<i64>,
    retry_max: Option<i64>,
    archive_on_ack: bool,
    sensitive: bool,
    archive_for: Option<i64>,
    dead_letters_for: Option<i64>,
    groups_at_once: Option<i32>,
    groups_stop: bool,
    groups_rate_n: Option<i32>,
    groups_rate_per: Option<i64>,
    max_running: Option<i32>,
    rate_n: Option<i32>,
    rate_per: Option<i64>,
    is_paused: bool,
    paused_until: Option<DateTime<Utc>>,
    slowed_until: Option<DateTime<Utc>>,
    closed_at: Option<DateTime<Utc>>,
    created_at: DateTime<Utc>,
}

impl TryFrom<Row> for QueueInfo {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self> {
        let duration = |microseconds: Option<i64>| {
            microseconds.map(|it| Duration::from_micros(it.unsigned_abs()))
        };
        Ok(Self {
            name: QueueName::new(row.name)?,
            max_attempts: row.max_attempts.unsigned_abs(),
            lease: duration(row.lease),
            retry_min: duration(row.retry_min),
            retry_max: duration(row.retry_max),
            archive_on_ack: row.archive_on_ack,
            sensitive: row.sensitive,
            archive_for: duration(row.archive_for),
            dead_letters_for: duration(row.dead_letters_for),
            groups: row.groups_at_once.map(|at_once| Groups {
                at_once: at_once.unsigned_abs(),
                after_dead_letter: if row.groups_stop {
                    AfterDeadLetter::Stop
                } else {
                    AfterDeadLetter::Continue
                },
                rate: Rate::of_columns(row.groups_rate_n, row.groups_rate_per),
            }),
            max_running: row.max_running.map(i32::unsigned_abs),
            rate: Rate::of_columns(row.rate_n, row.rate_per),
            is_paused: row.is_paused,
            paused_until: row.paused_until,
            slowed_until: row.slowed_until,
            closed_at: row.closed_at,
            created_at: row.created_at,
        })
    }
}

/// Creates a queue; `false` if there is one of that name.
pub(crate) async fn create(connection: &mut PgConnection, name: &QueueName) -> Result<bool> {
    let created = sqlx::query!(
        "insert into pgqrs.queues (name) values ($1) on conflict (name) do nothing",
        name.as_str(),
    )
    .execute(connection)
    .await?;
    Ok(created.rows_affected() == 1)
}

pub(crate) async fn find(
    connection: &mut PgConnection,
    name: &QueueName,
) -> Result<Option<QueueInfo>> {
    Ok(select(connection, Some(name.as_str())).await?.pop())
}

pub(crate) async fn list(connection: &mut PgConnection) -> Result<Vec<QueueInfo>> {
    select(connection, None).await
}

async fn select(connection: &mut PgConnection, name: Option<&str>) -> Result<Vec<QueueInfo>> {
    sqlx::query_as!(
        Row,
        r#"
        select name, max_attempts,
            (extract(epoch from lease) * 1000000)::bigint as lease,
            (extract(epoch from retry_min) * 1000000)::bigint as retry_min,
            (extract(epoch from retry_max) * 1000000)::bigint as retry_max,
            archive_on_ack, sensitive,
            (extract(epoch from archive_for) * 1000000)::bigint as archive_for,
            (extract(epoch from dead_letters_for) * 1000000)::bigint as dead_letters_for,
            groups_at_once, groups_stop, groups_rate_n,
            (extract(epoch from groups_rate_per) * 1000000)::bigint as groups_rate_per,
            max_running, rate_n,
            (extract(epoch from rate_per) * 1000000)::bigint as rate_per,
            paused_until > statement_timestamp() as "is_paused!",
            case
                when paused_until > statement_timestamp() and paused_until < '262000-01-01 00:00+00'
                then paused_until
            end as paused_until,
            case when slowed_until > statement_timestamp() then slowed_until end as slowed_until,
            closed_at, created_at
        from pgqrs.queues
        where $1::text is null or name = $1
        order by name
        "#,
        name,
    )
    .fetch_all(connection)
    .await?
    .into_iter()
    .map(QueueInfo::try_from)
    .collect()
}

/// Changes a queue's settings; `false` if there is no queue of that name.
pub(crate) async fn configure(
    connection: &mut PgConnection,
    name: &QueueName,
    options: &QueueOptions,
) -> Result<bool> {
    /// Whether it is set, and to what.
    fn change(option: Option<Option<Duration>>) -> (bool, Option<i64>) {
        (option.is_some(), option.flatten().map(age))
    }

    let max_attempts = options
        .max_attempts
        .map(|attempts| i32::try_from(attempts).unwrap_or(i32::MAX));
    let (sets_lease, lease) = change(options.lease);
    let (sets_retry_min, retry_min) = change(options.retry_min);
    let (sets_retry_max, retry_max) = change(options.retry_max);
    let (sets_archive_for, archive_for) = change(options.archive_for);
    let (sets_dead_letters_for, dead_letters_for) = change(options.dead_letters_for);
    let groups = options.groups.flatten();
    let rate = options.rate.flatten();
    let groups_rate = groups.and_then(|groups| groups.rate);
    let stops = |groups: Groups| groups.after_dead_letter == AfterDeadLetter::Stop;
    let configured = sqlx::query_scalar!(
        "with configured as (
         update pgqrs.queues
         set max_attempts = coalesce($2, max_attempts),
             lease = case when $3 then $4::bigint * interval '1 microsecond' else lease end,
             retry_min = case when $5 then $6::bigint * interval '1 microsecond' else retry_min end,
             retry_max = case when $7 then $8::bigint * interval '1 microsecond' else retry_max end,
             archive_on_ack = coalesce($9, archive_on_ack),
             sensitive = coalesce($14, sensitive),
             archive_for = case when $10 then $11::bigint * interval '1 microsecond' else archive_for end,
             dead_letters_for =
                 case when $12 then $13::bigint * interval '1 microsecond' else dead_letters_for end,
             groups_at_once = case when $15 then $16 else groups_at_once end,
             groups_stop = case when $15 then coalesce($17, false) else groups_stop end,
             groups_rate_n = case when $15 then $23 else groups_rate_n end,
             groups_rate_per = case when $15 then $24::bigint * interval '1 microsecond' else groups_rate_per end,
             groups_rated = $23::integer is not null or case when $15
                 then pgqrs.is_group_rated(id, null)
                 else groups_rated
             end,
             max_running = case when $18 then $19 else max_running end,
             rate_n = case when $20 then $21 else rate_n end,
             rate_per = case when $20 then $22::bigint * interval '1 microsecond' else rate_per end
         where name = $1
         returning id, groups_rated
         ), forgotten as (
             -- What is known of groups holds nothing back any more, if none has a rate.
             delete from pgqrs.group_rates r
             where r.ctid = any (array(
                 select others.ctid
                 from configured q
                 join pgqrs.group_rates others on others.queue_id = q.id and others.rate_n is null
                 where $15 and not q.groups_rated
                 for update of others skip locked
             ))
         )
         select id from configured",
        name.as_str(),
        max_attempts,
        sets_lease,
        lease,
        sets_retry_min,
        retry_min,
        sets_retry_max,
        retry_max,
        options.archive_on_ack,
        sets_archive_for,
        archive_for,
        sets_dead_letters_for,
        dead_letters_for,
        options.sensitive,
        options.groups.is_some(),
        groups.map(|groups| i32::try_from(groups.at_once).unwrap_or(i32::MAX)),
        groups.map(stops),
        options.max_running.is_some(),
        options.max_running.flatten().and_then(|most| i32::try_from(most).ok()),
        options.rate.is_some(),
        rate.and_then(|rate| i32::try_from(rate.messages()).ok()),
        rate.map(|rate| microseconds(rate.per())),
        groups_rate.and_then(|rate| i32::try_from(rate.messages()).ok()),
        groups_rate.map(|rate| microseconds(rate.per())),
    )
    .fetch_optional(connection)
    .await?;
    Ok(configured.is_some())
}

/// Until when nothing is claimed from a queue.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Pause {
    UntilResumed,
    Until(DateTime<Utc>),
    Resumed,
}

/// `false` if there is no queue of that name.
pub(crate) async fn pause(
    connection: &mut PgConnection,
    name: &QueueName,
    pause: Pause,
) -> Result<bool> {
    let until = match pause {
        // Whatever is past resumes it, so it doesn't matter how far back PostgreSQL's calendar goes.
        Pause::Until(time) => Some(time.max(DateTime::UNIX_EPOCH)),
        Pause::UntilResumed | Pause::Resumed => None,
    };
    let paused = sqlx::query!(
        "update pgqrs.queues
         set paused_until = coalesce(
                 $2::timestamptz, case when $3::boolean then timestamptz 'infinity' else '-infinity' end
             ),
             -- An operator's word counts more than that of a handler that has slowed the queue down.
             slowed_until = case when $4 then '-infinity' else slowed_until end
         where name = $1",
        name.as_str(),
        until,
        matches!(pause, Pause::UntilResumed),
        matches!(pause, Pause::Resumed),
    )
    .execute(connection)
    .await?;
    Ok(paused.rows_affected() == 1)
}

/// Has a queue refuse sends, or accept them again; `false` if there is no queue of that name.
pub(crate) async fn close(
    connection: &mut PgConnection,
    name: &QueueName,
    close: bool,
) -> Result<bool> {
    let closed = sqlx::query!(
        "update pgqrs.queues
         set closed_at = case when $2 then coalesce(closed_at, statement_timestamp()) end
         where name = $1",
        name.as_str(),
        close,
    )
    .execute(connection)
    .await?;
    Ok(closed.rows_affected() == 1)
}

/// Deletes an empty queue, and everything that belongs to it. Returns the number of messages in the way; 0 if the queue
/// was deleted; `None` if there is none. A client that vanishes meanwhile blocks others for at most `idle_timeout`.
pub(crate) async fn delete(
    connection: &mut PgConnection,
    name: &QueueName,
    idle_timeout: Duration,
) -> Result<Option<u64>> {
    let mut transaction = connection.begin().await?;
    session::limit_idle_in_transaction(&mut transaction, idle_timeout).await?;
    hold_enqueues(&mut transaction).await?;
    let messages = delete_if_empty(&mut transaction, name).await?;
    transaction.commit().await?;
    Ok(messages)
}

/// Blocks inserts of messages until the transaction ends.
///
/// Enqueues take no lock on their queue's row, since that would cost each of them. So a queue can only be found empty,
/// and then be deleted, while no enqueue is running: an enqueue that waits here looks for its queue afterwards and
/// doesn't find it. The time-out bounds how long a transaction that has enqueued and stays open can block all enqueues
/// that queue up behind this lock.
async fn hold_enqueues(connection: &mut PgConnection) -> Result<()> {
    sqlx::query!("select set_config('lock_timeout', '2s', true)")
        .fetch_one(&mut *connection)
        .await?;
    sqlx::query!("lock table pgqrs.messages in share row exclusive mode")
        .execute(connection)
        .await?;
    Ok(())
}

async fn delete_if_empty(connection: &mut PgConnection, name: &QueueName) -> Result<Option<u64>> {
    let messages = sqlx::query_scalar!(
        r#"
        with held as (
            select q.id, (select count(*) from pgqrs.messages m where m.queue_id = q.id) as messages
            from pgqrs.queues q
            where q.name = $1
        ), deleted as (
            delete from pgqrs.queues q using held where q.id = held.id and held.messages = 0
        ), forgotten as (
            delete from pgqrs.dead_letters d using held where d.queue_id = held.id and held.messages = 0
        ), archived as (
            delete from pgqrs.archive a using held where a.queue_id = held.id and held.messages = 0
        ), ungrouped as (
            -- Groups without messages, for which an operator has set something.
            delete from pgqrs.groups g using held where g.queue_id = held.id and held.messages = 0
        ), unrated as (
            delete from pgqrs.group_rates r using held where r.queue_id = held.id and held.messages = 0
        ), unseen as (
            delete from pgqrs.seen s using held where s.queue_id = held.id and held.messages = 0
        ), orphaned as (
            -- Its workers have nothing to work for any more; their handles find them stopped.
            delete from pgqrs.workers w using held where w.queue_id = held.id and held.messages = 0
        )
        select messages as "messages!" from held
        "#,
        name.as_str(),
    )
    .fetch_optional(connection)
    .await?;
    Ok(messages.map(i64::unsigned_abs))
}

/// Returns the number of deleted messages; `None` if there is no such queue. Those of groups that are sent to for the first
/// time meanwhile may stay.
pub(crate) async fn purge(connection: &mut PgConnection, name: &QueueName) -> Result<Option<u64>> {
    let mut transaction = connection.begin().await?;
    // First, so that the second statement sees all that was parked by then.
    lock_all_groups(&mut transaction, name).await?;
    let purged = delete_all_messages(&mut transaction, name).await?;
    forget_locked_groups(&mut transaction, name).await?;
    transaction.commit().await?;
    Ok(purged)
}

/// Locks all groups of a queue, in the order in which all lock them, and marks them.
async fn lock_all_groups(connection: &mut PgConnection, name: &QueueName) -> Result<()> {
    sqlx::query!(
        "with locked as materialized (
             select g.queue_id, g.key from pgqrs.queues q
             join pgqrs.groups g on g.queue_id = q.id
             where q.name = $1
             order by g.queue_id, g.key
             for update of g
         )
         update pgqrs.groups g set parked = -1
         from locked l
         where g.queue_id = l.queue_id and g.key = l.key",
        name.as_str(),
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Deletes all messages, but for those of groups that aren't marked.
async fn delete_all_messages(
    connection: &mut PgConnection,
    name: &QueueName,
) -> Result<Option<u64>> {
    let purged = sqlx::query_scalar!(
        r#"
        with queue as (
            select id from pgqrs.queues where name = $1
        ), purged as (
            delete from pgqrs.messages m using queue
            where m.queue_id = queue.id
                and (
                    m.group_key is null
                    or m.group_key in (
                        select g.key from pgqrs.groups g
                        where g.queue_id = (select id from queue) and g.parked = -1
                    )
                )
            returning m.id
        )
        select (select count(*) from purged) as "purged!" from queue
        "#,
        name.as_str(),
    )
    .fetch_optional(connection)
    .await?;
    Ok(purged.map(i64::unsigned_abs))
}

/// Deletes the rows of marked groups, but for what an operator has set.
async fn forget_locked_groups(connection: &mut PgConnection, name: &QueueName) -> Result<()> {
    sqlx::query!(
        "with queue as (
             select id from pgqrs.queues where name = $1
         ), forgotten as (
             delete from pgqrs.groups g using queue
             where g.queue_id = queue.id and g.parked = -1 and g.at_once is null
         )
         update pgqrs.groups g
         set live = 0, parked = 0, stopped_at = null, stopped_by = null
         from queue
         where g.queue_id = queue.id and g.parked = -1 and g.at_once is not null",
        name.as_str(),
    )
    .execute(connection)
    .await?;
    Ok(())
}
