//! A page of messages in a state, from either end.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::page::{Filter, Row, page};
use crate::{
    admin::rows::{
        QueuedMessage,
        search::{Cursor, Found, MessageState},
    },
    error::Result,
    lifecycle::WorkerId,
    message::{MessageId, Priority},
    postgres::json::{JsonText, headers},
    queue::QueueName,
};

/// A page of messages.
#[derive(Debug)]
pub(crate) struct Wanted<'a> {
    pub(crate) queue: &'a QueueName,
    pub(crate) state: MessageState,
    pub(crate) filter: &'a Filter,
    pub(crate) after: Option<Cursor>,
    pub(crate) limit: u32,
    pub(crate) with_payload: bool,
}

struct MessageRow {
    id: i64,
    priority: i16,
    visible_at: DateTime<Utc>,
    enqueued_at: DateTime<Utc>,
    attempt: i32,
    producer_id: Option<i64>,
    consumer_id: Option<i64>,
    lease_expires_at: Option<DateTime<Utc>>,
    max_attempts: Option<i32>,
    snoozes: i32,
    undecodable_since: Option<DateTime<Utc>>,
    expires_at: Option<DateTime<Utc>>,
    unique_key: Option<String>,
    waiting_key: Option<String>,
    group_key: Option<String>,
    is_parked: bool,
    last_error: Option<String>,
    headers: Option<JsonText>,
    payload: Option<String>,
    matches: bool,
    place: i64,
    at: i64,
}

impl From<MessageRow> for Row<QueuedMessage> {
    fn from(row: MessageRow) -> Self {
        Self {
            cursor: Cursor {
                at: row.at,
                id: row.id,
            },
            place: row.place,
            matches: row.matches,
            item: QueuedMessage {
                id: MessageId::from(row.id),
                priority: Priority::from_rank(row.priority),
                visible_at: row.visible_at,
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
                group: row.group_key,
                is_parked: row.is_parked,
                last_error: row.last_error,
                headers: headers(row.headers),
                payload: row.payload,
            },
        }
    }
}

