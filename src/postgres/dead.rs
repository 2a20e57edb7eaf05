//! Messages that a claim has found and that are delivered no more, since their attempts are used up, or they have expired.

use crate::{lifecycle::WorkerId, message::MessageId};

/// What became of messages that are over.
#[derive(Debug, Default)]
pub(crate) struct DeadLettered {
    pub(crate) dead: Vec<Dead>,
    /// Whether others of their groups are ready now.
    pub(crate) is_next_ready: bool,
    /// Whether some of them have a group that another transaction has locked.
    pub(crate) left_over: bool,
}

/// A message that is delivered no more.
#[derive(Debug)]
pub(crate) struct Dead {
    pub(crate) id: MessageId,
    pub(crate) attempt: u32,
    pub(crate) max_attempts: u32,
    pub(crate) end: End,
    /// Its last consumer, if that was a registered one.
    pub(crate) consumer: Option<WorkerId>,
}

/// Why a message is delivered no more, and what became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// A dead letter, since its attempts are used up.
    UsedUp,
    /// A dead letter, since it was not started in time.
    Expired,
    /// It was not started in time, and was to be dropped then.
    Dropped,
}

/// The consumer of a column that is 0 for one that isn't registered.
pub(crate) fn registered(consumer: i64) -> Option<WorkerId> {
    (consumer != 0).then(|| WorkerId::from(consumer))
}
