//! The statement that fires schedules, and what it is given.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::Due;
use crate::{error::Result, postgres::json::Json, timing::Plan};

/// A schedule that was fired: its time was moved on, and its messages were stored with that.
#[derive(Debug)]
pub(crate) struct Fired {
    pub(crate) id: i64,
    /// By the database's clock.
    pub(crate) at: DateTime<Utc>,
    pub(crate) outcome: Outcome,
}

/// What became of the messages of a schedule that was fired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Sent,
    /// There is a message with its key.
    Unfinished,
    /// Its queue takes no messages.
    Closed,
}

/// Fires schedules that are due. Those that were fired, replaced, paused or deleted meanwhile are left out.
pub(crate) async fn fire(
    connection: &mut PgConnection,
    planned: &[(&Due, &Plan)],
) -> Result<Vec<Fired>> {
    let ids: Vec<_> = planned.iter().map(|(due, _)| due.id).collect();
    let versions: Vec<_> = planned.iter().map(|(due, _)| due.version).collect();
    let due_times: Vec<_> = planned.iter().map(|(due, _)| due.next_at).collect();
    let next_times: Vec<_> = planned.iter().map(|(_, plan)| plan.next_at).collect();
    let last_times: Vec<_> = planned
        .iter()
        .map(|(_, plan)| plan.times.last().copied())
        .collect();
    let headers: Vec<_> = planned
        .iter()
        .map(|(due, plan)| all_headers(due, plan))
        .collect();
    let headers: Vec<_> = headers.iter().map(|headers| Json(headers)).collect();
    let times: Vec<_> = planned.iter().map(|(_, plan)| all_times(plan)).collect();
    let times: Vec<_> = times.iter().map(|times| Json(times)).collect();
    let rows = sqlx::query!(
        r#"
        select schedule_id as "id!", fired_at as "at!", outcome as "outcome!"
        from pgqrs.fire_schedules($1, $2, $3, $4, $5, $6, $7)
        "#,
        &ids,
        &versions,
        &due_times,
        &next_times,
        &last_times as &[Option<DateTime<Utc>>],
        &headers as &[Json<'_>],
        &times as &[Json<'_>],
    )
    .fetch_all(connection)
    .await?;
    let fired = rows.into_iter().map(|row| Fired {
        id: row.id,
        at: row.at,
        outcome: match row.outcome.as_str() {
            "unfinished" => Outcome::Unfinished,
            "closed" => Outcome::Closed,
            _ => Outcome::Sent,
        },
    });
    Ok(fired.collect())
}

/// The headers of each message of a plan, as a JSON array.
fn all_headers(due: &Due, plan: &Plan) -> String {
    let mut all = String::from("[");
    for (place, time) in plan.times.iter().enumerate() {
        if place > 0 {
            all.push(',');
        }
        // Those before the first one belong to it.
        let missed = if place == 0 { plan.missed } else { 0 };
        all.push_str(&due.headers.scheduled(&due.name, *time, missed));
    }
    all.push(']');
    all
}

/// The times of a plan, as a JSON array.
fn all_times(plan: &Plan) -> String {
    let times: Vec<_> = plan
        .times
        .iter()
        .map(|time| format!("\"{}\"", time.to_rfc3339()))
        .collect();
    format!("[{}]", times.join(","))
}
