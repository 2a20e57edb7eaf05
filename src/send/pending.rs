//! One call that waits for its messages to be stored. It always completes: if dropped in the middle of an attempt, with
//! [`Error::OutcomeUnknown`].

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hasher},
    mem,
};

use tokio::{
    sync::{OwnedSemaphorePermit, oneshot},
    time::{Duration, Instant},
};

use crate::{
    error::{Error, Result},
    key::Key,
    message::{Envelope, MessageId, NewMessage, Visible},
    pool::runtime_ended,
    sent::{Duplicate, Enqueued},
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
    reply: Option<oneshot::Sender<Result<Enqueued>>>,
    /// For messages with keys or limits of their own, which statements of their own store.
    pub(super) keyed: Option<Box<Keyed>>,
    _room: OwnedSemaphorePermit,
}

/// What sends with keys, or with limits of their own, have besides.
#[derive(Default)]
pub(super) struct Keyed {
    pub(super) keys: Vec<KeyHash>,
    /// Whether any of the messages has a group.
    pub(super) has_groups: bool,
    /// The messages that weren't stored, since others have their keys, by the ids drawn for them.
    duplicates: HashMap<i64, Duplicate>,
    /// Since when it waits for transactions that hold keys.
    pub(super) held_since: Option<Instant>,
}

/// A key of one of the messages.
pub(super) struct KeyHash {
    /// Of the text and the kind of the key.
    pub(super) hash: u64,
    /// Whether messages of the same key can be stored by the same statement: all but the first are its duplicates.
    pub(super) is_kept: bool,
}

impl Keyed {
    /// `None` if the messages have neither keys nor limits.
    fn of(messages: &[NewMessage]) -> Option<Box<Self>> {
        messages
            .iter()
            .any(|message| message.options().is_some())
            .then(|| {
                let keys = messages.iter().filter_map(NewMessage::key);
                let keys = keys.map(|key| {
                    let mut hasher = DefaultHasher::new();
                    key.hash_text(&mut hasher);
                    KeyHash {
                        hash: hasher.finish(),
                        is_kept: key.is_kept(),
                    }
                });
                let has_groups = messages
                    .iter()
                    .filter_map(NewMessage::key)
                    .any(Key::is_group);
                Box::new(Self {
                    keys: keys.collect(),
                    has_groups,
                    ..Self::default()
                })
            })
    }
}

impl PendingSend {
    pub(super) fn new(
        envelope: Envelope,
        messages: Vec<NewMessage>,
        started: Instant,
        retry_for: Duration,
        room: OwnedSemaphorePermit,
    ) -> (Self, oneshot::Receiver<Result<Enqueued>>) {
        let (reply, answer) = oneshot::channel();
        let pending = Self {
            bytes: messages.iter().map(NewMessage::bytes).sum(),
            keyed: Keyed::of(&messages),
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

    /// Whether a statement for messages with keys or limits of their own stores it.
    pub(super) fn is_keyed(&self) -> bool {
        self.keyed.is_some()
    }

    /// Whether any of its messages has a group.
    pub(super) fn has_groups(&self) -> bool {
        self.keyed.as_ref().is_some_and(|keyed| keyed.has_groups)
    }

    /// Whether any of its messages can be claimed once it is stored.
    pub(super) fn is_ready(&self) -> bool {
        if !self.is_keyed() {
            return self.envelope.visible == Visible::Now;
        }
        let mut messages = self.messages.iter();
        messages.any(|message| message.is_ready(self.envelope.visible))
    }

    /// Keeps those of these messages that are its own.
    pub(super) fn set_duplicates(&mut self, duplicates: &HashMap<i64, Duplicate>) {
        if let Some(keyed) = &mut self.keyed {
            let own = self.ids.iter().filter_map(|id| {
                let duplicate = duplicates.get(id)?;
                Some((*id, *duplicate))
            });
            keyed.duplicates = own.collect();
        }
    }

    /// Whether another transaction held one of its keys when it was last tried.
    pub(super) fn is_held(&self) -> bool {
        self.held_since().is_some()
    }

    fn held_since(&self) -> Option<Instant> {
        self.keyed.as_ref().and_then(|keyed| keyed.held_since)
    }

    /// How long it has waited for transactions that hold keys.
    pub(super) fn held_for(&self) -> Duration {
        self.held_since()
            .map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// After an attempt that found a key held, since this time: its own key, or that of another call in the statement.
    pub(super) fn note_held(&mut self, since: Instant) {
        if let Some(keyed) = &mut self.keyed {
            keyed.held_since.get_or_insert(since);
        }
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
            let _ = reply.send(outcome.map(|()| self.enqueued()));
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

    fn enqueued(&self) -> Enqueued {
        match &self.keyed {
            Some(keyed) => Enqueued::with_duplicates(&self.ids, &keyed.duplicates),
            None => Enqueued::new(self.message_ids()),
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
