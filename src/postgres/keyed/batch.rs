//! Messages of a statement, in the order in which their keys are taken.

use std::{collections::HashMap, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};

use crate::{
    key::{Key, Lifetime},
    message::{Envelope, NewMessage, Visible},
    postgres::{
        columns::{CHUNK_BYTES, CHUNK_MESSAGES},
        writers::{Try, Written},
    },
    sent::Duplicate,
};

/// The order in which a statement takes keys.
pub(super) const SEEN: u8 = 1;
pub(super) const UNIQUE: u8 = 2;
pub(super) const WAITING: u8 = 3;
/// After all keys, and group by group.
pub(super) const GROUP: u8 = 4;

pub(super) fn kind(key: &Key) -> u8 {
    match key.lifetime() {
        Lifetime::Within(_) => SEEN,
        Lifetime::Unfinished => UNIQUE,
        Lifetime::UntilClaimed(_) => WAITING,
        Lifetime::Group => GROUP,
    }
}

/// Messages of one enqueue, or of several. No two have the same text as a key in different queues.
pub(crate) struct KeyedBatch<'a> {
    pub(crate) envelopes: Vec<Envelope>,
    pub(crate) rows: Vec<KeyedRow<'a>>,
}

/// One message of a statement.
#[derive(Clone, Copy)]
pub(crate) struct KeyedRow<'a> {
    /// The position of its envelope, from 1.
    pub(crate) envelope: i32,
    pub(crate) id: i64,
    pub(crate) message: &'a NewMessage,
}

impl<'a> KeyedRow<'a> {
    pub(super) fn kind_and_key(&self) -> Option<(u8, &'a str)> {
        self.message.key().map(|key| (kind(key), key.text()))
    }

    pub(super) fn waits(&self) -> bool {
        self.message.key().is_some_and(|key| kind(key) == WAITING)
    }

    fn is_grouped(&self) -> bool {
        self.message.key().is_some_and(|key| kind(key) == GROUP)
    }

    /// Whether it changes the message that has its key.
    pub(super) fn changes(&self) -> bool {
        self.message.key().is_some_and(|key| !key.is_kept())
    }
}

impl<'a> KeyedBatch<'a> {
    pub(crate) fn new(mut envelopes: Vec<Envelope>, mut rows: Vec<KeyedRow<'a>>) -> Self {
        let mut places = HashMap::new();
        for row in &mut rows {
            let Some(options) = row.message.options() else {
                continue;
            };
            if options.priority.is_none() && options.visible.is_none() {
                continue;
            }
            let common = &envelopes[position(row.envelope)];
            let own = Envelope {
                queue: common.queue.clone(),
                producer: common.producer,
                priority: options.priority.unwrap_or(common.priority),
                visible: options.visible.unwrap_or(common.visible),
            };
            row.envelope = *places.entry(own).or_insert_with_key(|own| {
                envelopes.push(own.clone());
                i32::try_from(envelopes.len()).unwrap_or(i32::MAX)
            });
        }
        // Those of the same key side by side. All statements take their keys in this order, so that no two wait for each
        // other.
        rows.sort_by_key(|row| (row.kind_and_key(), row.id));
        Self { envelopes, rows }
    }

    /// Splits the rows into statements, in the order of their keys.
    pub(crate) fn chunks(&self) -> Vec<KeyedChunk<'_, 'a>> {
        let grouped = self.rows.partition_point(|row| !row.is_grouped());
        let (rows, grouped) = self.rows.split_at(grouped);
        let grouped = split(grouped).map(KeyedChunk::Grouped);
        let changes = rows.iter().any(|row| row.changes());
        if !changes {
            let keeping = split(rows).map(KeyedChunk::keeping);
            return keeping.chain(grouped).collect();
        }
        let waiting = rows.partition_point(|row| !row.waits());
        let (others, waiting) = rows.split_at(waiting);
        let mut chunks: Vec<_> = split(others).map(KeyedChunk::keeping).collect();
        // A statement changes a message once. So the second of a key is in a statement of its own, and so on.
        let mut rounds: Vec<Vec<KeyedRow<'a>>> = Vec::new();
        let (mut last, mut round) = (None, 0);
        for row in waiting {
            round = if last == row.kind_and_key() {
                round + 1
            } else {
                0
            };
            last = row.kind_and_key();
            if rounds.len() == round {
                rounds.push(Vec::new());
            }
            rounds[round].push(*row);
        }
        for rows in rounds {
            chunks.extend(split(&rows).map(|rows| KeyedChunk::Changing(rows.to_vec())));
        }
        chunks.extend(grouped);
        chunks
    }

    /// Of a batch that takes several statements: all of it becomes visible as if it took one, at this time.
    pub(crate) fn resolve(&mut self, now: DateTime<Utc>) {
        for envelope in &mut self.envelopes {
            let times = envelope.visible.times();
            let delay = TimeDelta::microseconds(times.delay);
            let delayed = now.checked_add_signed(delay).unwrap_or(now);
            let visible = times.not_before.map_or(delayed, |time| time.max(delayed));
            envelope.visible = Visible::Exactly(visible);
        }
    }
}

/// Splits off what fits into one statement each.
fn split<'r, 'a>(rows: &'r [KeyedRow<'a>]) -> impl Iterator<Item = &'r [KeyedRow<'a>]> {
    let mut rest = rows;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fitting = rest.iter().take(CHUNK_MESSAGES).take_while(|row| {
            bytes += row.message.bytes();
            bytes <= CHUNK_BYTES
        });
        let (chunk, after) = rest.split_at(fitting.count().max(1).min(rest.len()));
        rest = after;
        (!chunk.is_empty()).then_some(chunk)
    })
}

