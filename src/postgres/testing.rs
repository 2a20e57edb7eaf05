//! Statements of the test helpers. They move times, so that a test's transaction sees what a later one would see: a claim
//! compares with `now()`, which in a transaction is the time of its beginning.

use std::time::Duration;

use sqlx::PgConnection;

use crate::{
    error::{Error, Result},
    headers::Headers,
    message::{MessageId, Priority, age},
    postgres::json::{JsonText, headers},
    queue::QueueName,
};

/// A message that is in a queue.
#[derive(Debug)]
pub(crate) struct InQueue {
    pub(crate) queue: QueueName,
    pub(crate) id: MessageId,
    pub(crate) priority: Priority,
    /// How long it was to wait when it was stored; longer after an attempt that failed.
    pub(crate) delay: Duration,
    pub(crate) is_ready: bool,
    pub(crate) attempt: u32,
    pub(crate) key: Option<String>,
    pub(crate) group: Option<String>,
    pub(crate) headers: Headers,
    pub(crate) payload: String,
}

/// A row of either statement.
struct Row {
    queue: String,
    id: Option<i64>,
    priority: Option<i16>,
    delay: Option<i64>,
    is_ready: Option<bool>,
    attempt: Option<i32>,
    key: Option<String>,
    group: Option<String>,
    headers: Option<JsonText>,
    payload: Option<JsonText>,
}

impl Row {
    /// `None` of a queue without messages.
    fn into_message(self) -> Result<Option<InQueue>> {
        let (Some(id), Some(payload)) = (self.id, self.payload) else {
            return Ok(None);
        };
        let delay = self.delay.unwrap_or_default();
        Ok(Some(InQueue {
            queue: QueueName::new(self.queue)?,
            id: MessageId::from(id),
            priority: Priority::from_rank(self.priority.unwrap_or_default()),
            delay: Duration::from_micros(u64::try_from(delay).unwrap_or_default()),
            is_ready: self.is_ready.unwrap_or_default(),
            attempt: self.attempt.unwrap_or_default().unsigned_abs(),
            key: self.key,
            group: self.group,
            headers: headers(self.headers),
            payload: payload.0,
        }))
    }
}

/// All messages of a queue that are not settled, in queue order.
pub(crate) async fn list(connection: &mut PgConnection, queue: &QueueName) -> Result<Vec<InQueue>> {
    let rows = sqlx::query_as!(
        Row,
        r#"
        select q.name as queue, m.id as "id?", m.priority as "priority?",
            case
                when m.visible_at = 'infinity' and m.group_key is null then 9223372036854775807
                -- Parked in its group.
                when m.visible_at = 'infinity' then (extract(epoch from m.due_at - m.enqueued_at) * 1000000)::bigint
                when m.visible_at > m.enqueued_at
                then (extract(epoch from m.visible_at - m.enqueued_at) * 1000000)::bigint
            end as delay,
            m.visible_at <= statement_timestamp() and m.lease_until <= statement_timestamp() as is_ready,
            m.attempt as "attempt?", coalesce(m.unique_key, m.waiting_key) as key, m.group_key::text as "group",
            m.headers as "headers?: JsonText", m.payload as "payload?: JsonText"
        -- A row without a message if the queue has none.
        from pgqrs.queues q
        left join pgqrs.messages m on m.queue_id = q.id
        where q.name = $1
        order by m.priority, m.visible_at, m.id
        "#,
        queue.as_str(),
    )
    .fetch_all(connection)
    .await?;
    if rows.is_empty() {
        let queue = queue.clone();
        return Err(Error::QueueNotFound { queue });
    }
    let messages = rows.into_iter().map(Row::into_message);
    messages.filter_map(Result::transpose).collect()
}

