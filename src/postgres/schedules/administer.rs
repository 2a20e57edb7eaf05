//! What an operator does with schedules: list, pause, resume, fire now, delete.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::{Policy, read_time};
use crate::{
    admin::rows::schedules::ScheduleInfo,
    error::Result,
    message::{MessageId, Priority},
    postgres::json::{Json, JsonText, headers},
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
            s.at_most, s.skip_if_unfinished, s.priority, s.expires_in, s.next_at, s.last_at, s.last_fired_at,
            s.paused_at, s.headers as "headers?: JsonText"
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
            skip_if_unfinished: row.skip_if_unfinished,
            priority: Priority::from_rank(row.priority),
            expires_in: row
                .expires_in
                .map(|microseconds| Duration::from_micros(microseconds.unsigned_abs())),
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

/// Sends a schedule's message beside its times. Returns its id, and its queue; none if there is no such schedule, or its
/// last message is unfinished.
pub(crate) async fn fire_now(
    connection: &mut PgConnection,
    schedule: &ScheduleInfo,
    now: DateTime<Utc>,
) -> Result<Option<MessageId>> {
    let headers = schedule.headers.scheduled(now, 0);
    let id = sqlx::query_scalar!(
        r#"
        insert into pgqrs.messages (
            queue_id, priority, visible_at, enqueued_at, expires_at, unique_key, headers, payload_bytes, payload
        )
        select
            s.queue_id,
            s.priority,
            greatest($3::timestamptz, statement_timestamp() + $4::bigint * interval '1 microsecond'),
            statement_timestamp(),
            statement_timestamp() + s.expires_in * interval '1 microsecond',
            case when s.skip_if_unfinished then 'pgqrs-schedule-' || s.name end,
            $2::json,
            pg_column_size(s.payload) - 4,
            s.payload
        from pgqrs.schedules s
        join pgqrs.queues q on q.id = s.queue_id and q.closed_at is null
        where s.name = $1
        on conflict do nothing
        returning id
        "#,
        schedule.name,
        Json(&headers) as Json<'_>,
        None::<DateTime<Utc>>,
        0_i64,
    )
    .fetch_optional(connection)
    .await?;
    Ok(id.map(MessageId::from))
}
