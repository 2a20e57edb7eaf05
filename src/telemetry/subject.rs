//! The delivery that an event, a span or a measurement is about.

use std::sync::Arc;

use crate::message::{Message, MessageId, Origin, Receipt};

/// A delivery.
#[derive(Debug, Clone)]
pub(crate) struct Subject {
    pub(crate) origin: Arc<Origin>,
    pub(crate) message: MessageId,
    pub(crate) attempt: u32,
    pub(crate) max_attempts: u32,
}

impl Subject {
    pub(crate) fn of(message: &Message) -> Self {
        Self::settled(&message.origin, message.receipt())
    }

    /// The delivery that a receipt is of.
    pub(crate) fn settled(origin: &Arc<Origin>, receipt: Receipt) -> Self {
        Self {
            origin: Arc::clone(origin),
            message: receipt.id,
            attempt: receipt.attempt,
            max_attempts: receipt.max_attempts,
        }
    }
}