/// Messages in a state, those that became visible last first.
pub(crate) async fn newest_first(
    connection: &mut PgConnection,
    wanted: Wanted<'_>,
) -> Result<Found<QueuedMessage>> {
    let rows = sqlx::query_as!(
        MessageRow,
        r#"
        with queue as materialized (
            select id from pgqrs.queues where name = $1
        ), span as materialized (
            select
                coalesce(
                    case $4::bigint
                        when 9223372036854775807 then 'infinity'
                        when -9223372036854775808 then '-infinity'
                        else timestamptz 'epoch' + $4 * interval '1 microsecond'
                    end,
                    case when $2 then 'infinity' else statement_timestamp() end
                ) as from_time,
                coalesce($5::bigint, 9223372036854775807) as from_id,
                case when $2 then statement_timestamp() else '-infinity' end as until_time
        ), looked_at as (
            select m.*, row_number() over (order by m.visible_at desc, m.id desc) as place
            from (
                -- Each along the order of delivery, and merged: no more are read than are returned or looked at.
                select * from (
            (
                select m.* from pgqrs.messages m
                where m.queue_id + 0 = (select id from queue) and m.priority = 0 and m.priority >= 0
                    and (m.visible_at, m.id) < ((select from_time from span), (select from_id from span))
                    and m.visible_at >= (select until_time from span)
                order by m.visible_at desc, m.id desc
                limit 50000
            )
            union all
            (
                select m.* from pgqrs.messages m
                where m.queue_id + 0 = (select id from queue) and m.priority = 1 and m.priority >= 0
                    and (m.visible_at, m.id) < ((select from_time from span), (select from_id from span))
                    and m.visible_at >= (select until_time from span)
                order by m.visible_at desc, m.id desc
                limit 50000
            )
            union all
            (
                select m.* from pgqrs.messages m
                where m.queue_id + 0 = (select id from queue) and m.priority = 2 and m.priority >= 0
                    and (m.visible_at, m.id) < ((select from_time from span), (select from_id from span))
                    and m.visible_at >= (select until_time from span)
                order by m.visible_at desc, m.id desc
                limit 50000
            )
            union all
            (
                select m.* from pgqrs.messages m
                where m.queue_id + 0 = (select id from queue) and m.priority = 3 and m.priority >= 0
                    and (m.visible_at, m.id) < ((select from_time from span), (select from_id from span))
                    and m.visible_at >= (select until_time from span)
                order by m.visible_at desc, m.id desc
                limit 50000
            )
                ) m
                order by m.visible_at desc, m.id desc
                limit 50000
            ) m
        )
        select m.id as "id!", m.priority as "priority!",
            -- Somebody may have set it to an infinite time by hand, and Rust has no such time.
            greatest(
                least(
                    case when m.group_key is not null and m.visible_at = 'infinity' then m.due_at else m.visible_at end,
                    timestamptz '262000-01-01 00:00+00'
                ),
                timestamptz '0001-01-01 00:00+00'
            ) as "visible_at!",
            m.group_key, m.group_key is not null and m.visible_at = 'infinity' as "is_parked!",
            m.enqueued_at as "enqueued_at!", m.attempt as "attempt!", m.producer_id,
            nullif(m.consumer_id, 0) as consumer_id,
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
            case when $7 then m.payload::text end as payload,
            m.matches as "matches!", m.place as "place!",
            case m.visible_at
                when 'infinity' then 9223372036854775807
                when '-infinity' then -9223372036854775808
                else (extract(epoch from m.visible_at) * 1000000)::bigint
            end as "at!"
        from (
            select m.*, coalesce(
                (m.lease_until > statement_timestamp()) = $3
                    and ($8::text is null or strpos(m.last_error, $8) > 0)
                    and ($13::text is null or m.group_key = $13)
                    and ($9::text is null or case
                        -- What can't be decoded, such as a zero, would be an error.
                        when strpos(m.headers::text, E'\\u') > 0
                        then regexp_replace(
                            m.headers::text, E'\\\\u(0000|[dD][89a-fA-F][0-9a-fA-F][0-9a-fA-F])',
                            E'\\\\u003f', 'g'
                        )::json
                        else m.headers
                    end #>> array[$9] = $10)
                    and ($11::text[] is null or case
                        when strpos(m.payload::text, E'\\u') > 0
                        then regexp_replace(
                            m.payload::text, E'\\\\u(0000|[dD][89a-fA-F][0-9a-fA-F][0-9a-fA-F])',
                            E'\\\\u003f', 'g'
                        )::json
                        else m.payload
                    end #>> $11::text[] = $12),
                false
            ) as matches
            from looked_at m
        ) m
        -- And the last one that was looked at: if it doesn't match, the list was cut there.
        where m.matches or m.place = 50000
        order by m.visible_at desc, m.id desc
        limit $6
        "#,
        wanted.queue.as_str(),
        wanted.state == MessageState::Delayed,
        wanted.state == MessageState::Leased,
        wanted.after.map(|after| after.at),
        wanted.after.map(|after| after.id),
        i64::from(wanted.limit),
        wanted.with_payload,
        wanted.filter.error.as_deref(),
        wanted.filter.header_name(),
        wanted.filter.header_value(),
        wanted.filter.payload_path(),
        wanted.filter.payload_value(),
        wanted.filter.group.as_deref(),
    )
    .fetch_all(connection)
    .await?;
    let rows = rows.into_iter().map(Row::from).collect();
    Ok(page(rows, wanted.limit))
}

/// The same in the order in which they became visible.
pub(crate) async fn oldest_first(
    connection: &mut PgConnection,
    wanted: Wanted<'_>,
) -> Result<Found<QueuedMessage>> {
    let rows = sqlx::query_as!(
        MessageRow,
        r#"
        with queue as materialized (
            select id from pgqrs.queues where name = $1
        ), span as materialized (
            select
                coalesce(
                    case $4::bigint
                        when 9223372036854775807 then 'infinity'
                        when -9223372036854775808 then '-infinity'
                        else timestamptz 'epoch' + $4 * interval '1 microsecond'
                    end,
                    case when $2 then statement_timestamp() else '-infinity' end
                ) as from_time,
                coalesce($5::bigint, case when $2 then 9223372036854775807 else 0 end) as from_id,
                case when $2 then 'infinity' else statement_timestamp() end as until_time
        ), looked_at as (
            select m.*, row_number() over (order by m.visible_at, m.id) as place
            from (
                -- Each along the order of delivery, and merged: no more are read than are returned or looked at.
                select * from (
            (
                select m.* from pgqrs.messages m
                where m.queue_id + 0 = (select id from queue) and m.priority = 0 and m.priority >= 0
                    and (m.visible_at, m.id) > ((select from_time from span), (select from_id from span))
                    and m.visible_at <= (select until_time from span)
                order by m.visible_at, m.id
                limit 50000
            )
            union all
            (
                select m.* from pgqrs.messages m
                where m.queue_id + 0 = (select id from queue) and m.priority = 1 and m.priority >= 0
                    and (m.visible_at, m.id) > ((select from_time from span), (select from_id from span))
                    and m.visible_at <= (select until_time from span)
                order by m.visible_at, m.id
                limit 50000
            )
            union all
            (
                select m.* from pgqrs.messages m
                where m.queue_id + 0 = (select id from queue) and m.priority = 2 and m.priority >= 0
                    and (m.visible_at, m.id) > ((select from_time from span), (select from_id from span))
                    and m.visible_at <= (select until_time from span)
                order by m.visible_at, m.id
                limit 50000
            )
            union all
            (
                select m.* from pgqrs.messages m
                where m.queue_id + 0 = (select id from queue) and m.priority = 3 and m.priority >= 0
                    and (m.visible_at, m.id) > ((select from_time from span), (select from_id from span))
                    and m.visible_at <= (select until_time from span)
                order by m.visible_at, m.id
                limit 50000
            )
                ) m
                order by m.visible_at, m.id
                limit 50000
            ) m
        )
        select m.id as "id!", m.priority as "priority!",
            -- Somebody may have set it to an infinite time by hand, and Rust has no such time.
            greatest(
                least(
                    case when m.group_key is not null and m.visible_at = 'infinity' then m.due_at else m.visible_at end,
                    timestamptz '262000-01-01 00:00+00'
                ),
                timestamptz '0001-01-01 00:00+00'
            ) as "visible_at!",
            m.group_key, m.group_key is not null and m.visible_at = 'infinity' as "is_parked!",
            m.enqueued_at as "enqueued_at!", m.attempt as "attempt!", m.producer_id,
            nullif(m.consumer_id, 0) as consumer_id,
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
            case when $7 then m.payload::text end as payload,
            m.matches as "matches!", m.place as "place!",
            case m.visible_at
                when 'infinity' then 9223372036854775807
                when '-infinity' then -9223372036854775808
                else (extract(epoch from m.visible_at) * 1000000)::bigint
            end as "at!"
        from (
            select m.*, coalesce(
                (m.lease_until > statement_timestamp()) = $3
                    and ($8::text is null or strpos(m.last_error, $8) > 0)
                    and ($13::text is null or m.group_key = $13)
                    and ($9::text is null or case
                        -- What can't be decoded, such as a zero, would be an error.
                        when strpos(m.headers::text, E'\\u') > 0
                        then regexp_replace(
                            m.headers::text, E'\\\\u(0000|[dD][89a-fA-F][0-9a-fA-F][0-9a-fA-F])',
                            E'\\\\u003f', 'g'
                        )::json
                        else m.headers
                    end #>> array[$9] = $10)
                    and ($11::text[] is null or case
                        when strpos(m.payload::text, E'\\u') > 0
                        then regexp_replace(
                            m.payload::text, E'\\\\u(0000|[dD][89a-fA-F][0-9a-fA-F][0-9a-fA-F])',
                            E'\\\\u003f', 'g'
                        )::json
                        else m.payload
                    end #>> $11::text[] = $12),
                false
            ) as matches
            from looked_at m
        ) m
        -- And the last one that was looked at: if it doesn't match, the list was cut there.
        where m.matches or m.place = 50000
        order by m.visible_at, m.id
        limit $6
        "#,
        wanted.queue.as_str(),
        wanted.state == MessageState::Delayed,
        wanted.state == MessageState::Leased,
        wanted.after.map(|after| after.at),
        wanted.after.map(|after| after.id),
        i64::from(wanted.limit),
        wanted.with_payload,
        wanted.filter.error.as_deref(),
        wanted.filter.header_name(),
        wanted.filter.header_value(),
        wanted.filter.payload_path(),
        wanted.filter.payload_value(),
        wanted.filter.group.as_deref(),
    )
    .fetch_all(connection)
    .await?;
    let rows = rows.into_iter().map(Row::from).collect();
    Ok(page(rows, wanted.limit))
}
