//! Keys of messages in the model, and limits of single messages.

use super::*;

/// What a message is sent with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum KeyKind {
    Unique,
    /// Until it is claimed; a duplicate changes nothing.
    Waiting,
    Replaces,
    Postpones,
    /// Its payload is an array, which is joined to that of the one that waits.
    Appends,
    Within,
}

/// What a message asks for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Asks {
    pub(crate) key: Option<(KeyKind, usize)>,
    /// Without a key.
    pub(crate) group: Option<usize>,
    pub(crate) max_attempts: Option<u32>,
    /// If it expires, whether it is dropped then.
    pub(crate) expires: Option<bool>,
}

/// A key that a message has while it exists.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Key {
    Unique(usize),
    Waiting(usize),
}

impl Key {
    pub(super) fn ends_with_a_claim(self) -> bool {
        matches!(self, Self::Waiting(_))
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Expiry {
    pub(super) drops: bool,
    pub(super) is_over: bool,
}

/// What became of a message: its id, or that of the one with its key; whether it is new; whether the payload is the same.
pub(crate) type Outcome = (MessageId, bool, Option<bool>);

impl Asks {
    fn key(self) -> Option<Key> {
        match self.key? {
            (KeyKind::Unique, key) => Some(Key::Unique(key)),
            (KeyKind::Within, _) => None,
            (_, key) => Some(Key::Waiting(key)),
        }
    }

    /// A message of a group, with nothing else.
    pub(crate) fn of_group(group: usize) -> Self {
        Self {
            key: None,
            group: Some(group),
            max_attempts: None,
            expires: None,
        }
    }

    fn expiry(self) -> Option<Expiry> {
        self.expires.map(|drops| Expiry {
            drops,
            is_over: false,
        })
    }
}

impl Entry {
    pub(super) fn own(&self) -> String {
        let attempts = self.max_attempts.unwrap_or(0);
        match self.key {
            Some(Key::Unique(key)) => format!("{attempts} {key} t"),
            Some(Key::Waiting(key)) => format!("{attempts} {key} f"),
            None => format!("{attempts} none f"),
        }
    }

    pub(super) fn expiry(&self) -> &'static str {
        match self.expiry.map(|expiry| (expiry.is_over, expiry.drops)) {
            None => "never f",
            Some((true, true)) => "over t",
            Some((true, false)) => "over f",
            Some((false, true)) => "later t",
            Some((false, false)) => "later f",
        }
    }
}

impl Queue {
    pub(super) fn holder(&self, key: Key) -> Option<MessageId> {
        let mut messages = self.messages.iter();
        let holder = messages.find(|(_, entry)| entry.key == Some(key));
        holder.map(|(id, _)| *id)
    }
}

impl World {
    /// `id_of` is what the database has drawn for a message, by its payload: for one that is new.
    pub(crate) fn send_each(
        &mut self,
        time: usize,
        envelope: &Envelope,
        messages: &[(usize, Asks)],
        id_of: &BTreeMap<usize, MessageId>,
    ) -> Returned<Vec<Outcome>> {
        self.accepts(envelope.queue)?;
        let mut outcomes = Vec::new();
        for (place, (payload, asks)) in messages.iter().enumerate() {
            if let Some(duplicate) = self.duplicate(time, envelope, *payload, *asks) {
                outcomes.push(duplicate);
                continue;
            }
            // One that was replaced at once has another payload by now.
            let later = messages[place..].iter();
            let mut same = later.filter(|(of, other)| {
                of == payload || asks.key().is_some() && other.key() == asks.key()
            });
            let id = same.find_map(|(payload, _)| id_of.get(payload).copied());
            let id = id.unwrap_or(MessageId::from(0));
            self.send(time, envelope, &[(id, *payload)])?;
            if let Some((KeyKind::Within, key)) = asks.key {
                self.seen.insert((envelope.queue, key), (id, *payload));
            }
            if let Some(entry) = self.queue(envelope.queue)?.messages.get_mut(&id) {
                (entry.max_attempts, entry.key, entry.expiry) =
                    (asks.max_attempts, asks.key(), asks.expiry());
                let is_array = matches!(asks.key, Some((KeyKind::Appends, _)));
                entry.appended = is_array.then(Vec::new);
            }
            if let Some(group) = asks.group {
                self.join(envelope.queue, id, group)?;
            }
            self.happened("a new one with a key", usize::from(asks.key.is_some()));
            outcomes.push((id, true, None));
        }
        Ok(outcomes)
    }

    /// If another message has its key: what it does to that one, and what is returned.
    fn duplicate(
        &mut self,
        time: usize,
        envelope: &Envelope,
        payload: usize,
        asks: Asks,
    ) -> Option<Outcome> {
        let (kind, key) = asks.key?;
        if kind == KeyKind::Within {
            let (id, first) = *self.seen.get(&(envelope.queue, key))?;
            self.happened("a duplicate within its time", 1);
            return Some((id, false, Some(first == payload)));
        }
        let queue = self.queue(envelope.queue).ok()?;
        let id = queue.holder(asks.key()?)?;
        let entry = queue.messages.get_mut(&id)?;
        let what = match kind {
            KeyKind::Replaces => {
                (entry.payload, entry.header, entry.priority) =
                    (payload, envelope.header, envelope.priority);
                entry.appended = None;
                (entry.max_attempts, entry.expiry) = (asks.max_attempts, asks.expiry());
                entry.visible = if envelope.delayed {
                    Visible::Later
                } else {
                    Visible::Since(time)
                };
                "replaced"
            }
            KeyKind::Postpones => {
                if envelope.delayed {
                    entry.visible = Visible::Later;
                } else if entry.visible != Visible::Later {
                    entry.visible = Visible::Since(time);
                }
                "postponed"
            }
            KeyKind::Appends => {
                entry.appended.get_or_insert_default().push(payload);
                "appended"
            }
            _ => "a duplicate",
        };
        let same = entry.payload == payload;
        self.happened(what, 1);
        Some((id, false, Some(same)))
    }

    /// Keys that have their time.
    pub(crate) fn seen(&self) -> Vec<(&'static str, usize)> {
        self.seen.keys().copied().collect()
    }

    pub(crate) fn window_passes(&mut self, queue: &'static str, key: usize) {
        self.seen.remove(&(queue, key));
        self.happened("a key's time over", 1);
    }

    /// Messages that expire, and haven't yet.
    pub(crate) fn expiring(&self) -> Vec<(&'static str, MessageId)> {
        let of = |(name, queue): (&&'static str, &Queue)| {
            let entries = queue.messages.iter();
            let expiring =
                entries.filter(|(_, entry)| entry.expiry.is_some_and(|expiry| !expiry.is_over));
            expiring.map(|(id, _)| (*name, *id)).collect::<Vec<_>>()
        };
        self.queues.iter().flat_map(of).collect()
    }

    pub(crate) fn expires(&mut self, queue: &str, id: MessageId) {
        if let Some(queue) = self.queues.get_mut(queue)
            && let Some(entry) = queue.messages.get_mut(&id)
            && let Some(expiry) = &mut entry.expiry
        {
            expiry.is_over = true;
        }
    }
}
