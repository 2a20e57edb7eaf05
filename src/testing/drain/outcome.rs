//! What a drain has done.

use crate::{
    error::Error,
    message::{Message, MessageId},
};

/// What a drain has done, in the order of the deliveries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Drained {
    /// Messages that were handled, and acknowledged or archived.
    pub done: Vec<MessageId>,
    /// Messages that were put off or released.
    pub later: Vec<MessageId>,
    /// Attempts that failed: if the handler returned an outcome that says so, or with
    /// [`collect_errors`](super::Drain::collect_errors) also an error.
    pub failed: Vec<FailedDelivery>,
    /// Messages that are delivered no more: now dead letters, also if they had expired; or dropped.
    pub dead: Vec<MessageId>,
}

/// An attempt that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FailedDelivery {
    /// The message.
    pub id: MessageId,
    /// The number of the attempt, from 1.
    pub attempt: u32,
    /// The payload as JSON text, byte for byte as it was sent.
    pub json: String,
    /// The text that is kept with the message: of the error and its sources, or of the panic.
    pub error: String,
}

impl FailedDelivery {
    /// Without its error.
    pub(super) fn of(message: &Message) -> Self {
        Self {
            id: message.id,
            attempt: message.attempt.unsigned_abs(),
            json: message.payload.clone(),
            error: String::new(),
        }
    }
}

/// Why a drain has ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DrainError {
    /// A handler failed, or a payload doesn't decode.
    #[error("attempt {} of message {} failed: {}; its payload is {}", .0.attempt, .0.id, .0.error, .0.json)]
    Failed(FailedDelivery),

    /// There are always other messages: a handler sends one for each that it gets, or always puts one off.
    #[error(
        "there is still something to handle after {deliveries} deliveries: does a handler send a message for each that it gets? Set `.limit(..)`"
    )]
    Endless {
        /// How often the handler was called.
        deliveries: usize,
    },

    /// A claim or a settlement failed.
    #[error(transparent)]
    Pgqrs(Error),
}
