//! Statements on `pgqrs.archive`, for administration. A message is inserted here by being archived, which is a
//! statement on `pgqrs.messages`.

use std::time::Duration;

use sqlx::PgConnection;

use crate::{
    admin::rows::ArchivedMessage,
    error::Result,
    message::{MessageId, Page, Priority, age},
    postgres::json::{JsonText, headers},
    queue::QueueName,
};

pub(crate) async fn list(
    connection: &mut PgConnection,
    queue: &QueueName,
    page: &Page,
) -> Result<Vec<ArchivedMessage>> {
    let rows = sqlx::query!(
        r#"
        select a.id, a.priority, a.enqueued_at, a.attempt, a.archived_at,
            a.headers as "headers?: JsonText",
            case when $4 then a.payload::text end as payload
        from pgqrs.queues q
        join pgqrs.archive a on a.queue_id = q.id
        where q.name = $1 and a.id > $2
        order by a.id
        limit $3
        "#,
        queue.as_str(),
        page.after(),
        page.limit(),
        page.with_payload(),
    )
    .fetch_all(connection)
    .await?;
    let archived = rows.into_iter().map(|row| ArchivedMessage {
        id: MessageId::from(row.id),
        priority: Priority::from_rank(row.priority),
        enqueued_at: row.enqueued_at,
        attempt: row.attempt.unsigned_abs(),
        archived_at: row.archived_at,
        headers: headers(row.headers),
        payload: row.payload,
    });
    Ok(archived.collect())
}

/// Returns the number of deleted messages; `None` if there is no such queue.
pub(crate) async fn purge(
    connection: &mut PgConnection,
    queue: &QueueName,
    older_than: Duration,
) -> Result<Option<u64>> {
    let purged = sqlx::query_scalar!(
        r#"
        with queue as (
            select id from pgqrs.queues where name = $1
        ), purged as (
            delete from pgqrs.archive a
            using queue
            where a.queue_id = queue.id
                and a.archived_at <= statement_timestamp() - $2::bigint * interval '1 microsecond'
            returning a.id
        )
        select (select count(*) from purged) as "count!" from queue
        "#,
        queue.as_str(),
        age(older_than),
    )
    .fetch_optional(connection)
    .await?;
    Ok(purged.map(i64::unsigned_abs))
}
