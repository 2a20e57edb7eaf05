//! A delivery for a handler's unit test, without a database.

use std::{fmt, sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::{
    delivery::{Delivery, lease::Lease},
    error::Result,
    headers::NewHeaders,
    message::{Message, MessageId, Origin, Priority},
    payload::encode,
    queue::QueueName,
    telemetry::Timer,
};

/// A delivery that a test makes, without a database; returned by [`Delivery::for_test`].
///
/// | setting | meaning | default |
/// |---|---|---|
/// | [`id`](Self::id) | the message's id | 1 |
/// | [`attempt`](Self::attempt) | the number of the attempt | 1 |
/// | [`max_attempts`](Self::max_attempts) | after how many it becomes a dead letter | 20 |
/// | [`snoozes`](Self::snoozes) | how often it was put off | 0 |
/// | [`header`](Self::header) | a header | none |
/// | [`priority`](Self::priority) | its priority | normal |
/// | [`group`](Self::group) | its group | none |
/// | [`enqueued_at`](Self::enqueued_at) | when it was enqueued | 1970-01-01 |
#[must_use = "it is made by `.build()?`"]
pub struct TestDelivery<T> {
    payload: T,
    json: Result<String>,
    id: i64,
    attempt: u32,
    max_attempts: u32,
    snoozes: u32,
    headers: NewHeaders,
    priority: Priority,
    group: Option<Box<str>>,
    enqueued_at: DateTime<Utc>,
}

impl<T: Serialize> Delivery<T> {
    /// Makes a delivery for a handler's unit test, without a database; with the feature `testing`.
    ///
    /// What the handler returns is the test's to check. There is no message behind the delivery:
    /// [`extend`](Self::extend) succeeds and changes nothing, and to settle it returns an error.
    ///
    /// # Example
    /// ```
    /// use pgqrs::{Delivery, Outcome};
    ///
    /// async fn send(delivery: Delivery<String>) -> Outcome {
    ///     match delivery.attempt() {
    ///         1..=2 => Outcome::Retry("the mailbox is full".to_owned()),
    ///         _ => Outcome::DeadLetter("the mailbox is always full".to_owned()),
    ///     }
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> pgqrs::Result<()> {
    /// let delivery = Delivery::for_test("ada".to_owned()).attempt(3).header("tenant", "acme").build()?;
    /// assert!(matches!(send(delivery).await, Outcome::DeadLetter(_)));
    /// # Ok(())
    /// # }
    /// ```
    pub fn for_test(payload: T) -> TestDelivery<T> {
        TestDelivery {
            json: encode(0, &payload),
            payload,
            id: 1,
            attempt: 1,
            max_attempts: 20,
            snoozes: 0,
            headers: NewHeaders::default(),
            priority: Priority::Normal,
            group: None,
            enqueued_at: DateTime::UNIX_EPOCH,
        }
    }
}

impl<T> TestDelivery<T> {
    /// The message's id; defaults to 1.
    pub fn id(mut self, id: impl Into<MessageId>) -> Self {
        self.id = id.into().get();
        self
    }

    /// The number of this attempt; defaults to 1, the first.
    pub fn attempt(mut self, attempt: u32) -> Self {
        self.attempt = attempt;
        self
    }

    /// After how many attempts the message becomes a dead letter; defaults to 20.
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = attempts;
        self
    }

    /// How often a handler has put the message off; defaults to 0.
    pub fn snoozes(mut self, snoozes: u32) -> Self {
        self.snoozes = snoozes;
        self
    }

    /// Adds a header.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.set(name.into(), value.into());
        self
    }

    /// The message's priority; defaults to normal.
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    /// The group that the message belongs to; defaults to none.
    pub fn group(mut self, key: impl Into<String>) -> Self {
        self.group = Some(key.into().into());
        self
    }

    /// When the message was enqueued; defaults to the first of January 1970. Its lease ends 30 seconds later.
    pub fn enqueued_at(mut self, time: DateTime<Utc>) -> Self {
        self.enqueued_at = time;
        self
    }

    /// Returns the delivery.
    ///
    /// # Errors
    /// [`Error::InvalidHeader`](crate::Error::InvalidHeader); [`Error::Serialize`](crate::Error::Serialize) and the like if no enqueue could send the payload.
    pub fn build(self) -> Result<Delivery<T>> {
        let json = self.json?;
        let headers = self.headers.finish()?;
        let origin = Origin {
            queue: QueueName::new("test")?,
            worker: None,
            settings: Default::default(),
            claimed_at: self.enqueued_at,
            timer: Timer::start(),
        };
        let message = Message {
            origin: Arc::new(origin),
            is_redelivered: false,
            queue_id: 0,
            id: MessageId::from(self.id),
            priority: self.priority,
            visible_at: self.enqueued_at,
            enqueued_at: self.enqueued_at,
            attempt: i32::try_from(self.attempt).unwrap_or(i32::MAX),
            max_attempts: self.max_attempts,
            snoozes: self.snoozes,
            lease_token: 0,
            lease_expires_at: self.enqueued_at + LEASE,
            headers,
            group: self.group,
            payload: json,
        };
        let lease = Arc::new(Lease::of(&message));
        Ok(Delivery::of_test(message, self.payload, lease))
    }
}

/// The default of a claim.
const LEASE: Duration = Duration::from_secs(30);

/// Without the payload, as a delivery itself.
impl<T> fmt::Debug for TestDelivery<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestDelivery")
            .field("id", &self.id)
            .field("attempt", &self.attempt)
            .finish_non_exhaustive()
    }
}
