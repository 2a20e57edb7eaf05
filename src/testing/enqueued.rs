//! What is in a queue.

use std::{fmt, time::Duration};

use serde::de::DeserializeOwned;

use crate::{
    error::{Error, Result},
    executor::{self, Executor},
    headers::Headers,
    message::{MessageId, Priority},
    postgres::testing::{self, InQueue},
    queue::{IntoQueue, Readable},
};

/// A message that is in a queue, for a test to look at; returned by [`enqueued`] and by
/// [`Captured::of`](super::Captured::of).
///
/// Its `Debug` and `Display` show the payload: it is a test's own.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct EnqueuedMessage<T> {
    /// Its id.
    pub id: MessageId,
    /// Its payload.
    pub payload: T,
    /// Its payload as JSON text, byte for byte as it was sent.
    pub json: String,
    /// Its headers, and the trace that it was sent in if the feature `opentelemetry` is on.
    pub headers: Headers,
    /// Its priority.
    pub priority: Priority,
    /// The delay that it was sent with: zero if it was ready at once. After an attempt that failed, the whole time from
    /// the enqueue to the next attempt.
    pub delay: Duration,
    /// Whether a consumer could claim it now: it doesn't wait for its time, and nobody holds it.
    pub is_ready: bool,
    /// How often it was delivered.
    pub attempt: u32,
    /// Its key, if it has one.
    pub key: Option<String>,
    /// Its group, if it has one.
    pub group: Option<String>,
}

/// Returns all messages that a queue has and that this transaction sees: ready, delayed, or being handled.
///
/// # Shape
/// Runs on `&mut tx`, or on `&pool` or `&store` to see what was committed. Payloads are decoded as the queue's type, or
/// as [`serde_json::Value`] if it has none. In the order of delivery: by priority, by time, by id.
///
/// # Errors
/// [`Error::Decode`] if a payload doesn't have the shape of the queue's type;
/// [`Error::QueueNotFound`], [`Error::InvalidQueueName`], and connection errors.
///
/// # Source
/// `select … from pgqrs.messages`
///
/// # Example
/// ```no_run
/// # use std::time::Duration;
/// # use pgqrs::{Priority, Queue, testing};
/// # const EMAILS: Queue<String> = Queue::new("emails");
/// # async fn example(mut tx: pgqrs::Transaction) -> Result<(), Box<dyn std::error::Error>> {
/// let email = "ada".to_owned();
/// pgqrs::enqueue().message(&email).to(EMAILS).delay(60).header("tenant", "acme").execute(&mut tx).await?;
///
/// let sent = testing::enqueued(&mut tx, EMAILS).await?;
/// assert_eq!(sent[0].payload, "ada");
/// assert_eq!(sent[0].delay, Duration::from_secs(60));
/// assert_eq!(sent[0].headers.get("tenant"), Some("acme"));
/// assert_eq!(sent[0].priority, Priority::Normal);
/// # Ok(())
/// # }
/// ```
pub async fn enqueued<Q>(
    on: impl Executor,
    queue: Q,
) -> Result<Vec<EnqueuedMessage<<Q::Carries as Readable>::Payload>>>
where
    Q: IntoQueue<Carries: Readable>,
{
    let queue = queue.into_name()?;
    let messages = executor::run(on, async |connection| {
        testing::list(connection, &queue).await
    })
    .await?;
    messages.into_iter().map(EnqueuedMessage::decode).collect()
}

impl<T: DeserializeOwned> EnqueuedMessage<T> {
    pub(super) fn decode(message: InQueue) -> Result<Self> {
        let payload = serde_json::from_str(&message.payload).map_err(|source| Error::Decode {
            message: message.id,
            source: source.into(),
        })?;
        Ok(Self {
            id: message.id,
            payload,
            json: message.payload,
            headers: message.headers,
            priority: message.priority,
            delay: message.delay,
            is_ready: message.is_ready,
            attempt: message.attempt,
            key: message.key,
            group: message.group,
        })
    }
}

/// On one line, with what is unusual about it.
impl<T> fmt::Display for EnqueuedMessage<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "message {}: {}", self.id, self.json)?;
        if self.priority != Priority::Normal {
            write!(f, ", priority {:?}", self.priority)?;
        }
        if !self.delay.is_zero() {
            write!(f, ", delayed by {:?}", self.delay)?;
        }
        if let Some(key) = &self.key {
            write!(f, ", key {key:?}")?;
        }
        if let Some(group) = &self.group {
            write!(f, ", group {group:?}")?;
        }
        for (name, value) in self.headers.iter() {
            write!(f, ", header {name}={value:?}")?;
        }
        match self.attempt {
            0 => Ok(()),
            1 => write!(f, ", delivered once"),
            times => write!(f, ", delivered {times} times"),
        }
    }
}
