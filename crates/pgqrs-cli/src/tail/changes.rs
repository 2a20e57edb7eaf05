//! What has happened between two looks at a queue: a comparison, without a database.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use pgqrs::{
    ArchivedMessage, DeadLetter, MessageId, MessageInfo, MessagePlace, MessageState, QueuedMessage,
    WorkerId,
};
use serde::Serialize;

use super::Kind;

/// A message at one look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) is_leased: bool,
    /// Whether it was found to wait for its time, and so isn't listed.
    pub(super) is_parked: bool,
    pub(super) attempt: u32,
    pub(super) snoozes: u32,
    pub(super) consumer: Option<WorkerId>,
    pub(super) visible_at: DateTime<Utc>,
    pub(super) enqueued_at: DateTime<Utc>,
    pub(super) last_error: Option<String>,
}

impl Seen {
    fn new(message: &QueuedMessage, is_leased: bool) -> Self {
        Self {
            is_leased,
            is_parked: false,
            attempt: message.attempt,
            snoozes: message.snoozes,
            consumer: message.consumer,
            visible_at: message.visible_at,
            enqueued_at: message.enqueued_at,
            last_error: message.last_error.clone(),
        }
    }

    /// A message that is in the queue, outside of what is looked at.
    pub(super) fn of_info(message: &MessageInfo) -> Option<Self> {
        let MessagePlace::Queued {
            state, visible_at, ..
        } = &message.place
        else {
            return None;
        };
        Some(Self {
            is_leased: *state == MessageState::Leased,
            is_parked: *state == MessageState::Delayed,
            attempt: message.attempt,
            snoozes: message.snoozes,
            consumer: message.consumer,
            visible_at: *visible_at,
            enqueued_at: message.enqueued_at,
            last_error: message.last_error.clone(),
        })
    }
}

/// What was seen at one look.
#[derive(Debug, Clone)]
pub(super) struct Snapshot {
    pub(super) messages: BTreeMap<MessageId, Seen>,
    /// From which id on messages are new. Ids are drawn in order, and may be committed in another one.
    pub(super) first: Option<MessageId>,
    /// Those that were news, the newest ones: so that none is twice.
    announced: BTreeSet<MessageId>,
    /// What has no higher id is no news: it was forgotten.
    floor: Option<MessageId>,
    /// What was sent before is no news.
    started: DateTime<Utc>,
    /// The last parked message that was looked up: they take turns.
    turn: Option<MessageId>,
}

/// How many parked messages are kept in mind.
const PARKED: usize = 1_000;
/// How many messages that were news are kept in mind.
const ANNOUNCED: usize = 20_000;
/// From which of these on messages are looked at again: others with lower ids may be committed later.
const OVERLAP: usize = 2_000;
/// How many messages that are gone wait to be looked up.
const WAITING: usize = 10_000;

/// What was found of messages with the highest ids, besides those that are in the queue.
#[derive(Debug, Default)]
pub(super) struct New {
    /// Those that have left it, and weren't deleted.
    pub(super) ends: Vec<End>,
    /// Of messages with higher ids, all that there are were found.
    pub(super) known_after: Option<MessageId>,
}

/// A message that has left the queue.
#[derive(Debug)]
pub(super) struct End {
    id: MessageId,
    enqueued_at: DateTime<Utc>,
    event: Event,
}

impl End {
    pub(super) fn dead(letter: &DeadLetter) -> Self {
        Self {
            id: letter.id,
            enqueued_at: letter.enqueued_at,
            event: Event {
                attempt: Some(letter.attempt),
                reason: Some(letter.reason.clone()),
                error: letter.last_error.clone(),
                ..Event::new(letter.id, Kind::Dead)
            },
        }
    }

    pub(super) fn archived(message: &ArchivedMessage) -> Self {
        Self {
            id: message.id,
            enqueued_at: message.enqueued_at,
            event: Event::new(message.id, Kind::Archived),
        }
    }
}

