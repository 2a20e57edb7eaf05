//! What an operator does with schedules: list, pause, resume, fire now, delete.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::{Policy, read_time};
use crate::{
    admin::rows::schedules::ScheduleInfo,
    error::Result,
    message::{MessageId, Priority},
    postgres::{
        json::{Json, JsonText, headers},
        keyed::KEY_TIMEOUT,
    },
    queue::QueueName,
};

/// All schedules, or the one of this name, ordered by name.
pub(crate) async fn list(
    connection: &mut PgConnection,
    name: Option<&str>,
) -> Result<Vec<ScheduleInfo>> {
    let rows = sqlx::query!(
        r#"
        select s.name, q.name as queue, s.owner, s.version, s.cron, s.every_ms, s.zone, s.missed, s.older_than,
            s.at_most, s.priority, s.max_attempts, s.expires_in, s.drop_if_expired, s.unique_key, s.next_at, s.last_at,
            s.last_fired_at, s.paused_at, s.headers as "headers?: JsonText"
        from pgqrs.schedules s
        join pgqrs.queues q on q.id = s.queue_id
        where $1::text is null or s.name = $1
        order by s.name
        "#,
        name,
    )
    .fetch_all(connection)
    .await?;
    let schedules = rows.into_iter().map(|row| {
        Ok(ScheduleInfo {
            name: row.name,
            queue: QueueName::new(row.queue)?,
            owner: row.owner,
            version: row.version.unsigned_abs(),
            time: read_time(row.cron, row.every_ms),
            zone: row.zone,
            missed: Policy::read(&row.missed, row.older_than, row.at_most),
            unique_key: row.unique_key,
            priority: Priority::from_rank(row.priority),
            max_attempts: row.max_attempts.map(i32::unsigned_abs),
            expires_in: row
                .expires_in
                .map(|microseconds| Duration::from_micros(microseconds.unsigned_abs())),
            drop_if_expired: row.drop_if_expired.unwrap_or_default(),
            headers: headers(row.headers),
            next_at: row.next_at,
            last_at: row.last_at,
            last_fired_at: row.last_fired_at,
            paused_at: row.paused_at,
        })
    });
    schedules.collect()
}

/// Pauses a schedule; `false` if there is none of this name.
pub(crate) async fn pause(connection: &mut PgConnection, name: &str) -> Result<bool> {
    let paused = sqlx::query!(
        "update pgqrs.schedules
         set paused_at = coalesce(paused_at, statement_timestamp())
         where name = $1",
        name,
    )
    .execute(connection)
    .await?;
    Ok(paused.rows_affected() == 1)
}

/// Resumes a schedule at this time, if it is still as it was looked at.
pub(crate) async fn resume(
    connection: &mut PgConnection,
    schedule: &ScheduleInfo,
    next_at: DateTime<Utc>,
) -> Result<bool> {
    let resumed = sqlx::query!(
        "update pgqrs.schedules
         set paused_at = null, next_at = $4
         where name = $1 and version = $2 and next_at = $3 and paused_at is not null",
        schedule.name,
        i32::try_from(schedule.version).unwrap_or(i32::MAX),
        schedule.next_at,
        next_at,
    )
    .execute(connection)
    .await?;
    Ok(resumed.rows_affected() == 1)
}

/// Deletes a schedule; `false` if there is none of this name.
pub(crate) async fn delete(connection: &mut PgConnection, name: &str) -> Result<bool> {
    let deleted = sqlx::query!("delete from pgqrs.schedules where name = $1", name)
        .execute(connection)
        .await?;
    Ok(deleted.rows_affected() == 1)
}

/// What became of a message that was to be sent beside the schedule's times.
#[derive(Debug)]
pub(crate) enum FiredNow {
    Sent(MessageId),
    /// There is a message with its key.
    Unfinished,
    /// Its queue takes no messages.
    Closed,
}

/// Sends a schedule's message beside its times, if the schedule is still of the version that was looked at.
pub(crate) async fn fire_now(
    connection: &mut PgConnection,
    schedule: &ScheduleInfo,
    now: DateTime<Utc>,
) -> Result<Option<FiredNow>> {
    let headers = schedule.headers.scheduled(&schedule.name, now, 0);
    let row = sqlx::query!(
        r#"
        with begun as materialized (
            -- Another transaction that has stored the key and is open is waited for, but not for long.
            select set_config('lock_timeout', $4::bigint::text, true)
        ), found as materialized (
            select s.*, q.closed_at is not null as is_closed
            from begun
            cross join pgqrs.schedules s
            join pgqrs.queues q on q.id = s.queue_id
            where s.name = $1 and s.version = $2
            -- As what fires it at its times: the schedule first, and then the key.
            for no key update of s
        ), stored as (
            insert into pgqrs.messages (
                queue_id, priority, visible_at, enqueued_at, max_attempts, expires_at, drop_if_expired, unique_key,
                payload_hash, headers, payload_bytes, payload
            )
            select
                s.queue_id,
                s.priority,
                statement_timestamp(),
                statement_timestamp(),
                s.max_attempts,
                statement_timestamp() + s.expires_in * interval '1 microsecond',
                s.drop_if_expired,
                s.unique_key,
                s.payload_hash,
                $3::json,
                -- As it was sent: it may be stored compressed.
                octet_length(s.payload::text),
                s.payload
            from found s
            where not s.is_closed and (s.unique_key is null or not exists (
                select from pgqrs.messages h where h.queue_id + 0 = s.queue_id and h.unique_key = s.unique_key
            ))
            on conflict do nothing
            returning id
        ), counted as (
            update pgqrs.schedules s
            set firings = s.firings + 1
            from found f
            cross join stored t
            where s.id = f.id
            returning s.id, s.queue_id, s.firings, t.id as message_id
        ), recorded as (
            insert into pgqrs.firings as f (schedule_id, slot, queue_id, scheduled_for, fired_at, message_id, is_closed)
            select c.id, (c.firings % 100)::smallint, c.queue_id, null, statement_timestamp(), c.message_id, false
            from counted c
            on conflict (schedule_id, slot) do update
            set queue_id = excluded.queue_id,
                scheduled_for = excluded.scheduled_for,
                fired_at = excluded.fired_at,
                message_id = excluded.message_id,
                is_closed = excluded.is_closed
        )
        select f.is_closed as "is_closed!", s.id as "id?"
        from found f
        left join stored s on true
        "#,
        schedule.name,
        i32::try_from(schedule.version).unwrap_or(i32::MAX),
        Json(&headers) as Json<'_>,
        i64::try_from(KEY_TIMEOUT.as_millis()).unwrap_or(i64::MAX),
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.map(|row| match row.id {
        Some(id) => FiredNow::Sent(MessageId::from(id)),
        None if row.is_closed => FiredNow::Closed,
        None => FiredNow::Unfinished,
    }))
}
