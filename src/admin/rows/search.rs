//! What searches take and return: states, cursors, pages of what was found, one message wherever it is.

use std::{fmt, num::ParseIntError, str::FromStr};

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::{
    count::Count,
    headers::Headers,
    lifecycle::WorkerId,
    message::{MessageId, Priority},
    queue::QueueName,
};

/// The state of a message that is in its queue. Each message is in just one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum MessageState {
    /// The next dequeue can get it.
    Ready,
    /// It isn't visible yet: delayed, scheduled, waiting for a retry, or parked behind others of its group.
    Delayed,
    /// A consumer holds it, and its lease still runs.
    Leased,
}

impl fmt::Display for MessageState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ready => "ready",
            Self::Delayed => "delayed",
            Self::Leased => "leased",
        })
    }
}

/// Where a page of a list ended, and so where the next one begins. It prints as text, for a link, and is parsed from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cursor {
    /// In microseconds since 1970; 0 in a list that is ordered by id alone.
    pub(crate) at: i64,
    pub(crate) id: i64,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.at, self.id)
    }
}

impl FromStr for Cursor {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, ParseIntError> {
        let (at, id) = text.split_once('.').unwrap_or((text, ""));
        Ok(Self {
            at: at.parse()?,
            id: id.parse()?,
        })
    }
}

impl Serialize for Cursor {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A page of what was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Found<T> {
    /// What was found, in the order of the search.
    pub items: Vec<T>,
    /// Where the search goes on; `None` if it is over.
    pub next: Option<Cursor>,
    /// Whether the search ended since it had looked at 50,000 of them. There may be others behind, which a search after
    /// `next` finds.
    pub is_cut: bool,
}

/// Dead letters of a queue that have the same reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct DeadLetterReason {
    /// Why they are dead letters.
    pub reason: String,
    /// How many there are; at least, if the queue has more dead letters than were counted.
    pub letters: Count,
    /// The id of the newest one.
    pub newest: MessageId,
    /// The error of the newest one's last attempt, if known.
    pub last_error: Option<String>,
    /// When the first of them was dead-lettered, by the database's clock.
    pub first_died_at: DateTime<Utc>,
    /// When the last of them was.
    pub last_died_at: DateTime<Utc>,
}

/// Where a message is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum MessagePlace {
    /// In its queue.
    Queued {
        /// Its state.
        state: MessageState,
        /// Whether it waits for others of its group to be settled. Its state is then delayed.
        is_parked: bool,
        /// From when on it can be delivered, if it isn't leased.
        visible_at: DateTime<Utc>,
        /// When its lease runs out, if a consumer holds it.
        lease_expires_at: Option<DateTime<Utc>>,
    },
    /// It is a dead letter.
    DeadLetters {
        /// Why.
        reason: String,
        /// Since when, by the database's clock.
        died_at: DateTime<Utc>,
    },
    /// It was handled and kept.
    Archive {
        /// Since when, by the database's clock.
        archived_at: DateTime<Utc>,
    },
}

/// A message with all that is known of it, wherever it is: in its queue, among the dead letters or in the archive.
///
/// Its `Debug` output leaves the payload out.
#[derive(Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct MessageInfo {
    /// The message.
    pub id: MessageId,
    /// Its queue.
    pub queue: QueueName,
    /// Where it is, and in which state.
    pub place: MessagePlace,
    /// Its priority.
    pub priority: Priority,
    /// When it was enqueued, by the database's clock.
    pub enqueued_at: DateTime<Utc>,
    /// How often it was delivered. Deliveries that were put off, or whose payload didn't decode, don't count.
    pub attempt: u32,
    /// After how many attempts it becomes a dead letter: its own limit, or that of its queue.
    pub max_attempts: u32,
    /// When it expires, unless it was started before.
    pub expires_at: Option<DateTime<Utc>>,
    /// How often a handler has put it off.
    pub snoozes: u32,
    /// Since when consumers have found that its payload doesn't decode.
    pub undecodable_since: Option<DateTime<Utc>>,
    /// The producer that it was sent through, if any.
    pub producer: Option<WorkerId>,
    /// The consumer that it was last delivered to, if any.
    pub consumer: Option<WorkerId>,
    /// The error of the last attempt, if known.
    pub last_error: Option<String>,
    /// The key that no other message of its queue has while this one is unfinished.
    pub unique_key: Option<String>,
    /// The key that no other message of its queue has while this one waits to be claimed.
    pub waiting_key: Option<String>,
    /// Its group, if it has one.
    pub group: Option<String>,
    /// Its headers.
    pub headers: Headers,
    /// The payload as it was sent.
    pub payload: String,
}

impl fmt::Debug for MessageInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageInfo")
            .field("id", &self.id)
            .field("queue", &self.queue)
            .field("place", &self.place)
            .field("priority", &self.priority)
            .field("enqueued_at", &self.enqueued_at)
            .field("attempt", &self.attempt)
            .field("max_attempts", &self.max_attempts)
            .field("payload_bytes", &self.payload.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_from_what_it_prints() {
        for cursor in [
            Cursor { at: 0, id: 7 },
            Cursor {
                at: i64::MIN,
                id: i64::MAX,
            },
        ] {
            assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }
        for text in ["", "7", "7.", ".7", "a.b", "1.2.3"] {
            assert!(text.parse::<Cursor>().is_err(), "{text}");
        }
    }
}
