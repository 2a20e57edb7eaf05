//! A message that this process holds under a lease. The methods that settle it take the delivery by value, so it can't
//! be settled twice. They can still fail, since the lease may have run out.

pub(crate) mod ack_statement;
pub(crate) mod batch;
mod cancelled;
mod extend;
mod group;
pub(crate) mod lease;
#[cfg(feature = "testing")]
mod of_test;
mod scheduled;
pub(crate) mod settlement;
mod slow_down;

use std::{fmt, marker::PhantomData, sync::Arc, time::Duration};

use chrono::{DateTime, Utc};

use self::{
    lease::Lease,
    settlement::{Settlement, settle_lease},
};
use crate::{
    error::{Error, Result},
    executor::{Execute, Executor},
    headers::Headers,
    message::{Message, MessageId, Priority},
    retry::RetryPolicy,
    store::Store,
};

/// A leased message, with its payload decoded as `T`.
///
/// It is settled by one of [`ack`](Self::ack), [`archive`](Self::archive), [`nack`](Self::nack),
/// [`retry_in`](Self::retry_in), [`later`](Self::later), [`slow_down`](Self::slow_down) and
/// [`dead_letter`](Self::dead_letter), on a store, or in the caller's transaction, with which it commits. Dropping it settles nothing: the message is delivered again within two seconds after its
/// lease has run out.
///
/// # Errors
/// Each of them returns [`Error::LeaseLost`] if the lease ran out and the message went to another consumer, or if the
/// message is gone; then nothing was changed. After a connection error, a retry can help: [`try_ack`](Self::try_ack)
/// and the other `try_` methods return [`Unsettled`] instead, which hands the delivery back for that.
///
/// # Shape
/// A handler of [`Consumer::run`](crate::Consumer::run) gets a `Delivery<T>`, whose payload has been decoded.
/// [`dequeue`](crate::dequeue()) returns `Delivery<T, Unchecked>`, whose payload may turn out not to be a `T`.
///
/// # Example
/// ```no_run
/// # async fn example(store: pgqrs::Store) -> pgqrs::Result<()> {
/// let deliveries = pgqrs::dequeue().from("tasks").limit(10).execute(&store).await?;
/// for delivery in deliveries {
///     match delivery.payload() {
///         Ok(task) => println!("attempt {} of {task}", delivery.attempt()),
///         Err(error) => {
///             delivery.dead_letter(error.to_string(), &store).await?;
///             continue;
///         }
///     }
///     delivery.ack(&store).await?;
/// }
/// # Ok(())
/// # }
/// ```
#[must_use = "a message that isn't settled is delivered again when its lease runs out: call `.ack(&store)`"]
pub struct Delivery<T, D = Decoded> {
    message: Message,
    payload: Result<T, Arc<serde_json::Error>>,
    lease: Arc<Lease>,
    /// `None` of one that a test has made or claimed, whose lease needs no extension.
    store: Option<Store>,
    retry: RetryPolicy,
    /// Of the call of its handler.
    time_limit: Option<Duration>,
    state: PhantomData<fn() -> D>,
}

/// The payload of a [`Delivery`] has been decoded, as in a handler.
#[derive(Debug)]
pub struct Decoded(());

/// The payload of a [`Delivery`] may not decode as the type that its queue carries, as after a dequeue.
#[derive(Debug)]
pub struct Unchecked(());

impl<T> Delivery<T> {
    pub(crate) fn time_limit(&self) -> Option<Duration> {
        self.time_limit
    }

    /// Returns the payload.
    pub fn payload(&self) -> &T {
        self.payload.as_ref().expect(DECODED)
    }

    /// Returns the payload by value. The message is still settled by what the handler returns.
    pub fn into_payload(self) -> T {
        self.payload.expect(DECODED)
    }
}

/// [`Delivery::decoded`] is the only way to this state.
const DECODED: &str = "a decoded delivery has its payload";

impl<T> Delivery<T, Unchecked> {
    pub(crate) fn new(
        message: Message,
        lease: Arc<Lease>,
        decode: fn(&str) -> serde_json::Result<T>,
        store: impl Into<Option<Store>>,
        retry: RetryPolicy,
    ) -> Self {
        let payload = decode(&message.payload).map_err(Arc::new);
        Self {
            message,
            payload,
            lease,
            store: store.into(),
            retry,
            time_limit: None,
            state: PhantomData,
        }
    }

    /// For a handler that is aborted after this time.
    pub(crate) fn limited(mut self, limit: Option<Duration>) -> Self {
        self.time_limit = limit;
        self
    }

    /// Returns the payload.
    ///
    /// # Errors
    /// [`Error::Decode`] if the payload doesn't have the shape of `T`. The delivery stays usable, and
    /// [`raw_payload`](Self::raw_payload) returns its text.
    pub fn payload(&self) -> Result<&T> {
        self.payload
            .as_ref()
            .map_err(|source| self.decode_error(source))
    }

    /// Returns the delivery as a handler gets it, with its payload decoded.
    ///
    /// # Errors
    /// [`Unsettled`] with [`Error::Decode`] if the payload doesn't have the shape of `T`; it hands the delivery back.
    pub fn decoded(self) -> Result<Delivery<T>, Unsettled<T, Unchecked>> {
        if let Err(source) = &self.payload {
            let error = self.decode_error(source);
            let delivery = Box::new(self);
            return Err(Unsettled { delivery, error });
        }
        Ok(Delivery {
            message: self.message,
            payload: self.payload,
            lease: self.lease,
            store: self.store,
            retry: self.retry,
            time_limit: self.time_limit,
            state: PhantomData,
        })
    }

