//! A worker's id, kind and state. The state is the one in the database: another process may have changed it a moment
//! ago.

use std::{fmt, num::ParseIntError, str::FromStr};

use serde::{Deserialize, Serialize};

/// The id of a worker. A worker that takes over a crashed one's identity has a new id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WorkerId(i64);

impl WorkerId {
    /// Returns the id as a number, as in `pgqrs.workers.id`.
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
    /// The value in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Producer => "producer",
            Self::Consumer => "consumer",
        }
    }

    pub(crate) fn parse(kind: &str) -> Self {
        match kind {
            "producer" => Self::Producer,
            // The table's check constraint allows no third value.
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
/// A worker changes between `ready` and `suspended`; both can end in `stopped`, which is final.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WorkerStatus {
    /// Its enqueues and dequeues are accepted.
    Ready,
    /// Its enqueues and dequeues are refused until it is resumed.
    Suspended,
    /// It has ended, for good.
    Stopped,
}

impl WorkerStatus {
    /// The value in the database.
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
            // The table's check constraint allows no fourth value.
            _ => Self::Stopped,
        }
    }
}

impl fmt::Display for WorkerStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A transition between a worker's states.
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