/// Something that has happened to a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Event {
    pub(crate) id: MessageId,
    #[serde(skip)]
    pub(crate) kind: Kind,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) attempt: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) worker: Option<WorkerId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next_at: Option<DateTime<Utc>>,
}

impl Event {
    fn new(id: MessageId, kind: Kind) -> Self {
        Self {
            id,
            kind,
            attempt: None,
            worker: None,
            error: None,
            reason: None,
            next_at: None,
        }
    }

    /// For people.
    pub(super) fn detail(&self) -> String {
        let mut parts = Vec::new();
        parts.extend(self.attempt.map(|attempt| format!("attempt {attempt}")));
        parts.extend(self.worker.map(|worker| format!("by worker {worker}")));
        parts.extend(self.reason.clone());
        parts.extend(self.error.clone());
        parts.extend(
            self.next_at
                .map(|time| format!("again at {}", time.format("%H:%M:%S"))),
        );
        parts.join(", ")
    }
}

impl Snapshot {
    pub(super) fn starting_at(started: DateTime<Utc>) -> Self {
        Self {
            messages: BTreeMap::new(),
            first: None,
            announced: BTreeSet::new(),
            floor: None,
            started,
            turn: None,
        }
    }

    /// An empty one, which follows this one.
    pub(super) fn next(&self) -> Self {
        Self {
            messages: BTreeMap::new(),
            ..self.clone()
        }
    }

    pub(super) fn add(&mut self, message: &QueuedMessage, is_leased: bool) {
        self.messages
            .insert(message.id, Seen::new(message, is_leased));
    }

    /// From which id on messages are looked at again: one that was sent in a longer transaction has a lower id than others
    /// that have been seen.
    pub(super) fn overlap(&self) -> Option<MessageId> {
        match self.announced.iter().rev().nth(OVERLAP) {
            Some(last) => Some(*last),
            None => self.first,
        }
    }

    /// Whether a message is new. It is that once.
    fn announce(&mut self, id: MessageId, enqueued_at: DateTime<Utc>) -> bool {
        if enqueued_at < self.started || Some(id) <= self.floor {
            return false;
        }
        let is_new = self.announced.insert(id);
        if self.announced.len() > ANNOUNCED {
            self.floor = self.announced.pop_first();
        }
        is_new
    }

    /// Whether a message that was looked at before has left the queue: all with such a high id would have been found.
    fn is_gone(&self, id: MessageId, known_after: Option<MessageId>) -> bool {
        known_after.is_some_and(|after| id > after) && !self.messages.contains_key(&id)
    }

    /// Which of the messages of the look before have to be looked up, at most `limit`: those that aren't listed any more,
    /// and then those that wait for their time, in turn. The others are kept as they were, without those that are known to be
    /// gone.
    pub(super) fn carry_over(
        &mut self,
        before: &Self,
        limit: usize,
        known_after: Option<MessageId>,
    ) -> Vec<MessageId> {
        let listed: BTreeSet<MessageId> = self.messages.keys().copied().collect();
        let missing = before.messages.iter().filter(|(id, _)| {
            !listed.contains(id) && known_after.is_none_or(|after| **id <= after)
        });
        let (parked, gone): (Vec<_>, Vec<_>) = missing.partition(|(_, seen)| seen.is_parked);
        let mut gone = gone.into_iter();
        let mut ids: Vec<MessageId> = gone.by_ref().take(limit).map(|(id, _)| *id).collect();
        for (id, seen) in gone.take(WAITING) {
            self.messages.insert(*id, seen.clone());
        }
        let newest = &parked[parked.len().saturating_sub(PARKED)..];
        let turn = newest.partition_point(|(id, _)| Some(**id) <= before.turn);
        let in_turn = newest[turn..].iter().chain(&newest[..turn]);
        for (n, (id, seen)) in in_turn.enumerate() {
            if ids.len() < limit && n < limit {
                ids.push(**id);
                self.turn = Some(**id);
            } else {
                self.messages.insert(**id, (*seen).clone());
            }
        }
        ids
    }

