//! The messages of one call that is on its way through a store, and who waits for it. For the writers: each
//! parcel is told what became of it, if only as it is dropped.

use std::mem;

use tokio::{
    sync::{OwnedSemaphorePermit, oneshot},
    time::{Duration, Instant},
};

use crate::{
    error::{Error, Result},
    message::{Envelope, MessageId},
};

/// The messages of one call, and who waits for them.
pub(crate) struct Parcel {
    pub(crate) envelope: Envelope,
    pub(crate) payloads: Vec<String>,
    pub(crate) bytes: usize,
    /// Drawn ahead of a try.
    pub(crate) ids: Vec<i64>,
    started: Instant,
    pub(crate) deadline: Instant,
    /// None once its caller has been told.
    sender: Option<oneshot::Sender<Told>>,
    _room: OwnedSemaphorePermit,
}

/// What became of a parcel.
pub(crate) type Told = Result<Vec<MessageId>>;

impl Parcel {
    /// With where its caller is told.
    pub(crate) fn new(
        envelope: Envelope,
        payloads: Vec<String>,
        started: Instant,
        retry_for: Duration,
        room: OwnedSemaphorePermit,
    ) -> (Self, oneshot::Receiver<Told>) {
        let (sender, told) = oneshot::channel();
        let parcel = Self {
            bytes: payloads.iter().map(String::len).sum(),
            envelope,
            payloads,
            ids: Vec::new(),
            started,
            deadline: started + retry_for,
            sender: Some(sender),
            _room: room,
        };
        (parcel, told)
    }

    pub(crate) fn tell(mut self, outcome: Result<()>) {
        self.answer(outcome);
    }

    pub(crate) fn tell_not_stored(mut self, why: &Error) {
        let (after, source) = (self.started.elapsed(), Box::new(why.clone()));
        self.answer(Err(Error::NotStored { after, source }));
    }

    pub(crate) fn tell_unknown(mut self, why: &Error) {
        self.answer_unknown(why);
    }

    fn answer(&mut self, outcome: Result<()>) {
        if let Some(sender) = self.sender.take() {
            // Nobody may be waiting any more.
            let _ = sender.send(outcome.map(|()| self.message_ids()));
        }
    }

    fn answer_unknown(&mut self, why: &Error) {
        if self.sender.is_some() {
            let (ids, source) = (self.message_ids(), Box::new(why.clone()));
            self.answer(Err(Error::OutcomeUnknown { ids, source }));
        }
    }

    fn message_ids(&self) -> Vec<MessageId> {
        self.ids.iter().copied().map(MessageId::from).collect()
    }

    /// Its caller has left.
    pub(crate) fn is_unwanted(&self) -> bool {
        self.sender.as_ref().is_none_or(oneshot::Sender::is_closed)
    }
}

/// A runtime that ends takes its writers along, in the middle of whatever they do.
impl Drop for Parcel {
    fn drop(&mut self) {
        self.answer_unknown(&Error::Closed);
    }
}

/// Those whose time is over.
pub(crate) fn take_expired(group: &mut Vec<Parcel>) -> impl Iterator<Item = Parcel> + use<> {
    let now = Instant::now();
    let (expired, left) = mem::take(group)
        .into_iter()
        .partition::<Vec<_>, _>(|parcel| parcel.deadline <= now);
    *group = left;
    expired.into_iter()
}
