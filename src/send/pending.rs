//! One call that waits for its messages to be stored. It always completes: if dropped in the middle of an attempt, with
//! [`Error::OutcomeUnknown`].

use std::mem;

use tokio::{
    sync::{OwnedSemaphorePermit, oneshot},
    time::{Duration, Instant},
};

use crate::{
    error::{Error, Result},
    message::{Envelope, MessageId, NewMessage},
    pool::runtime_ended,
};

/// The messages of one call, and the channel for its result.
pub(super) struct PendingSend {
    pub(super) envelope: Envelope,
    pub(super) messages: Vec<NewMessage>,
    pub(super) bytes: usize,
    /// Drawn before an attempt.
    pub(super) ids: Vec<i64>,
    started: Instant,
    pub(super) deadline: Instant,
    /// `None` once it was answered.
    reply: Option<oneshot::Sender<Result<Vec<MessageId>>>>,
    _room: OwnedSemaphorePermit,
}

impl PendingSend {
    pub(super) fn new(
        envelope: Envelope,
        messages: Vec<NewMessage>,
        started: Instant,
        retry_for: Duration,
        room: OwnedSemaphorePermit,
    ) -> (Self, oneshot::Receiver<Result<Vec<MessageId>>>) {
        let (reply, answer) = oneshot::channel();
        let pending = Self {
            bytes: messages.iter().map(NewMessage::bytes).sum(),
            envelope,
            messages,
            ids: Vec::new(),
            started,
            deadline: started + retry_for,
            reply: Some(reply),
            _room: room,
        };
        (pending, answer)
    }

    pub(super) fn stored(mut self) {
        self.answer(Ok(()));
    }

    pub(super) fn refused(mut self, why: Error) {
        self.answer(Err(why));
    }

    pub(super) fn not_stored(mut self, why: &Error) {
        self.answer_not_stored(why);
    }

    pub(super) fn unknown(mut self, why: &Error) {
        self.answer_unknown(why);
    }

    fn answer(&mut self, outcome: Result<()>) {
        if let Some(reply) = self.reply.take() {
            // The caller may have left.
            let _ = reply.send(outcome.map(|()| self.message_ids()));
        }
    }

    fn answer_not_stored(&mut self, why: &Error) {
        if self.reply.is_some() {
            let (after, source) = (self.started.elapsed(), Box::new(why.clone()));
            self.answer(Err(Error::NotStored { after, source }));
        }
    }

    fn answer_unknown(&mut self, why: &Error) {
        if self.reply.is_some() {
            let (ids, source) = (self.message_ids(), Box::new(why.clone()));
            self.answer(Err(Error::OutcomeUnknown { ids, source }));
        }
    }

    fn message_ids(&self) -> Vec<MessageId> {
        self.ids.iter().copied().map(MessageId::from).collect()
    }

    /// Whether the caller has dropped its future.
    pub(super) fn is_abandoned(&self) -> bool {
        self.reply.as_ref().is_none_or(oneshot::Sender::is_closed)
    }
}

/// A runtime that ends drops its writers at any point of their work.
impl Drop for PendingSend {
    fn drop(&mut self) {
        if self.ids.is_empty() {
            // No attempt is under way: ids are assigned before each attempt, and removed after one that stored nothing.
            self.answer_not_stored(&runtime_ended());
        } else {
            self.answer_unknown(&runtime_ended());
        }
    }
}

/// Removes those whose deadline has passed.
pub(super) fn take_expired(
    group: &mut Vec<PendingSend>,
) -> impl Iterator<Item = PendingSend> + use<> {
    let now = Instant::now();
    let (expired, left) = mem::take(group)
        .into_iter()
        .partition::<Vec<_>, _>(|pending| pending.deadline <= now);
    *group = left;
    expired.into_iter()
}
