//! How a delivery is settled: each call takes it by value, and [`try_ack`](Delivery::try_ack) and its like hand it back
//! if they fail.

use std::time::Duration;

use sqlx::PgConnection;
use tracing::Instrument;

use super::{
    Delivery,
    unsettled::{Unsettled, UnsettledBatch},
};
use crate::{
    error::{Error, Result},
    executor::{self, Execute, Executor},
    message::{MessageId, Receipt, Visible},
    postgres::settle::{self, Failure},
    telemetry,
};

impl<T, D> Delivery<T, D> {
    /// Acknowledges the message: deletes it.
    ///
    /// On `&mut tx`, the work and the acknowledgement commit together.
    ///
    /// ```compile_fail,E0382
    /// # async fn example(delivery: pgqrs::Delivery<u32>, store: pgqrs::Store) {
    /// delivery.ack(&store).await;
    /// delivery.ack(&store).await; // can't be settled twice
    /// # }
    /// ```
    ///
    /// # Source
    /// `delete from pgqrs.messages where … lease_token = …`
    pub fn ack<'c>(self, on: impl Executor + 'c) -> Execute<'c, Result<()>>
    where
        T: Send + 'c,
        D: 'c,
    {
        self.settle(Ok(Settlement::Ack), on)
    }

    /// Acknowledges the message, and keeps it in `pgqrs.archive`.
    ///
    /// # Source
    /// `delete from pgqrs.messages …` and `insert into pgqrs.archive …` in one statement.
    pub fn archive<'c>(self, on: impl Executor + 'c) -> Execute<'c, Result<()>>
    where
        T: Send + 'c,
        D: 'c,
    {
        self.settle(Ok(Settlement::Archive), on)
    }

    /// Fails this attempt. The message is delivered again after the retry policy's wait, or
    /// becomes a dead letter if its attempts are used up.
    ///
    /// The policy is that of the [run](crate::Run::retry) or of the [dequeue](crate::Dequeue::retry).
    ///
    /// # Source
    /// `update pgqrs.messages set visible_at = …`, or `delete …` and `insert into pgqrs.dead_letters …`, in
    /// one statement.
    pub fn nack<'c>(self, on: impl Executor + 'c) -> Execute<'c, Result<()>>
    where
        T: Send + 'c,
        D: 'c,
    {
        let retry = self.retry_later();
        self.settle(Ok(retry), on)
    }

    /// As [`nack`](Self::nack), with the given wait.
    ///
    /// # Errors
    /// Also [`Error::DelayTooLong`].
    pub fn retry_in<'c>(self, wait: Duration, on: impl Executor + 'c) -> Execute<'c, Result<()>>
    where
        T: Send + 'c,
        D: 'c,
    {
        self.settle(Settlement::retry_in(wait), on)
    }

    /// Moves the message to the dead letters, even if attempts are left, since it can't be handled.
    ///
    /// # Source
    /// `delete from pgqrs.messages …` and `insert into pgqrs.dead_letters …` in one statement.
    pub fn dead_letter<'c>(
        self,
        reason: impl Into<String>,
        on: impl Executor + 'c,
    ) -> Execute<'c, Result<()>>
    where
        T: Send + 'c,
        D: 'c,
    {
        self.settle(Ok(Settlement::DeadLetter(reason.into())), on)
    }

    /// As [`ack`](Self::ack); an error hands the delivery back, for a retry.
    pub fn try_ack<'c>(self, on: impl Executor + 'c) -> Execute<'c, Result<(), Unsettled<T, D>>>
    where
        T: Send + 'c,
        D: 'c,
    {
        self.settle(Ok(Settlement::Ack), on)
    }

    /// As [`archive`](Self::archive); an error hands the delivery back, for a retry.
    pub fn try_archive<'c>(self, on: impl Executor + 'c) -> Execute<'c, Result<(), Unsettled<T, D>>>
    where
        T: Send + 'c,
        D: 'c,
    {
        self.settle(Ok(Settlement::Archive), on)
    }

    /// As [`nack`](Self::nack); an error hands the delivery back, for a retry.
    pub fn try_nack<'c>(self, on: impl Executor + 'c) -> Execute<'c, Result<(), Unsettled<T, D>>>
    where
        T: Send + 'c,
        D: 'c,
    {
        let retry = self.retry_later();
        self.settle(Ok(retry), on)
    }

    /// As [`retry_in`](Self::retry_in); an error hands the delivery back, for a retry.
    pub fn try_retry_in<'c>(
        self,
        wait: Duration,
        on: impl Executor + 'c,
    ) -> Execute<'c, Result<(), Unsettled<T, D>>>
    where
        T: Send + 'c,
        D: 'c,
    {
        self.settle(Settlement::retry_in(wait), on)
    }

    /// As [`dead_letter`](Self::dead_letter); an error hands the delivery back, for a retry.
    pub fn try_dead_letter<'c>(
        self,
        reason: impl Into<String>,
        on: impl Executor + 'c,
    ) -> Execute<'c, Result<(), Unsettled<T, D>>>
    where
        T: Send + 'c,
        D: 'c,
    {
        self.settle(Ok(Settlement::DeadLetter(reason.into())), on)
    }

    fn retry_later(&self) -> Settlement {
        Settlement::Retry(self.retry.jittered(self.attempt(), rand::random()))
    }

    fn settle<'c, E>(
        self,
        settlement: Result<Settlement>,
        on: impl Executor + 'c,
    ) -> Execute<'c, Result<(), E>>
    where
        T: Send + 'c,
        D: 'c,
        E: From<Unsettled<T, D>>,
    {
        Execute::new(async move {
            let id = self.message.id;
            let verb = settlement.as_ref().map_or("nack", Settlement::verb);
            let span = telemetry::settle(verb, Some(id.get()));
            let call = async {
                let settlement = settlement?;
                let receipt = self.lease.receipt();
                let held = executor::run(on, async |connection| {
                    settlement.carry_out(connection, receipt).await
                });
                if held.await? {
                    Ok(())
                } else {
                    Err(Error::LeaseLost { message: id })
                }
            };
            match call.instrument(span.clone()).await {
                Ok(()) => {
                    self.lease.settled();
                    Ok(())
                }
                Err(error) => {
                    telemetry::failed(&span, &error);
                    Err(E::from(Unsettled {
                        delivery: Box::new(self),
                        error,
                    }))
                }
            }
        })
    }
}

