//! A message that this process holds under a lease. For the one who handles it. Settling takes the
//! delivery by value, so nothing can be settled twice; and it can still fail, since the lease may have
//! run out.

use std::{fmt, sync::Arc};

use chrono::{DateTime, Utc};
use tracing::Instrument;

use crate::{
    error::{Error, Result},
    message::{Message, MessageId, Priority},
    postgres::messages,
    store::{Execute, Executor},
    telemetry,
};

/// A leased message, with its payload decoded as `T`.
///
/// Dropping it settles nothing: the message is delivered again when its lease runs out.
#[must_use = "a delivery that is not settled comes back when its lease runs out: call `.ack(&store)`"]
pub struct Delivery<T> {
    message: Message,
    payload: Result<T, Arc<serde_json::Error>>,
}

impl<T> Delivery<T> {
    pub(crate) fn new(message: Message, decode: fn(&str) -> serde_json::Result<T>) -> Self {
        let payload = decode(&message.payload).map_err(Arc::new);
        Self { message, payload }
    }

    /// The message's key.
    pub fn id(&self) -> MessageId {
        self.message.id
    }

    /// What was enqueued.
    ///
    /// # Errors
    /// [`Error::Decode`] where the payload doesn't have the shape of `T`. The delivery stays usable, and
    /// [`raw_payload`](Self::raw_payload) shows what there is.
    pub fn payload(&self) -> Result<&T> {
        self.payload.as_ref().map_err(|source| Error::Decode {
            message: self.message.id,
            source: Arc::clone(source),
        })
    }

    /// The payload as it was sent, byte for byte.
    pub fn raw_payload(&self) -> &str {
        &self.message.payload
    }

    /// The message's priority.
    pub fn priority(&self) -> Priority {
        self.message.priority
    }

    /// Which delivery of the message this is: 1 the first time.
    pub fn attempt(&self) -> u32 {
        self.message.attempt.unsigned_abs()
    }

    /// When the message was enqueued, by the database's clock.
    pub fn enqueued_at(&self) -> DateTime<Utc> {
        self.message.enqueued_at
    }

    /// When the lease runs out, by the database's clock.
    pub fn lease_expires_at(&self) -> DateTime<Utc> {
        self.message.lease_expires_at
    }

    /// Says that the message is done: deletes it.
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
    /// # Errors
    /// [`Unsettled`], which hands the delivery back: with [`Error::LeaseLost`] where the lease ran out or
    /// the message is gone, and then nothing was changed; with one of the connection's errors where
    /// trying again can help. `?` turns it into an [`Error`].
    ///
    /// # Source
    /// `delete from pgqrs.messages where queue_id = … and id = … and lease_token = …`
    pub fn ack<'c>(self, on: impl Executor + 'c) -> Execute<'c, Result<(), Unsettled<T>>>
    where
        T: Send + 'c,
    {
        Execute::new(async move {
            let span = telemetry::settle("ack", self.message.id.get());
            let call = async {
                let mut connection = on.acquire().await?;
                let Message {
                    queue_id,
                    id,
                    lease_token,
                    ..
                } = self.message;
                match messages::ack(&mut connection, queue_id, id, lease_token).await? {
                    true => Ok(()),
                    false => Err(Error::LeaseLost { message: id }),
                }
            };
            call.instrument(span.clone()).await.map_err(|error| {
                telemetry::failed(&span, &error);
                Unsettled {
                    delivery: Box::new(self),
                    error,
                }
            })
        })
    }
}

/// Without the payload, which has no place in a log.
impl<T> fmt::Debug for Delivery<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("id", &self.message.id)
            .field("attempt", &self.message.attempt)
            .field("enqueued_at", &self.message.enqueued_at)
            .field("lease_expires_at", &self.message.lease_expires_at)
            .finish_non_exhaustive()
    }
}

/// A delivery that could not be settled, and why.
#[derive(thiserror::Error)]
#[error("message {} could not be settled", .delivery.id())]
pub struct Unsettled<T> {
    delivery: Box<Delivery<T>>,
    #[source]
    error: Error,
}

impl<T> Unsettled<T> {
    /// Why.
    pub fn error(&self) -> &Error {
        &self.error
    }

    /// The delivery, to try again.
    pub fn into_delivery(self) -> Delivery<T> {
        *self.delivery
    }
}

impl<T> fmt::Debug for Unsettled<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unsettled")
            .field("delivery", &self.delivery)
            .field("error", &self.error)
            .finish()
    }
}

/// For `?` in a function that returns an [`Error`] and has no use for the delivery.
impl<T> From<Unsettled<T>> for Error {
    fn from(unsettled: Unsettled<T>) -> Self {
        unsettled.error
    }
}
