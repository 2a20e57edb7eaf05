//! Time that passes in a test.

use std::time::Duration;

use crate::{
    error::Result,
    executor::{self, Executor},
    postgres::testing,
};

/// Has time pass for a test's transaction: delays, leases, expirations, keys that are kept for a time, and schedules come
/// this much nearer. The process's clock and the database's go on as they do.
///
/// # Shape
/// It moves the times of all rows that the transaction sees. Rows that another transaction has locked are left as they
/// are, so that tests don't wait for each other. A schedule that is due then is fired by the next
/// [`drain`](super::drain) of its queue.
///
/// # Units
/// At most a thousand years.
///
/// # Errors
/// Connection errors; [`Error::PermissionDenied`](crate::Error::PermissionDenied) without the privileges of the owner.
///
/// # Source
/// One statement: `update pgqrs.messages set visible_at = visible_at - …`, and the same of schedules, of queues that are
/// paused until a time, and of keys that were seen.
///
/// # Example
/// ```no_run
/// # use std::time::Duration;
/// # use pgqrs::{Delivery, Queue, testing};
/// # const EMAILS: Queue<String> = Queue::new("emails");
/// # async fn send(delivery: Delivery<String>) -> Result<(), String> { Ok(()) }
/// # async fn example(mut tx: pgqrs::Transaction) -> Result<(), Box<dyn std::error::Error>> {
/// pgqrs::enqueue().message(&"ada".to_owned()).to(EMAILS).delay(3600).execute(&mut tx).await?;
/// assert!(testing::drain(&mut tx, EMAILS, send).await?.done.is_empty());
///
/// testing::advance(&mut tx, Duration::from_secs(3600)).await?;
/// assert_eq!(testing::drain(&mut tx, EMAILS, send).await?.done.len(), 1);
/// # Ok(())
/// # }
/// ```
pub async fn advance(on: impl Executor, by: Duration) -> Result<()> {
    executor::run(on, async |connection| {
        testing::advance(connection, by).await
    })
    .await
}
