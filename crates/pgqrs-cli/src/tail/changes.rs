//! What has happened between two looks at a queue: a comparison, without a database.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use pgqrs::{MessageId, MessageInfo, MessagePlace, MessageState, QueuedMessage, WorkerId};
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
    /// The highest id so far. Those of messages are drawn in order, and may be committed in another one.
    pub(super) last: Option<MessageId>,
    /// What was sent before is no news.
    started: DateTime<Utc>,
    /// The last parked message that was looked up: they take turns.
    turn: Option<MessageId>,
}

/// How many parked messages are kept in mind.
const PARKED: usize = 1_000;

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
            last: None,
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
        self.last = self.last.max(Some(message.id));
        self.messages
            .insert(message.id, Seen::new(message, is_leased));
    }

    /// Which of the messages of the look before have to be looked up, at most `limit`: those that aren't listed any more,
    /// and then those that wait for their time, in turn. The others of these are kept as they were.
    pub(super) fn carry_over(&mut self, before: &Self, limit: usize) -> Vec<MessageId> {
        let missing = before
            .messages
            .iter()
            .filter(|(id, _)| !self.messages.contains_key(id));
        let (parked, gone): (Vec<_>, Vec<_>) = missing.partition(|(_, seen)| seen.is_parked);
        let mut ids: Vec<MessageId> = gone.into_iter().map(|(id, _)| *id).take(limit).collect();
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

    /// What has happened until the other look. `fates` is what was found of messages that aren't among those that are
    /// looked at any more.
    pub(super) fn changes(
        &self,
        now: &Self,
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
        for (id, seen) in &now.messages {
            match self.messages.get(id) {
                None => {
                    if seen.enqueued_at >= self.started && self.last < Some(*id) {
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
mod tests {
    use chrono::TimeDelta;

    use super::*;

    fn waiting() -> Seen {
        Seen {
            is_leased: false,
            is_parked: false,
            attempt: 0,
            snoozes: 0,
            consumer: None,
            visible_at: DateTime::UNIX_EPOCH,
            enqueued_at: DateTime::UNIX_EPOCH,
            last_error: None,
        }
    }

    fn kinds(before: Option<Seen>, now: Seen) -> Vec<Kind> {
        let id = MessageId::from(7);
        let mut first = Snapshot::starting_at(DateTime::UNIX_EPOCH);
        let mut second = first.next();
        first.messages.extend(before.map(|before| (id, before)));
        second.messages.insert(id, now);
        let events = first.changes(&second, &[]);
        events.iter().map(|event| event.kind).collect()
    }

    #[test]
    fn each_step_of_a_message_is_an_event() {
        let leased = Seen {
            is_leased: true,
            attempt: 1,
            consumer: Some(WorkerId::from(3)),
            ..waiting()
        };
        let failed = Seen {
            is_leased: false,
            last_error: Some("no".to_owned()),
            visible_at: DateTime::UNIX_EPOCH + TimeDelta::seconds(5),
            ..leased.clone()
        };
        let again = Seen {
            is_leased: true,
            attempt: 2,
            ..failed.clone()
        };
        let put_off = Seen {
            is_leased: false,
            snoozes: 1,
            visible_at: DateTime::UNIX_EPOCH + TimeDelta::seconds(5),
            ..leased.clone()
        };
        let released = Seen {
            is_leased: false,
            ..leased.clone()
        };
        assert_eq!(kinds(None, waiting()), [Kind::Sent]);
        assert_eq!(kinds(None, leased.clone()), [Kind::Sent, Kind::Claimed]);
        assert_eq!(kinds(Some(waiting()), leased.clone()), [Kind::Claimed]);
        assert_eq!(kinds(Some(leased.clone()), leased.clone()), []);
        assert_eq!(kinds(Some(leased.clone()), failed.clone()), [Kind::Failed]);
        assert_eq!(kinds(Some(failed), again.clone()), [Kind::Claimed]);
        assert_eq!(
            kinds(Some(leased.clone()), again),
            [Kind::Failed, Kind::Claimed]
        );
        assert_eq!(kinds(Some(leased.clone()), put_off), [Kind::Snoozed]);
        assert_eq!(kinds(Some(leased), released), [Kind::Released]);
    }

    #[test]
    fn what_was_sent_before_it_started_is_no_news() {
        let mut before = Snapshot::starting_at(DateTime::UNIX_EPOCH + TimeDelta::seconds(1));
        let mut now = before.next();
        now.messages.insert(MessageId::from(7), waiting());
        assert_eq!(before.changes(&now, &[]), []);
        // And no message is sent twice.
        before = Snapshot::starting_at(DateTime::UNIX_EPOCH);
        before.last = Some(MessageId::from(7));
        assert_eq!(before.changes(&now, &[]), []);
    }

    #[test]
    fn messages_that_wait_are_looked_up_in_turn_after_those_that_vanished() {
        let mut before = Snapshot::starting_at(DateTime::UNIX_EPOCH);
        let parked = Seen {
            is_parked: true,
            ..waiting()
        };
        for id in 1..=5 {
            before.messages.insert(MessageId::from(id), parked.clone());
        }
        before.messages.insert(MessageId::from(9), waiting());
        let mut looked_up = Vec::new();
        for _ in 0..3 {
            let mut now = before.next();
            let ids = now.carry_over(&before, 3);
            looked_up.push(ids.iter().map(|id| id.get()).collect::<Vec<_>>());
            for id in ids.into_iter().filter(|id| id.get() < 9) {
                now.messages.insert(id, parked.clone());
            }
            before = now;
        }
        assert_eq!(looked_up, [vec![9, 1, 2], vec![3, 4, 5], vec![1, 2, 3]]);
        assert_eq!(before.messages.len(), 5, "none is forgotten");
    }

    #[test]
    fn a_message_that_is_nowhere_is_done() {
        let before = Snapshot::starting_at(DateTime::UNIX_EPOCH);
        let events = before.changes(&before.next(), &[(MessageId::from(7), None)]);
        assert_eq!(events, [Event::new(MessageId::from(7), Kind::Done)]);
    }
}
