//! Who a worker is and which state it is in. For errors, statements and handles alike. A state is what
//! the database says it is: another process may have changed it a moment ago.

use std::{fmt, num::ParseIntError, str::FromStr};

use serde::{Deserialize, Serialize};

/// The key of a worker. A worker that takes over a crashed one's identity has a new key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WorkerId(i64);

impl WorkerId {
    /// The key as the database has it, in `pgqrs.workers.id`.
    pub const fn get(self) -> i64 {
        self.0
    }
}

impl From<i64> for WorkerId {
    fn from(id: i64) -> Self {
        Self(id)
    }
}

impl From<WorkerId> for i64 {
    fn from(id: WorkerId) -> Self {
        id.0
    }
}

impl FromStr for WorkerId {
    type Err = ParseIntError;

    fn from_str(id: &str) -> Result<Self, ParseIntError> {
        id.parse().map(Self)
    }
}

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a worker does with its queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WorkerKind {
    /// It enqueues.
    Producer,
    /// It dequeues.
    Consumer,
}

impl WorkerKind {
    /// As the database has it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Producer => "producer",
            Self::Consumer => "consumer",
        }
    }

    pub(crate) fn parse(kind: &str) -> Self {
        match kind {
            "producer" => Self::Producer,
            // The table's own check leaves no third.
            _ => Self::Consumer,
        }
    }
}

impl fmt::Display for WorkerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which state a worker is in.
///
/// `ready` and `suspended` go to and fro; both end in `stopped`, which is final.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WorkerStatus {
    /// It works.
    Ready,
    /// It is held back: nothing is enqueued or dequeued through it.
    Suspended,
    /// It has ended.
    Stopped,
}

impl WorkerStatus {
    /// As the database has it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Suspended => "suspended",
            Self::Stopped => "stopped",
        }
    }

    pub(crate) fn parse(status: &str) -> Self {
        match status {
            "ready" => Self::Ready,
            "suspended" => Self::Suspended,
            // The table's own check leaves no fourth.
            _ => Self::Stopped,
        }
    }
}

impl fmt::Display for WorkerStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A step of a worker's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transition {
    Suspend,
    Resume,
    Shutdown,
}

impl Transition {
    /// The states that it starts from.
    pub(crate) const fn from(self) -> &'static [&'static str] {
        match self {
            Self::Suspend => &["ready"],
            Self::Resume => &["suspended"],
            Self::Shutdown => &["ready", "suspended"],
        }
    }

    pub(crate) const fn to(self) -> WorkerStatus {
        match self {
            Self::Suspend => WorkerStatus::Suspended,
            Self::Resume => WorkerStatus::Ready,
            Self::Shutdown => WorkerStatus::Stopped,
        }
    }
}
