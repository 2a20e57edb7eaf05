//! Many deliveries, acknowledged in one statement.

use std::{collections::HashSet, fmt};

use sqlx::{Connection, PgConnection};
use tracing::Instrument;

use super::{Decoded, Delivery, settlement::wake};
use crate::{
    error::{Error, Result},
    executor::{self, Execute, Executor},
    message::{MessageId, Receipt},
    postgres::settle::{
        self,
        grouped::{self, LockWait},
    },
    queue::QueueName,
    telemetry::{self, Messages, Timer},
};

/// Acknowledges many deliveries, of one queue or of several, in one statement, and those with a
/// [group](crate::Enqueue::group) in another of the same transaction.
///
/// # Shape
/// Returns the ids of those whose lease was lost; all others are acknowledged.
///
/// # Errors
/// Connection errors. Then no delivery is settled, or it isn't known whether they are: [`try_ack_all`] hands all of
/// them back.
///
/// # Source
/// `delete from pgqrs.messages where ctid = any(…) and lease_token = any(…)`
///
/// # Example
/// ```no_run
/// # async fn example(store: pgqrs::Store) -> pgqrs::Result<()> {
/// let deliveries = pgqrs::dequeue().from("tasks").limit(100).execute(&store).await?;
/// let lost = pgqrs::ack_all(deliveries, &store).await?;
/// assert!(lost.is_empty());
/// # Ok(())
/// # }
/// ```
pub fn ack_all<'c, T: Send + 'c, D: 'c>(
    deliveries: Vec<Delivery<T, D>>,
    on: impl Executor + 'c,
) -> Execute<'c, Result<Vec<MessageId>>> {
    settle_all(deliveries, on)
}

/// As [`ack_all`]; an error hands the deliveries back, for a retry.
///
/// # Errors
/// [`UnsettledBatch`].
pub fn try_ack_all<'c, T: Send + 'c, D: 'c>(
    deliveries: Vec<Delivery<T, D>>,
    on: impl Executor + 'c,
) -> Execute<'c, Result<Vec<MessageId>, UnsettledBatch<T, D>>> {
    settle_all(deliveries, on)
}

fn settle_all<'c, T: Send + 'c, D: 'c, E: From<UnsettledBatch<T, D>>>(
    deliveries: Vec<Delivery<T, D>>,
    on: impl Executor + 'c,
) -> Execute<'c, Result<Vec<MessageId>, E>> {
    Execute::new(async move {
        if deliveries.is_empty() {
            return Ok(Vec::new());
        }
        let queue = queue_of_all(&deliveries);
        let messages = Messages::Batch(deliveries.len());
        let span = telemetry::settle("ack", queue.as_ref().map(QueueName::as_str), messages);
        let receipts: Vec<_> = deliveries
            .iter()
            .map(|delivery| delivery.lease.receipt())
            .collect();
        let to_archive: Vec<_> = deliveries
            .iter()
            .filter(|delivery| delivery.message.origin.settings.archive_on_ack)
            .map(|delivery| delivery.message.queue_id)
            .collect();
        set_settling(&deliveries, true);
        let (in_groups, others): (Vec<_>, Vec<_>) = receipts
            .iter()
            .copied()
            .partition(|receipt| receipt.is_grouped);
        let (store, sent_to) = if in_groups.is_empty() {
            (None, None)
        } else {
            (on.store(), on.sent_to())
        };
        let mut ready_queues = HashSet::new();
        let call = executor::run(on, async |connection| {
            if in_groups.is_empty() {
                return ack_without_groups(connection, &others, &to_archive).await;
            }
            let waits = LockWait::Unlimited;
            if others.is_empty() {
                let acked = grouped::ack(connection, &in_groups, &to_archive, waits).await?;
                ready_queues = acked.ready_queues;
                return Ok(acked.ids);
            }
            // All of them, or none. Those with groups last, so that these are locked for as short as can be.
            let mut transaction = connection.begin().await?;
            let mut settled = ack_without_groups(&mut transaction, &others, &to_archive).await?;
            let acked = grouped::ack(&mut transaction, &in_groups, &to_archive, waits).await?;
            transaction.commit().await?;
            settled.extend(acked.ids);
            ready_queues = acked.ready_queues;
            Ok(settled)
        });
        let timer = Timer::start();
        let settled = call.instrument(span.clone()).await;
        let error = settled.as_ref().err();
        telemetry::settled(
            "ack",
            queue.as_ref().map(QueueName::as_str),
            receipts.len(),
            timer,
            error,
        );
        match settled {
            Ok(mut acked) => {
                for queue_id in ready_queues {
                    let message = deliveries.iter().map(|delivery| &delivery.message);
                    if let Some(message) = { message }.find(|one| one.queue_id == queue_id) {
                        wake(store.clone(), sent_to.clone(), &message.origin.queue);
                    }
                }
                acked.sort_unstable();
                let is_acked =
                    |delivery: &&Delivery<T, D>| acked.binary_search(&delivery.id()).is_ok();
                for delivery in deliveries.iter().filter(is_acked) {
                    delivery.lease.settled();
                }
                let lost = deliveries.iter().filter(|delivery| !is_acked(delivery));
                lost.clone()
                    .for_each(|delivery| delivery.lease.set_settling(false));
                let report = |delivery: &&Delivery<T, D>| {
                    telemetry::lease_lost(delivery.lease.subject(), "ack");
                };
                Ok(lost.inspect(report).map(Delivery::id).collect())
            }
            Err(error) => {
                set_settling(&deliveries, false);
                telemetry::failed(&span, &error);
                Err(E::from(UnsettledBatch { deliveries, error }))
            }
        }
    })
}

async fn ack_without_groups(
    connection: &mut PgConnection,
    receipts: &[Receipt],
    to_archive: &[i32],
) -> Result<Vec<MessageId>> {
    if to_archive.is_empty() {
        settle::each::ack_each(connection, receipts).await
    } else {
        settle::each::ack_or_archive_each(connection, receipts, to_archive).await
    }
}

fn set_settling<T, D>(deliveries: &[Delivery<T, D>], is_settling: bool) {
    for delivery in deliveries {
        delivery.lease.set_settling(is_settling);
    }
}

/// The queue of all deliveries; `None` if they are of several.
fn queue_of_all<T, D>(deliveries: &[Delivery<T, D>]) -> Option<QueueName> {
    let mut queues = deliveries.iter().map(|one| &one.message.origin.queue);
    let first = queues.next()?;
    queues.all(|queue| queue == first).then(|| first.clone())
}

/// Deliveries that could not be settled, and why.
#[derive(thiserror::Error)]
#[error("{} messages could not be settled", .deliveries.len())]
pub struct UnsettledBatch<T, D = Decoded> {
    deliveries: Vec<Delivery<T, D>>,
    #[source]
    error: Error,
}

impl<T, D> UnsettledBatch<T, D> {
    /// Returns why the settlement failed.
    pub fn error(&self) -> &Error {
        &self.error
    }

    /// Returns the deliveries, for a retry.
    pub fn into_deliveries(self) -> Vec<Delivery<T, D>> {
        self.deliveries
    }
}

impl<T, D> fmt::Debug for UnsettledBatch<T, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnsettledBatch")
            .field("deliveries", &self.deliveries)
            .field("error", &self.error)
            .finish()
    }
}

/// For `?` in a function that returns an [`Error`] and doesn't need the deliveries.
impl<T, D> From<UnsettledBatch<T, D>> for Error {
    fn from(unsettled: UnsettledBatch<T, D>) -> Self {
        unsettled.error
    }
}
