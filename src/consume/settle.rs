//! Outstanding settlements: acks, archives, failures, releases, each kind in batches. What was sent without an answer
//! is sent again, apart from the rest.

use std::mem;

use super::{
    batch::{Batch, Release, Settlements},
    claims::AdaptiveLimit,
};
use crate::{error::Error, message::Receipt, postgres::settle::failures::Failure, report::Report};

/// Maximum number of settlements in one statement.
const MAX_BATCH: usize = 1_000;

/// Outstanding settlements.
pub(super) struct SettleQueue {
    fresh: Lane,
    /// Settlements that were sent and whose answer was lost: they may have taken effect.
    uncertain: Lane,
    /// Settlements whose groups other transactions have locked. They are tried again after a while.
    blocked: Lane,
    /// The batch under way.
    sent: Option<Sent>,
    limit: AdaptiveLimit,
    /// Whether the last batch came from the uncertain ones: the two lanes take turns.
    last_was_uncertain: bool,
    failing: bool,
}

/// The batch under way, as far as it has to be known meanwhile.
struct Sent {
    receipts: Vec<Receipt>,
    /// How many of its messages a handler has been called with.
    handled: usize,
}

/// Settlements by their kind.
#[derive(Default)]
struct Lane {
    acks: Vec<Receipt>,
    archives: Vec<Receipt>,
    failures: Vec<Failure>,
    untouched: Vec<Receipt>,
    unfinished: Vec<Receipt>,
    returned: Vec<Receipt>,
    /// The kind that is next, so that all kinds take turns.
    next: usize,
}

impl SettleQueue {
    pub(super) fn new() -> Self {
        Self {
            fresh: Lane::default(),
            uncertain: Lane::default(),
            blocked: Lane::default(),
            sent: None,
            limit: AdaptiveLimit::new(MAX_BATCH),
            last_was_uncertain: false,
            failing: false,
        }
    }

    pub(super) fn ack(&mut self, receipt: Receipt) {
        self.fresh.acks.push(receipt);
    }

    pub(super) fn archive(&mut self, receipt: Receipt) {
        self.fresh.archives.push(receipt);
    }

    pub(super) fn fail(&mut self, failure: Failure) {
        self.fresh.failures.push(failure);
    }

    pub(super) fn release_untouched(&mut self, receipts: Vec<Receipt>) {
        self.fresh.untouched.extend(receipts);
    }

    pub(super) fn release_unfinished(&mut self, receipts: Vec<Receipt>) {
        self.fresh.unfinished.extend(receipts);
    }

    /// The handler has returned [`Release`](crate::Outcome::Release). If it had also settled the message, that was in a
    /// transaction that may have been rolled back.
    pub(super) fn release_returned(&mut self, receipt: Receipt, is_settled: bool) {
        let lane = if is_settled {
            &mut self.uncertain
        } else {
            &mut self.fresh
        };
        lane.returned.push(receipt);
    }

    /// The handlers of these were aborted after they had settled the messages themselves, in transactions that may have
    /// been rolled back.
    pub(super) fn release_if_unsettled(&mut self, receipts: Vec<Receipt>) {
        self.uncertain.unfinished.extend(receipts);
    }

