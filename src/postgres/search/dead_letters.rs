//! A page of dead letters, and their reasons.

use sqlx::PgConnection;

use super::page::{Filter, LOOKED_AT, Row, page};
use crate::{
    admin::rows::{
        DeadLetter,
        search::{Cursor, DeadLetterReason, Found},
    },
    count::Count,
    error::Result,
    message::{MessageId, Priority},
    postgres::json::{JsonText, headers},
    queue::QueueName,
};

/// A page of dead letters.
#[derive(Debug)]
pub(crate) struct WantedLetters<'a> {
    pub(crate) queue: &'a QueueName,
    pub(crate) reason: Option<&'a str>,
    pub(crate) key: Option<&'a str>,
    pub(crate) filter: &'a Filter,
    pub(crate) after: Option<Cursor>,
    pub(crate) limit: u32,
    pub(crate) with_payload: bool,
}

/// Dead letters, those with the highest ids first.
pub(crate) async fn dead_letters(
    connection: &mut PgConnection,
    wanted: WantedLetters<'_>,
) -> Result<Found<DeadLetter>> {
    let rows = sqlx::query!(
        r#"
        with queue as materialized (
            select id from pgqrs.queues where name = $1
        ), looked_at as (
            select d.*, row_number() over (order by d.id desc) as place
            from (
                select * from pgqrs.dead_letters d
                where d.queue_id = (select id from queue) and d.id < coalesce($2, 9223372036854775807)
                order by d.id desc
                limit 50000
            ) d
        )
        select d.id, d.priority, d.enqueued_at, d.attempt, d.max_attempts, d.unique_key, d.waiting_key, d.group_key,
            d.reason, d.last_error, d.died_at,
            d.headers as "headers?: JsonText",
            case when $4 then d.payload::text end as payload,
            d.matches as "matches!", d.place as "place!"
        from (
            select d.*, coalesce(
                ($5::text is null or d.reason = $5)
                    and ($6::text is null or d.unique_key = $6 or d.waiting_key = $6)
                    and ($7::text is null or strpos(d.last_error, $7) > 0)
                    and ($12::text is null or d.group_key = $12)
                    and ($8::text is null or case
                        -- What can't be decoded, such as a zero, would be an error.
                        when strpos(d.headers::text, E'\\u') > 0
                        then regexp_replace(
                            d.headers::text, E'\\\\u(0000|[dD][89a-fA-F][0-9a-fA-F][0-9a-fA-F])',
                            E'\\\\u003f', 'g'
                        )::json
                        else d.headers
                    end #>> array[$8] = $9)
                    and ($10::text[] is null or case
                        when strpos(d.payload::text, E'\\u') > 0
                        then regexp_replace(
                            d.payload::text, E'\\\\u(0000|[dD][89a-fA-F][0-9a-fA-F][0-9a-fA-F])',
                            E'\\\\u003f', 'g'
                        )::json
                        else d.payload
                    end #>> $10::text[] = $11),
                false
            ) as matches
            from looked_at d
        ) d
        -- And the last one that was looked at: if it doesn't match, the list was cut there.
        where d.matches or d.place = 50000
        order by d.id desc
        limit $3
        "#,
        wanted.queue.as_str(),
        wanted.after.map(|after| after.id),
        i64::from(wanted.limit),
        wanted.with_payload,
        wanted.reason,
        wanted.key,
        wanted.filter.error.as_deref(),
        wanted.filter.header_name(),
        wanted.filter.header_value(),
        wanted.filter.payload_path(),
        wanted.filter.payload_value(),
        wanted.filter.group.as_deref(),
    )
    .fetch_all(connection)
    .await?;
    let rows = rows.into_iter().map(|row| Row {
        cursor: Cursor { at: 0, id: row.id },
        place: row.place,
        matches: row.matches,
        item: DeadLetter {
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
        },
    });
    Ok(page(rows.collect(), wanted.limit))
}

/// The reasons of the dead letters with the highest ids, the most frequent first.
pub(crate) async fn reasons(
    connection: &mut PgConnection,
    queue: &QueueName,
) -> Result<Vec<DeadLetterReason>> {
    let rows = sqlx::query!(
        r#"
        with queue as materialized (
            select id from pgqrs.queues where name = $1
        ), groups as materialized (
            select d.reason, count(*) as letters, max(d.id) as newest, min(d.died_at) as first_died_at,
                max(d.died_at) as last_died_at, sum(count(*)) over () as looked_at
            from (
                select d.id, d.reason, d.died_at from pgqrs.dead_letters d
                where d.queue_id = (select id from queue)
                order by d.id desc
                limit 50000
            ) d
            group by d.reason
            order by count(*) desc, d.reason
            limit 100
        )
        select g.reason as "reason!", g.letters as "letters!", g.newest as "newest!",
            g.first_died_at as "first_died_at!", g.last_died_at as "last_died_at!", g.looked_at::bigint as "looked_at!",
            (
                select d.last_error from pgqrs.dead_letters d
                where d.queue_id = (select id from queue) and d.id = g.newest
            ) as last_error
        from groups g
        order by g.letters desc, g.reason
        "#,
        queue.as_str(),
    )
    .fetch_all(connection)
    .await?;
    let reasons = rows.into_iter().map(|row| DeadLetterReason {
        reason: row.reason,
        letters: Count::new(row.letters, row.looked_at == LOOKED_AT),
        newest: MessageId::from(row.newest),
        last_error: row.last_error,
        first_died_at: row.first_died_at,
        last_died_at: row.last_died_at,
    });
    Ok(reasons.collect())
}