enum Settlement {
    Ack,
    Archive,
    Retry(Duration),
    DeadLetter(String),
}

impl Settlement {
    fn retry_in(wait: Duration) -> Result<Self> {
        Visible::after(wait).map(|_| Self::Retry(wait))
    }

    fn verb(&self) -> &'static str {
        match self {
            Self::Ack => "ack",
            Self::Archive => "archive",
            Self::Retry(_) => "nack",
            Self::DeadLetter(_) => "dead_letter",
        }
    }

    /// Returns `false` if the lease was lost.
    async fn carry_out(self, connection: &mut PgConnection, receipt: Receipt) -> Result<bool> {
        let failure = match self {
            Self::Ack => return settle::ack(connection, receipt).await,
            Self::Archive => {
                return Ok(!settle::archive(connection, &[receipt]).await?.is_empty());
            }
            Self::Retry(wait) => Failure::retry(receipt, wait, None),
            Self::DeadLetter(reason) => Failure::dead(receipt, &reason, None),
        };
        Ok(!settle::fail(connection, &[failure]).await?.is_empty())
    }
}

/// Acknowledges many deliveries, of one queue or of several, in one statement.
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
        let span = telemetry::settle("ack", None);
        telemetry::batch(&span, deliveries.len());
        let receipts: Vec<_> = deliveries
            .iter()
            .map(|delivery| delivery.lease.receipt())
            .collect();
        let call = executor::run(on, async |connection| {
            settle::ack_each(connection, &receipts).await
        });
        match call.instrument(span.clone()).await {
            Ok(mut acked) => {
                acked.sort_unstable();
                let is_acked =
                    |delivery: &&Delivery<T, D>| acked.binary_search(&delivery.id()).is_ok();
                for delivery in deliveries.iter().filter(is_acked) {
                    delivery.lease.settled();
                }
                let lost = deliveries.iter().filter(|delivery| !is_acked(delivery));
                Ok(lost.map(Delivery::id).collect())
            }
            Err(error) => {
                telemetry::failed(&span, &error);
                Err(E::from(UnsettledBatch { deliveries, error }))
            }
        }
    })
}
