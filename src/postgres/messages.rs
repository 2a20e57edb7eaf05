//! Statements on `pgqrs.messages` besides inserts, claims and settlements: list, cancel, reschedule, release. All of them
//! filter by queue, which is the first column of every key.

use sqlx::PgConnection;

use crate::{
    admin::rows::QueuedMessage,
    error::Result,
    lifecycle::WorkerId,
    message::{MessageId, Page, Priority, Visible},
    postgres::json::{JsonText, headers},
    queue::QueueName,
};

pub(crate) async fn list(
    connection: &mut PgConnection,
    queue: &QueueName,
    page: &Page,
) -> Result<Vec<QueuedMessage>> {
    let rows = sqlx::query!(
        r#"
        select m.id, m.priority,
            -- Somebody may have set it to an infinite time by hand, and Rust has no such time.
            greatest(
                least(m.visible_at, timestamptz '262000-01-01 00:00+00'), timestamptz '0001-01-01 00:00+00'
            ) as "visible_at!",
            m.enqueued_at, m.attempt, m.producer_id, nullif(m.consumer_id, 0) as consumer_id,
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
            m.last_error,
            m.headers as "headers?: JsonText",
            case when $4 then m.payload::text end as payload
        from pgqrs.queues q
        join pgqrs.messages m on m.queue_id = q.id
        where q.name = $1 and m.id > $2
        order by m.id
        limit $3
        "#,
        queue.as_str(),
        page.after(),
        page.limit(),
        page.with_payload(),
    )
    .fetch_all(connection)
    .await?;
    let messages = rows.into_iter().map(|row| QueuedMessage {
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
        last_error: row.last_error,
        headers: headers(row.headers),
        payload: row.payload,
    });
    Ok(messages.collect())
}

/// Deletes a message that isn't leased; `false` if there is none.
pub(crate) async fn cancel(
    connection: &mut PgConnection,
    queue: &QueueName,
    message: MessageId,
) -> Result<bool> {
    let cancelled = sqlx::query!(
        "delete from pgqrs.messages m
         using pgqrs.queues q
         where q.name = $1 and m.queue_id = q.id and m.id = $2
             and m.lease_until <= statement_timestamp()",
        queue.as_str(),
        message.get(),
    )
    .execute(connection)
    .await?;
    Ok(cancelled.rows_affected() == 1)
}

/// Reschedules a message that isn't leased; `false` if there is none.
pub(crate) async fn reschedule(
    connection: &mut PgConnection,
    queue: &QueueName,
    message: MessageId,
    visible: Visible,
) -> Result<bool> {
    let times = visible.times();
    let moved = sqlx::query!(
        "update pgqrs.messages m
         set visible_at =
                 greatest($3::timestamptz, statement_timestamp() + $4::bigint * interval '1 microsecond'),
             lease_until = '-infinity',
             lease_token = 0
         from pgqrs.queues q
         where q.name = $1 and m.queue_id = q.id and m.id = $2
             and m.lease_until <= statement_timestamp()",
        queue.as_str(),
        message.get(),
        times.not_before,
        times.delay,
    )
    .execute(connection)
    .await?;
    Ok(moved.rows_affected() == 1)
}

/// Makes all messages that a worker holds ready again; `None` if there is no such worker.
pub(crate) async fn release_of(
    connection: &mut PgConnection,
    worker: WorkerId,
) -> Result<Option<u64>> {
    let released = sqlx::query_scalar!(
        r#"
        with worker as (
            select id, queue_id from pgqrs.workers where id = $1
        ), released as (
            update pgqrs.messages m
            -- Not only the lease: every watermark is past the old time.
            set visible_at = statement_timestamp(), lease_until = '-infinity', lease_token = 0, consumer_id = 0
            from worker
            where m.queue_id = worker.queue_id and m.consumer_id = worker.id
                and m.lease_until > statement_timestamp()
            returning m.id
        )
        select (select count(*) from released) as "count!" from worker
        "#,
        worker.get(),
    )
    .fetch_optional(connection)
    .await?;
    Ok(released.map(i64::unsigned_abs))
}

/// Notifies listening processes that messages are ready in these queues.
pub(crate) async fn notify(
    connection: &mut PgConnection,
    channel: &str,
    queues: &[String],
) -> Result<()> {
    sqlx::query!(
        r#"select pg_notify($1, queue) as "sent: ()" from unnest($2::text[]) as queue"#,
        channel,
        queues,
    )
    .fetch_all(connection)
    .await?;
    Ok(())
}
