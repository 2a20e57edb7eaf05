//! What a message consists of: its id, its priority, when it becomes visible, and its payload as JSON. A payload is
//! JSON *text* here: it is serialised once, when the caller passes it in, and never parsed again on its way to the
//! database.

pub(crate) mod cancel_notice;
mod options;
mod settings;

use std::{fmt, num::ParseIntError, str::FromStr, sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use typed_builder::TypedBuilder;

pub(crate) use self::{options::MessageOptions, settings::QueueSettings};
use crate::{
    error::{Error, Result},
    headers::Headers,
    lifecycle::WorkerId,
    queue::QueueName,
    telemetry::timer::Timer,
};

/// The id of a message: positive, and increasing in the order of enqueueing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MessageId(i64);

impl MessageId {
    /// Returns the id as a number, as in `pgqrs.messages.id`.
    pub const fn get(self) -> i64 {
        self.0
    }
}

impl From<i64> for MessageId {
    fn from(id: i64) -> Self {
        Self(id)
    }
}

impl From<MessageId> for i64 {
    fn from(id: MessageId) -> Self {
        id.0
    }
}

impl FromStr for MessageId {
    type Err = ParseIntError;

    fn from_str(id: &str) -> Result<Self, ParseIntError> {
        id.parse().map(Self)
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Which messages of a queue are delivered first.
///
/// A ready message of a higher priority is always delivered before one of a lower, so a queue that never
/// runs out of urgent messages never delivers a low one.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// Before all others.
    Urgent,
    /// Before normal ones.
    High,
    /// The default.
    #[default]
    Normal,
    /// Only if nothing else is ready.
    Low,
}

impl Priority {
    /// In the order of delivery.
    pub(crate) const ALL: [Self; 4] = [Self::Urgent, Self::High, Self::Normal, Self::Low];

    /// The value in the database: smaller values are delivered first.
    pub(crate) const fn rank(self) -> i16 {
        match self {
            Self::Urgent => 0,
            Self::High => 1,
            Self::Normal => 2,
            Self::Low => 3,
        }
    }

    /// The inverse of `rank`. This crate stores no other values than these four.
    pub(crate) const fn from_rank(rank: i16) -> Self {
        match rank {
            ..=0 => Self::Urgent,
            1 => Self::High,
            2 => Self::Normal,
            3.. => Self::Low,
        }
    }
}

/// Which part of a list to read. Lists are ordered by id.
///
/// # Example
/// ```
/// use pgqrs::Page;
///
/// let first = Page::default();
/// let with_payloads = Page::builder().limit(10).payload(true).build();
/// ```
#[derive(Debug, Clone, Copy, TypedBuilder)]
#[builder(builder_type(
    doc = "Settings of [`Page`], each with its default; made by [`Page::builder`]."
))]
pub struct Page {
    #[builder(
        default,
        setter(
            strip_option,
            doc = "Only entries after this id, the last one of the previous page; defaults to all."
        )
    )]
    after: Option<MessageId>,
    #[builder(
        default = 100,
        setter(doc = "Maximum number of entries; defaults to 100.")
    )]
    limit: u32,
    #[builder(
        default,
        setter(doc = "Whether to read payloads too; defaults to false.")
    )]
    payload: bool,
}

impl Page {
    pub(crate) fn after(&self) -> i64 {
        self.after.map_or(i64::MIN, MessageId::get)
    }

    pub(crate) fn limit(&self) -> i64 {
        i64::from(self.limit)
    }

    pub(crate) fn with_payload(&self) -> bool {
        self.payload
    }
}

impl Default for Page {
    fn default() -> Self {
        Self::builder().build()
    }
}

/// A message on its way in, as JSON text: serialised when the caller passes it in, and never parsed again on its way to
/// the database.
// Public to this crate's sealed traits only: nothing exports it.
#[derive(Clone, PartialEq, Eq)]
pub struct NewMessage {
    payload: String,
    /// As JSON; `None` if there are none. Shared by the messages of an enqueue.
    headers: Option<Arc<str>>,
    /// `None` for most. Boxed, so that most are as small as without it.
    options: Option<Box<MessageOptions>>,
}

