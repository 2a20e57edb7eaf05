//! What an administrative call returns of a schedule's history.

use std::{fmt, time::Duration};

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::{message::MessageId, queue::QueueName};

/// A time at which a schedule was fired, and what became of its message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ScheduleFiring {
    /// The time that it was for; `None` if it was fired by hand, beside its times.
    pub scheduled_for: Option<DateTime<Utc>>,
    /// When it was fired, by the database's clock.
    pub fired_at: DateTime<Utc>,
    /// The queue that the schedule sent to.
    pub queue: QueueName,
    /// The message that it sent; `None` if it sent none.
    pub message: Option<MessageId>,
    /// What became of it, as of the call.
    pub outcome: FiringOutcome,
}

impl ScheduleFiring {
    /// Returns how long after its time it was fired; `None` if it was fired by hand.
    pub fn lateness(&self) -> Option<Duration> {
        let late = self.fired_at - self.scheduled_for?;
        Some(late.to_std().unwrap_or_default())
    }
}

/// What became of a time at which a schedule was fired.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FiringOutcome {
    /// Its message is ready.
    Ready,
    /// Its message isn't visible yet, since it waits for another attempt or was put off.
    Delayed,
    /// A consumer holds its message.
    Leased,
    /// Its message is a dead letter.
    Dead,
    /// Its message was handled, and archived.
    Archived,
    /// Its message is nowhere any more: it was acknowledged, if nobody has cancelled or deleted it and it hasn't expired. A
    /// deleted row leaves nothing behind that would tell these apart; a queue that archives what is acknowledged does.
    Done,
    /// No message was sent, since another one had its key: the last one was
    /// [unfinished](crate::Schedule::skip_if_unfinished).
    Unfinished,
    /// No message was sent, since the queue was closed.
    QueueClosed,
}

impl fmt::Display for FiringOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ready => "ready",
            Self::Delayed => "delayed",
            Self::Leased => "leased",
            Self::Dead => "dead",
            Self::Archived => "archived",
            Self::Done => "done",
            Self::Unfinished => "unfinished",
            Self::QueueClosed => "queue closed",
        })
    }
}
