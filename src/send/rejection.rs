//! Which messages of a group were rejected, and why.

use std::{collections::HashMap, time::Duration};

use super::{pending::PendingSend, writer::Attempt};
use crate::{error::Error, message::Envelope, pool::StoreConnection, postgres::workers};

/// What a rejection by the server means for the group.
pub(super) fn by_server(error: Error) -> Attempt {
    if error.concerns_every_message() && !error.is_retryable() {
        Attempt::NotSent(error)
    } else {
        Attempt::Refused(error)
    }
}

/// Queries why the envelopes at these places have no queue that accepts them.
pub(super) async fn reasons(
    connection: &mut StoreConnection,
    envelopes: &[&Envelope],
    places: Vec<usize>,
    have_groups: bool,
    timeout: Duration,
) -> Attempt {
    let mut reasons = Vec::new();
    for place in places {
        let Some(envelope) = envelopes.get(place) else {
            continue;
        };
        let reason = connection
            .within(timeout, async |connection| {
                workers::refusal_of_send(
                    connection,
                    &envelope.queue,
                    envelope.producer,
                    have_groups,
                )
                .await
            })
            .await;
        match reason {
            Ok(reason) => reasons.push((place, reason)),
            Err(error) => return Attempt::NotSent(error),
        }
    }
    Attempt::NoQueue(reasons)
}

/// Answers those whose envelopes were rejected, and returns the others.
pub(super) fn answer(group: Vec<PendingSend>, reasons: &[(usize, Error)]) -> Vec<PendingSend> {
    let mut places = HashMap::new();
    let places: Vec<_> = group
        .iter()
        .map(|pending| {
            let next = places.len();
            *places.entry(&pending.envelope).or_insert(next)
        })
        .collect();
    let mut left = Vec::new();
    for (pending, place) in group.into_iter().zip(places) {
        match reasons.iter().find(|(refused, _)| *refused == place) {
            Some((_, reason)) => pending.refused(reason.clone()),
            None => left.push(pending),
        }
    }
    left
}