impl NewMessage {
    /// Takes a payload that is JSON.
    pub(crate) fn new(payload: String) -> Self {
        Self {
            payload,
            headers: None,
            options: None,
        }
    }

    pub(crate) fn payload(&self) -> &str {
        &self.payload
    }

    pub(crate) fn headers(&self) -> Option<&str> {
        self.headers.as_deref()
    }

    pub(crate) fn set_headers(&mut self, headers: Arc<str>) {
        self.headers = Some(headers);
    }

    /// Sets the headers that all messages of an enqueue have, besides their own.
    pub(crate) fn set_common_headers(messages: &mut [Self], headers: &Headers) {
        let common = headers.to_json();
        for message in messages {
            let own = message.options().map(|options| &options.headers);
            let json = match own {
                Some(own) if !own.is_empty() => headers.with(own).to_json(),
                _ => common.clone(),
            };
            if let Some(json) = json {
                message.set_headers(json);
            }
        }
    }

    pub(crate) fn into_payload(self) -> String {
        self.payload
    }

    /// Its size in bytes, by which batches are bounded.
    pub(crate) fn bytes(&self) -> usize {
        self.payload.len() + self.headers.as_ref().map_or(0, |headers| headers.len())
    }

    pub(crate) fn check_size(&self, index: usize, limit: usize) -> Result<()> {
        let bytes = self.payload.len();
        if bytes > limit {
            return Err(Error::PayloadTooLarge {
                index,
                bytes,
                limit,
            });
        }
        Ok(())
    }
}

/// Without the payload, which has no place in a log.
impl fmt::Debug for NewMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewMessage")
            .field("bytes", &self.bytes())
            .finish_non_exhaustive()
    }
}

/// What all messages of a batch have in common.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Envelope {
    pub(crate) queue: QueueName,
    pub(crate) producer: Option<WorkerId>,
    pub(crate) priority: Priority,
    pub(crate) visible: Visible,
}

/// What a delivery is settled with: the message, and the token of the lease that it was delivered under.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Receipt {
    pub(crate) queue_id: i32,
    pub(crate) id: MessageId,
    /// The number of this delivery's attempt, and after how many the message becomes a dead letter: for events.
    pub(crate) attempt: u32,
    pub(crate) max_attempts: u32,
    pub(crate) token: i64,
    /// Whether the message has a group, so that its settlement lets the next one in.
    pub(crate) is_grouped: bool,
}

/// Where messages of one claim come from, for events about them.
#[derive(Debug)]
pub(crate) struct Origin {
    pub(crate) queue: QueueName,
    /// The consumer that has claimed them, if it is a registered one.
    pub(crate) worker: Option<WorkerId>,
    pub(crate) settings: QueueSettings,
    /// When they were claimed, by the database's clock.
    pub(crate) claimed_at: DateTime<Utc>,
    /// Since the claim was answered.
    pub(crate) timer: Timer,
}

/// A message as a claim returns it.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) origin: Arc<Origin>,
    /// Whether its previous delivery was never settled.
    pub(crate) is_redelivered: bool,
    pub(crate) queue_id: i32,
    pub(crate) id: MessageId,
    pub(crate) priority: Priority,
    /// When it became visible, which decided its place in the queue.
    pub(crate) visible_at: DateTime<Utc>,
    pub(crate) enqueued_at: DateTime<Utc>,
    pub(crate) attempt: i32,
    /// After how many attempts it becomes a dead letter.
    pub(crate) max_attempts: u32,
    /// How often a handler has put it off.
    pub(crate) snoozes: u32,
    pub(crate) lease_token: i64,
    pub(crate) lease_expires_at: DateTime<Utc>,
    pub(crate) headers: Headers,
    pub(crate) payload: String,
    /// Its group, if it has one.
    pub(crate) group: Option<Box<str>>,
}

impl Message {
    /// How long it has been ready; `None` if it isn't known since when.
    pub(crate) fn waited(&self) -> Option<Duration> {
        let before = self.origin.claimed_at - self.visible_at;
        let since = self.origin.timer.elapsed();
        (!self.is_redelivered).then(|| before.to_std().unwrap_or_default() + since)
    }