    /// What has happened until the other look, with what was found of the newest messages. `fates` is what was found of
    /// messages that aren't among those that are looked at any more.
    pub(super) fn changes(
        &self,
        now: &mut Self,
        new: New,
        fates: &[(MessageId, Option<MessageInfo>)],
    ) -> Vec<Event> {
        let mut events = Vec::new();
        for (id, found) in fates {
            let place = found.as_ref().map(|message| &message.place);
            match (place, found) {
                (Some(MessagePlace::DeadLetters { reason, .. }), Some(message)) => {
                    events.push(Event {
                        attempt: Some(message.attempt),
                        reason: Some(reason.clone()),
                        error: message.last_error.clone(),
                        ..Event::new(*id, Kind::Dead)
                    });
                }
                (Some(MessagePlace::Archive { .. }), _) => {
                    events.push(Event::new(*id, Kind::Archived));
                }
                (None, _) => events.push(Event::new(*id, Kind::Done)),
                // It is in the queue, and among `now`.
                _ => {}
            }
        }
        let mut ends: BTreeMap<_, _> = new.ends.into_iter().map(|end| (end.id, end)).collect();
        for id in self.messages.keys() {
            if now.is_gone(*id, new.known_after) {
                let end = ends.remove(id).map(|end| end.event);
                events.push(end.unwrap_or_else(|| Event::new(*id, Kind::Done)));
            }
        }
        for (id, end) in ends {
            // One that was in the queue a moment ago is found gone the next time.
            let is_known = now.messages.contains_key(&id) || self.messages.contains_key(&id);
            if !is_known && now.announce(id, end.enqueued_at) {
                events.push(Event::new(id, Kind::Sent));
                events.push(end.event);
            }
        }
        let messages = std::mem::take(&mut now.messages);
        for (id, seen) in &messages {
            match self.messages.get(id) {
                None => {
                    if now.announce(*id, seen.enqueued_at) {
                        events.push(Event::new(*id, Kind::Sent));
                        // It was fast.
                        events.extend(failed(*id, seen, seen.attempt));
                    }
                    if seen.is_leased {
                        events.push(claimed(*id, seen));
                    }
                }
                Some(before) => events.extend(change(*id, before, seen)),
            }
        }
        now.messages = messages;
        events
    }
}

fn claimed(id: MessageId, seen: &Seen) -> Event {
    Event {
        attempt: Some(seen.attempt),
        worker: seen.consumer,
        ..Event::new(id, Kind::Claimed)
    }
}

fn failed(id: MessageId, seen: &Seen, attempt: u32) -> Option<Event> {
    let error = seen.last_error.clone()?;
    Some(Event {
        attempt: Some(attempt),
        error: Some(error),
        next_at: Some(seen.visible_at),
        ..Event::new(id, Kind::Failed)
    })
}

/// What has happened to a message that is still in its queue.
fn change(id: MessageId, before: &Seen, now: &Seen) -> Vec<Event> {
    let mut events = Vec::new();
    let is_other_attempt = now.attempt > before.attempt || now.consumer != before.consumer;
    // An attempt that has failed, and moved the time of the next one.
    let has_moved = now.visible_at != before.visible_at;
    if now.snoozes > before.snoozes {
        events.push(Event {
            next_at: Some(now.visible_at),
            ..Event::new(id, Kind::Snoozed)
        });
    } else if now.last_error.is_some() && (now.last_error != before.last_error || has_moved) {
        events.push(Event {
            attempt: Some(if now.is_leased {
                before.attempt
            } else {
                now.attempt
            }),
            error: now.last_error.clone(),
            next_at: Some(now.visible_at),
            ..Event::new(id, Kind::Failed)
        });
    } else if before.is_leased && !now.is_leased {
        events.push(Event::new(id, Kind::Released));
    }
    if now.is_leased && (!before.is_leased || is_other_attempt) {
        events.push(claimed(id, now));
    }
    events
}

#[cfg(test)]
mod tests;