    fn decode_error(&self, source: &Arc<serde_json::Error>) -> Error {
        Error::Decode {
            message: self.message.id,
            source: Arc::clone(source),
        }
    }
}

impl<T, D> Delivery<T, D> {
    pub(crate) fn lease(&self) -> &Arc<Lease> {
        &self.lease
    }

    /// Returns the message's id.
    pub fn id(&self) -> MessageId {
        self.message.id
    }

    /// Returns the payload as JSON text, byte for byte as it was sent.
    pub fn raw_payload(&self) -> &str {
        &self.message.payload
    }

    /// Returns the message's headers: those of its enqueue, and the trace that it was sent in.
    pub fn headers(&self) -> &Headers {
        &self.message.headers
    }

    /// Returns the message's priority.
    pub fn priority(&self) -> Priority {
        self.message.priority
    }

    /// Returns the number of this attempt; the first one is 1.
    pub fn attempt(&self) -> u32 {
        self.message.attempt.unsigned_abs()
    }

    /// Returns after how many attempts the message becomes a dead letter: its own limit or, by default, that of its queue
    /// at the time of the claim.
    pub fn max_attempts(&self) -> u32 {
        self.message.max_attempts
    }

    /// Returns how often a handler has put the message off, by [`Outcome::Later`](crate::Outcome::Later),
    /// [`Outcome::SlowDown`](crate::Outcome::SlowDown), or the methods of these names.
    pub fn snoozes(&self) -> u32 {
        self.message.snoozes
    }

    /// Returns when the message was enqueued, by the database's clock.
    pub fn enqueued_at(&self) -> DateTime<Utc> {
        self.message.enqueued_at
    }

    /// Returns when the lease runs out, by the database's clock. It changes when the lease is extended, which
    /// [`Consumer::run`](crate::Consumer::run) does automatically.
    pub fn lease_expires_at(&self) -> DateTime<Utc> {
        self.lease
            .expires_at()
            .unwrap_or(self.message.lease_expires_at)
    }

    /// Acknowledges the message: deletes it.
    ///
    /// On `&mut tx`, the work and the acknowledgement commit together; in a transaction of another driver, by
    /// [`ack_statement`](Self::ack_statement).
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
        let acknowledgement = self.acknowledgement();
        self.settle(Ok(acknowledgement), on)
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
    /// One statement: `update pgqrs.messages set visible_at = …, lease_until = '-infinity', …`, or `delete …` and
    /// `insert into pgqrs.dead_letters …`.
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

    /// Puts the message off: it is delivered again after this wait, and this delivery doesn't count as an attempt.
    /// [`snoozes`](Self::snoozes) counts how often that was done, without a limit.
    ///
    /// # Errors
    /// Also [`Error::DelayTooLong`].
    ///
    /// # Source
    /// `update pgqrs.messages set visible_at = …, attempt = attempt - 1, snoozes = …`
    pub fn later<'c>(self, wait: Duration, on: impl Executor + 'c) -> Execute<'c, Result<()>>
    where
        T: Send + 'c,
        D: 'c,
    {
        self.settle(Settlement::later(wait), on)
    }

    /// Moves the message to the dead letters for this reason, even if attempts are left: for one that can't be handled.
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
        let acknowledgement = self.acknowledgement();
        self.settle(Ok(acknowledgement), on)
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

    /// As [`later`](Self::later); an error hands the delivery back, for a retry.
    pub fn try_later<'c>(
        self,
        wait: Duration,
        on: impl Executor + 'c,
    ) -> Execute<'c, Result<(), Unsettled<T, D>>>
    where
        T: Send + 'c,
        D: 'c,
    {
        self.settle(Settlement::later(wait), on)
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

    fn acknowledgement(&self) -> Settlement {
        Settlement::acknowledgement(self.lease.subject())
    }

    fn retry_later(&self) -> Settlement {
        let retry = self.message.origin.settings.retry(self.retry);
        Settlement::Retry(retry.jittered(self.attempt(), rand::random()))
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
            settle_lease(&self.lease, settlement, on)
                .await
                .map_err(|error| {
                    E::from(Unsettled {
                        delivery: Box::new(self),
                        error,
                    })
                })
        })
    }
}

/// Without the payload, which has no place in a log.
impl<T, D> fmt::Debug for Delivery<T, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("id", &self.message.id)
            .field("attempt", &self.message.attempt)
            .field("enqueued_at", &self.message.enqueued_at)
            .field("lease_expires_at", &self.lease_expires_at())
            .finish_non_exhaustive()
    }
}

/// A delivery that could not be settled, and why.
#[derive(thiserror::Error)]
#[error("message {} could not be settled", .delivery.id())]
pub struct Unsettled<T, D = Decoded> {
    delivery: Box<Delivery<T, D>>,
    #[source]
    error: Error,
}

impl<T, D> Unsettled<T, D> {
    /// Returns why the settlement failed.
    pub fn error(&self) -> &Error {
        &self.error
    }

    /// Returns the delivery, for a retry.
    pub fn into_delivery(self) -> Delivery<T, D> {
        *self.delivery
    }
}

impl<T, D> fmt::Debug for Unsettled<T, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unsettled")
            .field("delivery", &self.delivery)
            .field("error", &self.error)
            .finish()
    }
}

/// For `?` in a function that returns an [`Error`] and doesn't need the delivery.
impl<T, D> From<Unsettled<T, D>> for Error {
    fn from(unsettled: Unsettled<T, D>) -> Self {
        unsettled.error
    }
}