/// The highest id of a message that this transaction sees.
pub(crate) async fn last_id(connection: &mut PgConnection) -> Result<i64> {
    let id = sqlx::query_scalar!(r#"select coalesce(max(id), 0) as "id!" from pgqrs.messages"#)
        .fetch_one(connection)
        .await?;
    Ok(id)
}

/// Messages of all queues with a higher id that this transaction has stored, by id. What another one has committed
/// meanwhile is left out: a row that is visible, and whose transaction is in progress, is one's own.
pub(crate) async fn sent_since(connection: &mut PgConnection, id: i64) -> Result<Vec<InQueue>> {
    let rows = sqlx::query_as!(
        Row,
        r#"
        with own as materialized (
            select pg_current_xact_id()::text::bigint as xid
        ), later as materialized (
            select m.*, m.xmin::text::bigint - (own.xid & 4294967295) as distance, own.xid
            from own
            cross join pgqrs.messages m
            where m.id > $1
        )
        select q.name as queue, m.id as "id?", m.priority as "priority?",
            case
                when m.visible_at = 'infinity' and m.group_key is null then 9223372036854775807
                -- Parked in its group.
                when m.visible_at = 'infinity' then (extract(epoch from m.due_at - m.enqueued_at) * 1000000)::bigint
                when m.visible_at > m.enqueued_at
                then (extract(epoch from m.visible_at - m.enqueued_at) * 1000000)::bigint
            end as delay,
            m.visible_at <= statement_timestamp() and m.lease_until <= statement_timestamp() as is_ready,
            m.attempt as "attempt?", coalesce(m.unique_key, m.waiting_key) as key, m.group_key::text as "group",
            m.headers as "headers?: JsonText", m.payload as "payload?: JsonText"
        from later m
        join pgqrs.queues q on q.id = m.queue_id
        -- `xmin` has the lower half of a transaction's id. A savepoint has an id of its own, which is a little higher.
        where pg_xact_status((m.xid + case
            when m.distance < -2147483648 then m.distance + 4294967296
            when m.distance > 2147483648 then m.distance - 4294967296
            else m.distance
        end)::text::xid8) = 'in progress'
        order by m.id
        "#,
        id,
    )
    .fetch_all(connection)
    .await?;
    let messages = rows.into_iter().map(Row::into_message);
    messages.filter_map(Result::transpose).collect()
}

/// Has a claim in this transaction find what is ready by now, in the same order: moves its times by a century. What
/// another transaction has locked is left out, as by a claim. Returns how many there were.
pub(crate) async fn make_ready(connection: &mut PgConnection, queue: &QueueName) -> Result<u64> {
    let moved = sqlx::query!(
        "with ready as materialized (
             select m.ctid as place
             from pgqrs.queues q
             join pgqrs.messages m on m.queue_id = q.id
             where q.name = $1
                 and m.lease_until <= statement_timestamp() and m.visible_at <= statement_timestamp()
                 -- Outside of a transaction, a claim finds them as they are.
                 and now() < statement_timestamp()
                 -- The rest was moved before.
                 and m.visible_at > now() - interval '50 years'
             for update of m skip locked
         )
         update pgqrs.messages m
         set visible_at = m.visible_at - interval '100 years',
             lease_until = least(m.lease_until, now()),
             expires_at = case when m.expires_at <= statement_timestamp() then least(m.expires_at, now())
                 else m.expires_at end
         where m.ctid = any (array(select place from ready))",
        queue.as_str(),
    )
    .execute(connection)
    .await?;
    Ok(moved.rows_affected())
}

/// The messages of a queue that wait for their time.
pub(crate) async fn delayed(connection: &mut PgConnection, queue: &QueueName) -> Result<Vec<i64>> {
    let ids = sqlx::query_scalar!(
        "select m.id
         from pgqrs.queues q
         join pgqrs.messages m on m.queue_id = q.id
         where q.name = $1 and m.visible_at > statement_timestamp() and m.lease_until <= statement_timestamp()
             and (m.visible_at < 'infinity' or m.group_key is null)",
        queue.as_str(),
    )
    .fetch_all(connection)
    .await?;
    Ok(ids)
}

/// Makes the message ready that is the next to be so, or several with the same time: of all that wait, or of those with
/// these ids. Returns the ids.
pub(crate) async fn make_next_ready(
    connection: &mut PgConnection,
    queue: &QueueName,
    of: Option<&[i64]>,
) -> Result<Vec<i64>> {
    let ids = sqlx::query_scalar!(
        "with waiting as materialized (
             select m.ctid as place, m.visible_at
             from pgqrs.queues q
             join pgqrs.messages m on m.queue_id = q.id
             where q.name = $1 and m.visible_at > statement_timestamp() and m.lease_until <= statement_timestamp()
                 -- What is parked in its group is none of these: the settlement of another one lets it in.
                 and (m.visible_at < 'infinity' or m.group_key is null)
                 and ($2::bigint[] is null or m.id = any ($2))
             for update of m skip locked
         )
         update pgqrs.messages m
         set visible_at = least(m.visible_at - interval '100 years', now()),
             lease_until = least(m.lease_until, now())
         where m.ctid = any (array(
             select place from waiting where visible_at = (select min(visible_at) from waiting)
         ))
         returning m.id",
        queue.as_str(),
        of as _,
    )
    .fetch_all(connection)
    .await?;
    Ok(ids)
}

