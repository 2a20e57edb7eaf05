//! Deliveries without a group that aren't done: each goes by the statement of its kind.

use sqlx::PgConnection;

use super::{
    failures::{Failed, Failure, Then, not_found, put_back_or_dead_letter},
    lock_wait::LockWait,
    slow_down::slow_down,
};
use crate::error::Result;

/// Puts messages of one queue back whose leases are still held, or dead-letters them, and slows the queue down if that was
/// asked for. Returns what became of each.
pub(crate) async fn fail<'a>(
    connection: &mut PgConnection,
    failures: &'a [Failure],
) -> Result<Vec<Failed<'a>>> {
    let (slowing, others): (Vec<_>, Vec<_>) =
        (failures.iter()).partition(|failure| failure.then == Then::SlowDown);
    let mut failed = if slowing.is_empty() {
        Vec::new()
    } else {
        slow_down(connection, &slowing, LockWait::Unlimited).await?
    };
    if others.is_empty() {
        return Ok(failed);
    }
    let mut done = put_back_or_dead_letter(connection, &others).await?;
    if done.len() < others.len() {
        let rest: Vec<_> = not_found(others, &done).collect();
        done.extend(put_back_or_dead_letter(connection, &rest).await?);
    }
    failed.append(&mut done);
    Ok(failed)
}
