//! What a cancellation notifies consumers of.

use super::{MessageId, Receipt};

/// A lease that a cancellation has ended. A hint, which anybody who can notify may have made up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct CancelNotice {
    pub(crate) queue_id: i32,
    pub(crate) id: MessageId,
    pub(crate) token: i64,
}

impl CancelNotice {
    /// From the payload of a NOTIFY.
    pub(crate) fn parse(payload: &str) -> Option<Self> {
        let mut words = payload.split(' ');
        Some(Self {
            queue_id: words.next()?.parse().ok()?,
            id: words.next()?.parse().ok()?,
            token: words.next()?.parse().ok()?,
        })
    }
}

impl From<Receipt> for CancelNotice {
    fn from(receipt: Receipt) -> Self {
        Self {
            queue_id: receipt.queue_id,
            id: receipt.id,
            token: receipt.token,
        }
    }
}