/// Has time pass for all that this transaction sees, and that no other one has locked.
pub(crate) async fn advance(connection: &mut PgConnection, by: Duration) -> Result<()> {
    sqlx::query!(
        "with messages as materialized (
             select m.ctid as place from pgqrs.messages m for update skip locked
         ), schedules as materialized (
             select s.ctid as place from pgqrs.schedules s for update skip locked
         ), queues as materialized (
             select q.ctid as place from pgqrs.queues q
             where greatest(q.paused_until, q.slowed_until) > statement_timestamp()
             for update skip locked
         ), rates as materialized (
             select r.ctid as place from pgqrs.rates r for update skip locked
         ), seen as materialized (
             select k.ctid as place from pgqrs.seen k for update skip locked
         ), moved_messages as (
             update pgqrs.messages m
             set enqueued_at = m.enqueued_at - $1::bigint * interval '1 microsecond',
                 visible_at = m.visible_at - $1 * interval '1 microsecond',
                 due_at = m.due_at - $1 * interval '1 microsecond',
                 lease_until = m.lease_until - $1 * interval '1 microsecond',
                 expires_at = m.expires_at - $1 * interval '1 microsecond',
                 undecodable_since = m.undecodable_since - $1 * interval '1 microsecond'
             where m.ctid = any (array(select place from messages))
         ), moved_schedules as (
             update pgqrs.schedules s
             set next_at = s.next_at - $1 * interval '1 microsecond',
                 last_at = s.last_at - $1 * interval '1 microsecond',
                 last_fired_at = s.last_fired_at - $1 * interval '1 microsecond'
             where s.ctid = any (array(select place from schedules))
         ), moved_firings as (
             update pgqrs.firings f
             set scheduled_for = f.scheduled_for - $1 * interval '1 microsecond',
                 fired_at = f.fired_at - $1 * interval '1 microsecond'
             from pgqrs.schedules s
             where s.ctid = any (array(select place from schedules)) and f.schedule_id = s.id
         ), moved_queues as (
             update pgqrs.queues q
             set paused_until = q.paused_until - $1 * interval '1 microsecond',
                 slowed_until = q.slowed_until - $1 * interval '1 microsecond'
             where q.ctid = any (array(select place from queues))
         ), group_rates as materialized (
             select r.ctid as place from pgqrs.group_rates r for update skip locked
         ), moved_group_rates as (
             update pgqrs.group_rates r
             set arrives_at = r.arrives_at - $1 * interval '1 microsecond',
                 slowed_until = r.slowed_until - $1 * interval '1 microsecond'
             where r.ctid = any (array(select place from group_rates))
         ), moved_rates as (
             update pgqrs.rates r
             set arrives_at = r.arrives_at - $1 * interval '1 microsecond',
                 asked_at = r.asked_at - $1 * interval '1 microsecond'
             where r.ctid = any (array(select place from rates))
         )
         update pgqrs.seen k
         set until = k.until - $1 * interval '1 microsecond'
         where k.ctid = any (array(select place from seen))",
        age(by),
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Begins a part of the test's transaction that can be rolled back alone. In it, sqlx's own savepoints work as ever.
pub(crate) async fn begin_savepoint(connection: &mut PgConnection) -> Result<()> {
    sqlx::query!("savepoint pgqrs_testing")
        .execute(connection)
        .await?;
    Ok(())
}

pub(crate) async fn release_savepoint(connection: &mut PgConnection) -> Result<()> {
    sqlx::query!("release savepoint pgqrs_testing")
        .execute(connection)
        .await?;
    Ok(())
}

pub(crate) async fn roll_back_to_savepoint(connection: &mut PgConnection) -> Result<()> {
    sqlx::query!("rollback to savepoint pgqrs_testing")
        .execute(&mut *connection)
        .await?;
    release_savepoint(connection).await
}

/// Some of the messages that a queue still has.
#[derive(Debug)]
pub(crate) struct Left {
    /// How many there are altogether.
    pub(crate) messages: i64,
    pub(crate) dead_letters: i64,
    /// One of them; `None` in the only row of an empty queue.
    pub(crate) id: Option<i64>,
    pub(crate) state: Option<String>,
    pub(crate) attempt: Option<i32>,
    pub(crate) last_error: Option<String>,
    pub(crate) payload: Option<String>,
}

/// The first ten messages that a queue still has.
pub(crate) async fn left(connection: &mut PgConnection, queue: &QueueName) -> Result<Vec<Left>> {
    let left = sqlx::query_as!(
        Left,
        r#"
        select count(m.id) over () as "messages!", dead.dead_letters as "dead_letters!", m.id as "id?",
            case
                when m.lease_until > now() then 'being handled'
                when m.visible_at = 'infinity' and m.group_key is not null then 'parked in its group'
                when m.visible_at > now() then 'delayed by ' || justify_interval(date_trunc('second', m.visible_at - now()))
                else 'ready'
            end as state,
            m.attempt as "attempt?", m.last_error as "last_error?", m.payload::text as payload
        from pgqrs.queues q
        cross join lateral (
            select count(*) as dead_letters from pgqrs.dead_letters d where d.queue_id = q.id
        ) dead
        left join pgqrs.messages m on m.queue_id = q.id
        where q.name = $1
        order by m.id
        limit 10
        "#,
        queue.as_str(),
    )
    .fetch_all(connection)
    .await?;
    if left.is_empty() {
        let queue = queue.clone();
        return Err(Error::QueueNotFound { queue });
    }
    Ok(left)
}