    pub(crate) fn receipt(&self) -> Receipt {
        Receipt {
            queue_id: self.queue_id,
            id: self.id,
            attempt: self.attempt.unsigned_abs(),
            max_attempts: self.max_attempts,
            token: self.lease_token,
            is_grouped: self.group.is_some(),
        }
    }

    /// How long ago it was enqueued, by the database's clock; zero if that clock was set back since.
    #[cfg(feature = "opentelemetry")]
    pub(crate) fn age(&self) -> Duration {
        let when_claimed = (self.origin.claimed_at - self.enqueued_at).to_std();
        when_claimed.unwrap_or_default() + self.origin.timer.elapsed()
    }
}

/// When a message is delivered at the earliest, by the database's clock: for callers that decide at run time. Otherwise
/// [`delay`](crate::Enqueue::delay) and [`at`](crate::Enqueue::at) are shorter.
///
/// # Example
/// ```
/// use std::time::Duration;
/// use pgqrs::When;
///
/// fn due(wait: Option<Duration>) -> When {
///     wait.map_or(When::Now, When::After)
/// }
/// let enqueue = pgqrs::enqueue().message(&1).to("tasks").when(due(None));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum When {
    /// At once.
    #[default]
    Now,
    /// After this duration, counted from the statement. At most 200,000 years.
    After(Duration),
    /// At this time. A time in the past means now.
    At(DateTime<Utc>),
}

/// When a message becomes visible to claims: a [`When`] that was checked, or a time of the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Visible {
    Now,
    In(Duration),
    At(DateTime<Utc>),
    /// A time that the database returned, and that isn't compared with its clock again.
    Exactly(DateTime<Utc>),
}

/// A [`Visible`] as parameters of a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Times {
    /// Exactly this time, whatever the others are.
    pub(crate) exactly: Option<DateTime<Utc>>,
    pub(crate) not_before: Option<DateTime<Utc>>,
    /// Microseconds from the statement.
    pub(crate) delay: i64,
}

/// Well within what both `timestamptz` (294276 AD) and `chrono` (262142 AD) can hold.
pub(crate) const LONGEST_DELAY: Duration = Duration::from_secs(200_000 * 365 * 24 * 60 * 60);

impl Visible {
    pub(crate) fn new(when: When) -> Result<Self> {
        match when {
            When::Now => Ok(Self::Now),
            When::After(delay) => Self::after(delay),
            When::At(time) => Ok(Self::At(time)),
        }
    }

    pub(crate) fn after(delay: Duration) -> Result<Self> {
        if delay > LONGEST_DELAY {
            return Err(Error::DelayTooLong {
                delay,
                limit: LONGEST_DELAY,
            });
        }
        Ok(Self::In(delay))
    }

    pub(crate) fn times(self) -> Times {
        let now = Times {
            exactly: None,
            not_before: None,
            delay: 0,
        };
        match self {
            Self::Now => now,
            Self::In(delay) => Times {
                delay: microseconds(delay),
                ..now
            },
            // A time in the past means now, so it doesn't matter how far back PostgreSQL's calendar goes.
            Self::At(time) => Times {
                not_before: Some(time.max(DateTime::UNIX_EPOCH)),
                ..now
            },
            Self::Exactly(time) => Times {
                exactly: Some(time),
                ..now
            },
        }
    }
}

/// A duration in PostgreSQL's unit of time.
pub(crate) fn microseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// An age in PostgreSQL's unit of time, at most a thousand years: no row is older, and `timestamptz` has an end.
pub(crate) fn age(duration: Duration) -> i64 {
    microseconds(duration.min(Duration::from_secs(1_000 * 365 * 24 * 60 * 60)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_keep_their_fraction_and_end_where_postgres_does() {
        assert_eq!(
            Visible::In(Duration::from_millis(250)).times(),
            Times {
                exactly: None,
                not_before: None,
                delay: 250_000
            }
        );
        assert!(Visible::after(LONGEST_DELAY).is_ok());
        assert!(matches!(
            Visible::after(Duration::MAX),
            Err(Error::DelayTooLong { .. })
        ));
    }
}