    /// Number of messages not settled yet, including the batch under way.
    pub(super) fn len(&self) -> usize {
        let sent = self.sent.as_ref().map_or(0, |sent| sent.receipts.len());
        self.fresh.len() + self.uncertain.len() + self.blocked.len() + sent
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether there are settlements for another batch.
    pub(super) fn has_waiting(&self) -> bool {
        !self.fresh.is_empty() || !self.uncertain.is_empty()
    }

    /// Whether a batch is under way.
    pub(super) fn is_settling(&self) -> bool {
        self.sent.is_some()
    }

    /// Whether the last batch failed.
    pub(super) fn is_failing(&self) -> bool {
        self.failing
    }

    /// Whether there are only a few acks, and of messages without groups, which can wait for more.
    pub(super) fn can_wait(&self, few: usize) -> bool {
        !self.failing && self.uncertain.is_empty() && self.fresh.is_acks_below(few)
    }

    /// Receipts of all finished deliveries whose leases still have to be extended.
    pub(super) fn receipts(&self) -> Vec<Receipt> {
        let mut receipts = self.fresh.receipts();
        receipts.extend(self.uncertain.receipts());
        receipts.extend(self.blocked.receipts());
        receipts.extend(self.sent.iter().flat_map(|sent| &sent.receipts));
        receipts
    }

    pub(super) fn next_batch(&mut self) -> Option<Batch> {
        let uncertain_first = !self.last_was_uncertain || self.fresh.is_empty();
        let is_uncertain = !self.uncertain.is_empty() && uncertain_first;
        let lane = if is_uncertain {
            &mut self.uncertain
        } else {
            &mut self.fresh
        };
        let settlements = lane.next_batch(self.limit.get())?;
        self.last_was_uncertain = is_uncertain;
        let batch = Batch {
            settlements,
            is_uncertain,
        };
        self.sent = Some(Sent {
            receipts: batch.receipts(),
            handled: batch.handled(),
        });
        Some(batch)
    }

    pub(super) fn settled(&mut self) {
        let size = self.sent.take().map_or(0, |sent| sent.receipts.len());
        self.limit.passed(size);
        self.failing = false;
    }

    /// Other transactions have locked the groups of these: they wait until [`unblock`](Self::unblock).
    pub(super) fn blocked(&mut self, settlements: Settlements) {
        self.blocked.put_back(settlements);
    }

    /// Has what was blocked tried again, behind the others.
    pub(super) fn unblock(&mut self) {
        self.fresh.append(mem::take(&mut self.blocked));
    }

    pub(super) fn has_blocked(&self) -> bool {
        !self.blocked.is_empty()
    }

    /// Requeues the rest of a failed batch behind the others. Smaller batches follow if the size may have been the
    /// reason.
    pub(super) fn failed(&mut self, rest: Batch, error: &Error) {
        self.sent = None;
        self.failing = true;
        let is_uncertain = rest.is_uncertain || matches!(error, Error::ConnectionLost(_));
        if matches!(error, Error::ConnectionLost(_) | Error::Database(_)) {
            self.limit.failed(rest.len());
        }
        let lane = if is_uncertain {
            &mut self.uncertain
        } else {
            &mut self.fresh
        };
        lane.put_back(rest.settlements);
    }

    /// Gives up what can't be settled any more, for example after the deadline. The leases run out.
    pub(super) fn abandon(&mut self) -> Report {
        let handled = |lane: &Lane| lane.len() - lane.untouched.len();
        let sent = self.sent.take().map_or(0, |sent| sent.handled);
        let left = handled(&self.fresh) + handled(&self.uncertain) + handled(&self.blocked);
        let unknown = left + sent;
        (self.fresh, self.uncertain) = (Lane::default(), Lane::default());
        self.blocked = Lane::default();
        Report {
            unknown: unknown as u64,
            ..Report::default()
        }
    }
}

impl Lane {
    fn len(&self) -> usize {
        self.acks.len()
            + self.archives.len()
            + self.failures.len()
            + self.untouched.len()
            + self.unfinished.len()
            + self.returned.len()
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn is_acks_below(&self, few: usize) -> bool {
        let are_alone = self.acks.len() < few && self.acks.len() == self.len();
        // The next message of a group waits for each of them.
        are_alone && !self.acks.iter().any(|receipt| receipt.is_grouped)
    }

    fn receipts(&self) -> Vec<Receipt> {
        let failures = self.failures.iter().map(|failure| failure.receipt);
        let kinds = [
            &self.acks,
            &self.archives,
            &self.untouched,
            &self.unfinished,
            &self.returned,
        ];
        let others = kinds.into_iter().flatten().copied();
        others.chain(failures).collect()
    }

    fn next_batch(&mut self, limit: usize) -> Option<Settlements> {
        const KINDS: usize = 6;
        for _ in 0..KINDS {
            let kind = self.next;
            self.next = (kind + 1) % KINDS;
            let batch = match kind {
                0 => first(&mut self.acks, limit).map(Settlements::Ack),
                1 => first(&mut self.archives, limit).map(Settlements::Archive),
                2 => first(&mut self.failures, limit).map(Settlements::Fail),
                3 => first(&mut self.untouched, limit).map(Release::Untouched.of()),
                4 => first(&mut self.unfinished, limit).map(Release::Unfinished.of()),
                _ => first(&mut self.returned, limit).map(Release::Returned.of()),
            };
            if batch.is_some() {
                return batch;
            }
        }
        None
    }

    fn append(&mut self, mut other: Self) {
        self.acks.append(&mut other.acks);
        self.archives.append(&mut other.archives);
        self.failures.append(&mut other.failures);
        self.untouched.append(&mut other.untouched);
        self.unfinished.append(&mut other.unfinished);
        self.returned.append(&mut other.returned);
    }

    fn put_back(&mut self, settlements: Settlements) {
        match settlements {
            Settlements::Ack(mut receipts) => self.acks.append(&mut receipts),
            Settlements::Archive(mut receipts) => self.archives.append(&mut receipts),
            Settlements::Fail(mut failures) => self.failures.append(&mut failures),
            Settlements::Release { mut receipts, kind } => match kind {
                Release::Untouched => self.untouched.append(&mut receipts),
                Release::Unfinished => self.unfinished.append(&mut receipts),
                Release::Returned => self.returned.append(&mut receipts),
            },
        }
    }
}

/// Removes up to `limit` elements from the front; `None` if there are none.
fn first<T>(from: &mut Vec<T>, limit: usize) -> Option<Vec<T>> {
    if from.is_empty() {
        return None;
    }
    if from.len() <= limit {
        return Some(mem::take(from));
    }
    Some(from.drain(..limit).collect())
}

#[cfg(test)]
mod tests;
