//! What an enqueue returns: the id of each message, and whether it is new.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Deref,
    slice, vec,
};

use serde::{Deserialize, Serialize};

use crate::message::MessageId;

/// What an enqueue returns: the ids, in the order of the messages that went in.
///
/// It reads like a slice: `ids[0]`, `ids.len()`, `for id in ids`. A message with a key that another message had is not
/// stored, and its id is that of the other one; [`outcomes`](Self::outcomes) returns which were new.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enqueued {
    ids: Vec<MessageId>,
    /// By their place. Most enqueues have none.
    duplicates: BTreeMap<usize, Option<bool>>,
}

impl Enqueued {
    pub(crate) fn new(ids: Vec<MessageId>) -> Self {
        Self {
            ids,
            duplicates: BTreeMap::new(),
        }
    }

    /// Of ids that were drawn for the messages, and those of the messages that weren't stored.
    pub(crate) fn with_duplicates(drawn: &[i64], duplicates: &HashMap<i64, Duplicate>) -> Self {
        let mut enqueued = Self::new(Vec::with_capacity(drawn.len()));
        for (place, drawn) in drawn.iter().enumerate() {
            let mut id = *drawn;
            if let Some(duplicate) = duplicates.get(drawn) {
                id = duplicate.holder;
                enqueued.duplicates.insert(place, duplicate.same_payload);
            }
            enqueued.ids.push(MessageId::from(id));
        }
        enqueued
    }

    /// Returns what became of each message, in the order of the messages that went in: whether it is new, or which other
    /// one has its key.
    ///
    /// # Example
    /// See [`Sent`].
    pub fn outcomes(&self) -> impl ExactSizeIterator<Item = Sent> + '_ {
        self.ids.iter().enumerate().map(|(place, id)| {
            let duplicate = self.duplicates.get(&place);
            Sent {
                id: *id,
                new: duplicate.is_none(),
                same_payload: duplicate.copied().flatten(),
            }
        })
    }
}

impl Deref for Enqueued {
    type Target = [MessageId];

    fn deref(&self) -> &[MessageId] {
        &self.ids
    }
}

impl IntoIterator for Enqueued {
    type Item = MessageId;
    type IntoIter = vec::IntoIter<MessageId>;

    fn into_iter(self) -> Self::IntoIter {
        self.ids.into_iter()
    }
}

impl<'a> IntoIterator for &'a Enqueued {
    type Item = &'a MessageId;
    type IntoIter = slice::Iter<'a, MessageId>;

    fn into_iter(self) -> Self::IntoIter {
        self.ids.iter()
    }
}

/// What became of one message of an enqueue.
///
/// # Example
/// ```no_run
/// # async fn example(store: pgqrs::Store) -> pgqrs::Result<()> {
/// let sent = pgqrs::enqueue().message(&7).to("invoices").unique("order-7").execute(&store).await?;
/// for outcome in sent.outcomes() {
///     if !outcome.new {
///         println!("message {} has this key already", outcome.id);
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Sent {
    /// Its id; for a duplicate, the id of the message that has the key.
    pub id: MessageId,
    /// Whether it is stored as a message of its own. False if another message had its key.
    pub new: bool,
    /// For a duplicate, whether the message that has the key has the same payload, as JSON text: one that was replaced has
    /// it. `None` for a new message.
    pub same_payload: Option<bool>,
}

/// A message that wasn't stored, since there was one with its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Duplicate {
    pub(crate) holder: i64,
    pub(crate) same_payload: Option<bool>,
}
