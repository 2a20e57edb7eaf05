//! Messages with keys, and their envelopes, as the columns of a statement.

use chrono::{DateTime, Utc};

use super::batch::{KeyedRow, SEEN, UNIQUE, WAITING, kind};
use crate::{
    key::{Key, Lifetime, OnDuplicate, payload_hash},
    lifecycle::WorkerId,
    message::{Envelope, microseconds},
    postgres::json::Json,
};

/// The columns of the rows, all in their order.
#[derive(Default)]
pub(super) struct RowColumns<'a> {
    pub(super) ids: Vec<i64>,
    pub(super) envelopes: Vec<i32>,
    pub(super) headers: Vec<Option<Json<'a>>>,
    pub(super) payloads: Vec<Json<'a>>,
    pub(super) max_attempts: Vec<Option<i32>>,
    pub(super) expires_in: Vec<Option<i64>>,
    pub(super) drop_if_expired: Vec<Option<bool>>,
    pub(super) unique_keys: Vec<Option<&'a str>>,
    pub(super) waiting_keys: Vec<Option<&'a str>>,
    pub(super) seen_keys: Vec<Option<&'a str>>,
    pub(super) windows: Vec<Option<i64>>,
    pub(super) hashes: Vec<Option<Vec<u8>>>,
    /// What they do with a message that waits with their key: 0 leaves it, 1 replaces it, 2 postpones it, 3 appends to it.
    pub(super) changes: Vec<i16>,
    pub(super) max_waits: Vec<Option<i64>>,
    /// For the second and later ones of a key the position of the first, from 1, and whether their payload is the same.
    pub(super) firsts: Vec<Option<i32>>,
    pub(super) same_as_first: Vec<Option<bool>>,
    /// Of messages of groups, which have no keys.
    pub(super) groups: Vec<&'a str>,
}

impl<'a> RowColumns<'a> {
    pub(super) fn of(rows: &[KeyedRow<'a>]) -> Self {
        let mut columns = Self::default();
        let mut first: Option<(&KeyedRow<'a>, i32)> = None;
        for (row, place) in rows.iter().zip(1..) {
            let message = row.message;
            let key = message.key();
            let follows = first
                .filter(|(first, _)| key.is_some() && first.kind_and_key() == row.kind_and_key());
            columns.firsts.push(follows.map(|(_, place)| place));
            columns
                .same_as_first
                .push(follows.map(|(first, _)| first.message.payload() == message.payload()));
            if follows.is_none() {
                first = Some((row, place));
            }
            columns.push(row);
        }
        columns
    }

    /// Of rows that all have a group.
    pub(super) fn of_groups(rows: &[KeyedRow<'a>]) -> Self {
        let mut columns = Self::default();
        for row in rows {
            columns.push_common(row);
            let key = row.message.key().map(Key::text);
            columns.groups.push(key.unwrap_or_default());
        }
        columns
    }

    fn push_common(&mut self, row: &KeyedRow<'a>) {
        let message = row.message;
        let options = message.options();
        let limit = options.and_then(|options| options.max_attempts);
        let expires_in = options.and_then(|options| options.expires_in);
        let drops = options.is_some_and(|options| options.drop_if_expired);
        self.ids.push(row.id);
        self.envelopes.push(row.envelope);
        self.headers.push(message.headers().map(Json));
        self.payloads.push(Json(message.payload()));
        self.max_attempts
            .push(limit.map(|limit| i32::try_from(limit).unwrap_or(i32::MAX)));
        self.expires_in.push(expires_in.map(microseconds));
        self.drop_if_expired.push(drops.then_some(true));
    }

    fn push(&mut self, row: &KeyedRow<'a>) {
        let message = row.message;
        let key = message.key();
        let text_of = |kind_of_key| key.filter(|key| kind(key) == kind_of_key).map(Key::text);
        self.push_common(row);
        self.seen_keys.push(text_of(SEEN));
        self.unique_keys.push(text_of(UNIQUE));
        self.waiting_keys.push(text_of(WAITING));
        self.windows.push(match key.map(Key::lifetime) {
            Some(Lifetime::Within(window)) => Some(microseconds(window)),
            _ => None,
        });
        let (change, max_wait) = match key.map(Key::lifetime) {
            Some(Lifetime::UntilClaimed(OnDuplicate::Replace)) => (1, None),
            Some(Lifetime::UntilClaimed(OnDuplicate::Postpone(wait))) => (2, Some(wait)),
            Some(Lifetime::UntilClaimed(OnDuplicate::Append)) => (3, None),
            _ => (0, None),
        };
        self.changes.push(change);
        self.max_waits.push(max_wait.map(microseconds));
        self.hashes
            .push(key.map(|_| payload_hash(message.payload())));
    }
}

/// The columns of envelopes.
pub(super) struct EnvelopeColumns<'a> {
    pub(super) queues: Vec<&'a str>,
    pub(super) exactly: Vec<Option<DateTime<Utc>>>,
    pub(super) not_before: Vec<Option<DateTime<Utc>>>,
    pub(super) delays: Vec<i64>,
    pub(super) producers: Vec<Option<i64>>,
    pub(super) priorities: Vec<i16>,
}

impl<'a> EnvelopeColumns<'a> {
    pub(super) fn of(envelopes: &'a [Envelope]) -> Self {
        let times = || envelopes.iter().map(|envelope| envelope.visible.times());
        let producer = |envelope: &Envelope| envelope.producer.map(WorkerId::get);
        Self {
            queues: envelopes.iter().map(|e| e.queue.as_str()).collect(),
            exactly: times().map(|times| times.exactly).collect(),
            not_before: times().map(|times| times.not_before).collect(),
            delays: times().map(|times| times.delay).collect(),
            producers: envelopes.iter().map(producer).collect(),
            priorities: envelopes.iter().map(|e| e.priority.rank()).collect(),
        }
    }
}
