//! All that is known of a message.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use crate::{
    admin::rows::search::{MessageInfo, MessagePlace, MessageState},
    error::Result,
    lifecycle::WorkerId,
    message::{MessageId, Priority},
    postgres::json::{JsonText, headers},
    queue::QueueName,
};

struct Row {
    id: i64,
    priority: i16,
    enqueued_at: DateTime<Utc>,
    attempt: i32,
    producer_id: Option<i64>,
    consumer_id: Option<i64>,
    max_attempts: i32,
    unique_key: Option<String>,
    waiting_key: Option<String>,
    group_key: Option<String>,
    headers: Option<JsonText>,
    payload: String,
    last_error: Option<String>,
    visible_at: Option<DateTime<Utc>>,
    is_delayed: Option<bool>,
    is_parked: Option<bool>,
    lease_expires_at: Option<DateTime<Utc>>,
    expires_at: Option<DateTime<Utc>>,
    snoozes: Option<i32>,
    undecodable_since: Option<DateTime<Utc>>,
    reason: Option<String>,
    died_at: Option<DateTime<Utc>>,
    archived_at: Option<DateTime<Utc>>,
}

impl Row {
    fn place(&mut self) -> Option<MessagePlace> {
        if let Some(died_at) = self.died_at {
            let reason = self.reason.take().unwrap_or_default();
            return Some(MessagePlace::DeadLetters { reason, died_at });
        }
        if let Some(archived_at) = self.archived_at {
            return Some(MessagePlace::Archive { archived_at });
        }
        let state = match (self.lease_expires_at, self.is_delayed) {
            (Some(_), _) => MessageState::Leased,
            (None, Some(true)) => MessageState::Delayed,
            (None, _) => MessageState::Ready,
        };
        Some(MessagePlace::Queued {
            state,
            is_parked: self.is_parked.unwrap_or_default(),
            visible_at: self.visible_at?,
            lease_expires_at: self.lease_expires_at,
        })
    }

    fn info(mut self, queue: &QueueName) -> Option<MessageInfo> {
        Some(MessageInfo {
            place: self.place()?,
            id: MessageId::from(self.id),
            queue: queue.clone(),
            priority: Priority::from_rank(self.priority),
            enqueued_at: self.enqueued_at,
            attempt: self.attempt.unsigned_abs(),
            max_attempts: self.max_attempts.unsigned_abs(),
            expires_at: self.expires_at,
            snoozes: self.snoozes.unwrap_or_default().unsigned_abs(),
            undecodable_since: self.undecodable_since,
            producer: self.producer_id.map(WorkerId::from),
            consumer: self.consumer_id.map(WorkerId::from),
            last_error: self.last_error,
            unique_key: self.unique_key,
            waiting_key: self.waiting_key,
            group: self.group_key,
            headers: headers(self.headers),
            payload: self.payload,
        })
    }
}

/// The message with an id, or those with a key, wherever they are.
pub(crate) async fn find(
    connection: &mut PgConnection,
    queue: &QueueName,
    message: Option<MessageId>,
    key: Option<&str>,
) -> Result<Vec<MessageInfo>> {
    let rows = sqlx::query_as!(
        Row,
        r#"
        with queue as materialized (
            select id, max_attempts from pgqrs.queues where name = $1
        ), wanted as materialized (
            select $2::bigint as id
            union select (
                select m.id from pgqrs.messages m where m.queue_id + 0 = (select id from queue) and m.unique_key = $3
            )
            union select (
                select m.id from pgqrs.messages m where m.queue_id + 0 = (select id from queue) and m.waiting_key = $3
            )
            union select (
                select s.message_id from pgqrs.seen s
                where s.queue_id = (select id from queue) and s.key = $3 and s.until > statement_timestamp()
            )
        )
        select f.id as "id!", f.priority as "priority!", f.enqueued_at as "enqueued_at!", f.attempt as "attempt!",
            f.producer_id, nullif(f.consumer_id, 0) as consumer_id,
            coalesce(f.max_attempts, queue.max_attempts) as "max_attempts!",
            f.unique_key, f.waiting_key, f.group_key, f.headers as "headers?: JsonText", f.payload::text as "payload!", f.last_error,
            -- Somebody may have set it to an infinite time by hand, and Rust has no such time.
            case
                when f.visible_at is not null
                then greatest(
                    least(
                        case
                            when f.group_key is not null and f.visible_at = 'infinity' then f.due_at
                            else f.visible_at
                        end,
                        timestamptz '262000-01-01 00:00+00'
                    ),
                    timestamptz '0001-01-01 00:00+00'
                )
            end as visible_at,
            f.visible_at > statement_timestamp() as is_delayed,
            f.group_key is not null and f.visible_at = 'infinity' as is_parked,
            case
                when f.lease_until > statement_timestamp()
                then least(f.lease_until, timestamptz '262000-01-01 00:00+00')
            end as lease_expires_at,
            case
                when f.expires_at is not null
                then greatest(
                    least(f.expires_at, timestamptz '262000-01-01 00:00+00'), timestamptz '0001-01-01 00:00+00'
                )
            end as expires_at,
            f.snoozes, f.undecodable_since, f.reason, f.died_at, f.archived_at
        from queue
        cross join wanted
        cross join lateral (
            select m.id, m.priority, m.enqueued_at, m.attempt, m.producer_id, m.consumer_id, m.max_attempts,
                m.unique_key, m.waiting_key, m.group_key, m.headers, m.payload, m.last_error, m.visible_at, m.due_at,
                m.lease_until, m.expires_at, m.snoozes, m.undecodable_since, null::text as reason, null::timestamptz as died_at,
                null::timestamptz as archived_at
            from pgqrs.messages m where m.queue_id = queue.id and m.id = wanted.id
            union all
            select d.id, d.priority, d.enqueued_at, d.attempt, d.producer_id, d.consumer_id, d.max_attempts,
                d.unique_key, d.waiting_key, d.group_key, d.headers, d.payload, d.last_error, null, null,
                null, null, null, null, d.reason, d.died_at, null
            from pgqrs.dead_letters d where d.queue_id = queue.id and d.id = wanted.id
            union all
            select a.id, a.priority, a.enqueued_at, a.attempt, a.producer_id, a.consumer_id, a.max_attempts,
                a.unique_key, a.waiting_key, a.group_key, a.headers, a.payload, null, null, null,
                null, null, null, null, null, null, a.archived_at
            from pgqrs.archive a where a.queue_id = queue.id and a.id = wanted.id
        ) f
        order by f.id
        "#,
        queue.as_str(),
        message.map(MessageId::get),
        key,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().filter_map(|row| row.info(queue)).collect())
}
