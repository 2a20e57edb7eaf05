//! The last firings of a schedule, and what became of their messages.

use sqlx::PgConnection;

use crate::{
    admin::rows::firings::{FiringOutcome, ScheduleFiring},
    error::Result,
    message::MessageId,
    queue::QueueName,
};

/// The last firings of a schedule, the newest first.
pub(crate) async fn list(
    connection: &mut PgConnection,
    schedule: &str,
) -> Result<Vec<ScheduleFiring>> {
    let rows = sqlx::query!(
        r#"
        select f.scheduled_for, f.fired_at, f.message_id, q.name as queue,
            case
                when f.message_id is null then case when f.is_closed then 'closed' else 'unfinished' end
                else coalesce(m.state, d.state, a.state, 'done')
            end as "outcome!"
        from pgqrs.schedules s
        join pgqrs.firings f on f.schedule_id = s.id
        join pgqrs.queues q on q.id = f.queue_id
        -- Each by its id: at most a hundred.
        left join lateral (
            select case
                when m.lease_until > statement_timestamp() then 'leased'
                when m.visible_at > statement_timestamp() then 'delayed'
                else 'ready'
            end as state
            from pgqrs.messages m
            where m.queue_id = f.queue_id and m.id = f.message_id
            offset 0
        ) m on true
        left join lateral (
            select 'dead' as state from pgqrs.dead_letters d
            where d.queue_id = f.queue_id and d.id = f.message_id
            offset 0
        ) d on true
        left join lateral (
            select 'archived' as state from pgqrs.archive a
            where a.queue_id = f.queue_id and a.id = f.message_id
            offset 0
        ) a on true
        where s.name = $1
        order by f.fired_at desc, f.scheduled_for desc nulls first
        "#,
        schedule,
    )
    .fetch_all(connection)
    .await?;
    let firings = rows.into_iter().map(|row| {
        Ok(ScheduleFiring {
            scheduled_for: row.scheduled_for,
            fired_at: row.fired_at,
            queue: QueueName::new(row.queue)?,
            message: row.message_id.map(MessageId::from),
            outcome: match row.outcome.as_str() {
                "closed" => FiringOutcome::QueueClosed,
                "unfinished" => FiringOutcome::Unfinished,
                "ready" => FiringOutcome::Ready,
                "delayed" => FiringOutcome::Delayed,
                "leased" => FiringOutcome::Leased,
                "dead" => FiringOutcome::Dead,
                "archived" => FiringOutcome::Archived,
                _ => FiringOutcome::Done,
            },
        })
    });
    firings.collect()
}
