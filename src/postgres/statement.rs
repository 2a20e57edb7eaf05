//! The insert for connections of other drivers. It returns ids or the reason why there are none, in one statement,
//! since nothing else is known about the connection.

use std::sync::LazyLock;

use sqlx::{Execute, Postgres, postgres::PgArguments, query::QueryScalar};

use crate::{error::Error, lifecycle::WorkerId, queue::QueueName};

/// The statement's text.
pub(crate) fn sql() -> &'static str {
    static SQL: LazyLock<String> = LazyLock::new(|| insertion().sql().as_str().to_owned());
    &SQL
}

/// Each parameter is cast in the text, so that a driver binds the type that the server expects.
fn insertion<'q>() -> QueryScalar<'q, Postgres, Option<i64>, PgArguments> {
    let (payloads, headers): (&[String], &[Option<String>]) = (&[], &[]);
    sqlx::query_scalar!(
        r#"
        with target as (
            select
                q.id as queue_id,
                -- Ids are positive: a negative one is a refusal.
                case
                    when $5::bigint is not null and (w.id is null or w.status = 'stopped') then -2
                    when q.id is null or w.queue_id <> q.id then -1
                    when w.status <> 'ready' then -3
                    when q.closed_at is not null then -4
                end as refusal
            from (values (true)) always
            left join pgqrs.queues q on q.name = $1::text
            left join pgqrs.workers w on w.id = $5::bigint
        ), stored as (
            insert into pgqrs.messages (
                queue_id, priority, visible_at, enqueued_at, producer_id, headers, payload_bytes, payload
            )
            select
                m.queue_id,
                $2::smallint,
                greatest($3::timestamptz, statement_timestamp() + $4::bigint * interval '1 microsecond'),
                statement_timestamp(),
                $5::bigint,
                m.headers::json,
                octet_length(m.payload),
                m.payload::json
            from (
                -- Headers are null for all messages if their array is empty.
                select queue_id, unnest($6::text[]) as payload, unnest($7::text[]) as headers
                from target
                where refusal is null
            ) m
            returning id
        )
        select id from stored
        union all
        select refusal from target where refusal is not null
        "#,
        "",
        0_i16,
        None::<chrono::DateTime<chrono::Utc>>,
        0_i64,
        None::<i64>,
        payloads,
        headers as &[Option<String>],
    )
}

/// Why nothing was stored.
pub(crate) fn refused(refusal: i64, queue: &QueueName, producer: Option<WorkerId>) -> Error {
    match (refusal, producer) {
        (-2, Some(worker)) => Error::WorkerStopped { worker },
        (-3, Some(worker)) => Error::WorkerSuspended { worker },
        (-4, _) => Error::QueueClosed {
            queue: queue.clone(),
        },
        _ => Error::QueueNotFound {
            queue: queue.clone(),
        },
    }
}
