//! The columns of one statement for a group of pending sends, and the chunks of a large batch.

use std::collections::HashMap;

use super::pending::PendingSend;
use crate::{
    message::{Envelope, NewMessage},
    postgres::{
        columns::{Columns, next_chunk},
        keyed::{KeyedBatch, KeyedRow},
        writers::Batch,
    },
};

/// The columns of a group's messages, each envelope once.
pub(super) fn columns(group: &[PendingSend]) -> Batch<'_> {
    let messages = group.iter().map(|pending| pending.ids.len()).sum();
    let mut batch = Batch {
        envelopes: Vec::new(),
        ids: Vec::with_capacity(messages),
        envelope: Vec::with_capacity(messages),
        columns: Columns::with_capacity(messages),
    };
    let mut places = HashMap::new();
    let mut last: Option<(&Envelope, i32)> = None;
    for pending in group {
        let place = match last {
            // Consecutive envelopes are mostly equal, and comparing two is cheaper than a look-up in the map.
            Some((envelope, place)) if *envelope == pending.envelope => place,
            _ => *places.entry(&pending.envelope).or_insert_with(|| {
                batch.envelopes.push(&pending.envelope);
                i32::try_from(batch.envelopes.len()).unwrap_or(i32::MAX)
            }),
        };
        last = Some((&pending.envelope, place));
        batch.ids.extend(&pending.ids);
        batch.columns.extend(&pending.messages);
        batch.envelope.resize(batch.ids.len(), place);
    }
    batch
}

/// The messages of a group with keys, or with limits of their own.
pub(super) fn keyed(group: &[PendingSend]) -> KeyedBatch<'_> {
    let (mut envelopes, mut places) = (Vec::new(), HashMap::new());
    let mut rows = Vec::new();
    for pending in group {
        let envelope = *places.entry(&pending.envelope).or_insert_with(|| {
            envelopes.push(pending.envelope.clone());
            i32::try_from(envelopes.len()).unwrap_or(i32::MAX)
        });
        let ids = pending.messages.iter().zip(&pending.ids);
        rows.extend(ids.map(|(message, id)| KeyedRow {
            envelope,
            id: *id,
            message,
        }));
    }
    KeyedBatch::new(envelopes, rows)
}

/// Splits messages into chunks, one for each statement.
pub(super) fn chunks(messages: &[NewMessage]) -> impl Iterator<Item = &[NewMessage]> {
    let mut rest = messages;
    std::iter::from_fn(move || {
        let (chunk, after) = next_chunk(rest);
        rest = after;
        (!chunk.is_empty()).then_some(chunk)
    })
}