pub(super) fn position(place: i32) -> usize {
    usize::try_from(place).unwrap_or(1) - 1
}

/// Rows of one statement.
pub(crate) enum KeyedChunk<'r, 'a> {
    /// Of one envelope, each with a key of its own while it is unfinished.
    Unique(&'r [KeyedRow<'a>]),
    /// What has their keys already stays as it is.
    Keeping(&'r [KeyedRow<'a>]),
    /// What waits with their keys is changed; or it stays as it is, if that is what the rows ask for. No two have the
    /// same key.
    Changing(Vec<KeyedRow<'a>>),
    /// They belong to groups of one queue, and are in the order of these.
    Grouped(&'r [KeyedRow<'a>]),
}

impl<'r, 'a> KeyedChunk<'r, 'a> {
    /// The fastest statement for rows that change nothing.
    fn keeping(rows: &'r [KeyedRow<'a>]) -> Self {
        let distinct = !rows
            .windows(2)
            .any(|pair| pair[0].kind_and_key() == pair[1].kind_and_key());
        let all = |kind| {
            let mut kinds = rows.iter().map(|row| row.kind_and_key());
            distinct && kinds.all(|key| key.is_some_and(|(of_row, _)| of_row == kind))
        };
        let is_of_one_envelope = rows.iter().all(|row| row.envelope == rows[0].envelope);
        if is_of_one_envelope && all(UNIQUE) {
            Self::Unique(rows)
        } else if all(WAITING) {
            Self::Changing(rows.to_vec())
        } else {
            Self::Keeping(rows)
        }
    }
}

/// How a statement is run.
#[derive(Clone, Copy)]
pub(crate) struct KeyedTry {
    /// `None` if there is no writer.
    pub(crate) this: Option<Try>,
    /// Whether an earlier statement of the same transaction has stored other messages of the same calls.
    pub(crate) continues: bool,
    pub(crate) key_timeout: Duration,
}

/// What a statement has done, and the messages that it didn't store since others have their keys, by the ids that were
/// drawn for them.
pub(crate) type KeyedWritten = (Written, HashMap<i64, Duplicate>);

pub(super) fn outcome(is_stored: bool, queue_ids: &[Option<i32>]) -> Written {
    if is_stored {
        return Written::Stored;
    }
    let unknown = queue_ids.iter().enumerate();
    let refused: Vec<_> = unknown
        .filter_map(|(place, queue_id)| queue_id.is_none().then_some(place))
        .collect();
    if refused.is_empty() {
        Written::Taken
    } else {
        Written::Refused(refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{key::OnDuplicate, message::Priority, queue::QueueName};

    const KEEPS: Lifetime = Lifetime::UntilClaimed(OnDuplicate::Keep);
    const REPLACES: Lifetime = Lifetime::UntilClaimed(OnDuplicate::Replace);
    const WITHIN: Lifetime = Lifetime::Within(Duration::from_secs(1));

    /// The statements for messages with these keys, each in the envelope of that position.
    fn statements(keys: &[(i32, Option<(Lifetime, &str)>)]) -> Vec<(&'static str, usize)> {
        let envelope = |queue| Envelope {
            queue: QueueName::new(queue).expect("a name"),
            producer: None,
            priority: Priority::Normal,
            visible: Visible::Now,
        };
        let messages = keys.iter().map(|(_, key)| {
            let mut message = NewMessage::new("1".to_owned());
            if let Some((lifetime, text)) = key {
                message.set_key(Key::new((*text).to_owned(), *lifetime));
            }
            message
        });
        let messages: Vec<_> = messages.collect();
        let rows = messages.iter().zip(keys).zip(1..);
        let rows = rows.map(|((message, (envelope, _)), id)| KeyedRow {
            envelope: *envelope,
            id,
            message,
        });
        let batch = KeyedBatch::new(vec![envelope("tasks"), envelope("emails")], rows.collect());
        let chunks = batch.chunks();
        let statement = |chunk: &KeyedChunk<'_, '_>| match chunk {
            KeyedChunk::Unique(rows) => ("unique", rows.len()),
            KeyedChunk::Keeping(rows) => ("keeping", rows.len()),
            KeyedChunk::Changing(rows) => ("changing", rows.len()),
            KeyedChunk::Grouped(rows) => ("grouped", rows.len()),
        };
        chunks.iter().map(statement).collect()
    }

    #[test]
    fn each_message_is_stored_by_the_fastest_statement_that_can() {
        let unique = |envelope, key| (envelope, Some((Lifetime::Unfinished, key)));
        let waiting = |lifetime, key| (1, Some((lifetime, key)));
        assert_eq!(
            statements(&[unique(1, "b"), unique(1, "a")]),
            [("unique", 2)]
        );
        assert_eq!(
            statements(&[unique(2, "b"), unique(2, "a")]),
            [("unique", 2)]
        );
        // One key twice, two queues, other kinds of keys, and no key.
        for others in [
            [unique(1, "a"), unique(1, "a")],
            [unique(1, "a"), unique(2, "b")],
            [unique(1, "a"), waiting(WITHIN, "b")],
            [unique(1, "a"), waiting(KEEPS, "b")],
            [unique(1, "a"), (1, None)],
            [waiting(KEEPS, "a"), waiting(KEEPS, "a")],
        ] {
            assert_eq!(statements(&others), [("keeping", 2)], "{others:?}");
        }
        assert_eq!(
            statements(&[waiting(KEEPS, "b"), waiting(KEEPS, "a")]),
            [("changing", 2)]
        );
        assert_eq!(
            statements(&[unique(1, "a"), waiting(REPLACES, "b"), waiting(KEEPS, "b")]),
            [("unique", 1), ("changing", 1), ("changing", 1)]
        );
    }
}
