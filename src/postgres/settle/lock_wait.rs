//! How long a settlement of messages with groups waits for the locks of these.

/// How long a settlement waits for other transactions that have locked its groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LockWait {
    /// As long as the connection's own settings say.
    Unlimited,
    /// For each group at most this long. It then fails with a lock time-out.
    Milliseconds(i32),
    /// Not at all: these messages stay as they are.
    SkipLocked,
}

impl LockWait {
    pub(super) fn milliseconds(self) -> Option<i32> {
        match self {
            Self::Unlimited => None,
            Self::Milliseconds(milliseconds) => Some(milliseconds),
            Self::SkipLocked => Some(0),
        }
    }
}
