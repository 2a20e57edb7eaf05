//! Outstanding settlements: acks, archives, failures, releases, each kind in batches. A batch that fails is split, so
//! that no settlement blocks another.

use std::{collections::HashSet, mem, time::Duration};

use super::claims::AdaptiveLimit;
use crate::{
    error::{Error, Result},
    message::Receipt,
    postgres::settle::{self, Failure},
    report::Report,
    store::Store,
    telemetry,
};

/// Maximum number of settlements in one statement.
const MAX_BATCH: usize = 1_000;

/// Outstanding settlements.
pub(super) struct Unsettled {
    fresh: Lane,
    /// Settlements that were sent and whose answer was lost: they may have taken effect.
    uncertain: Lane,
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

/// Settlements of one kind, for one statement.
pub(super) struct Batch {
    settlements: Settlements,
    is_uncertain: bool,
}

#[derive(Clone)]
enum Settlements {
    Ack(Vec<Receipt>),
    Archive(Vec<Receipt>),
    Fail(Vec<Failure>),
    Release {
        receipts: Vec<Receipt>,
        kind: Release,
    },
}

/// Which messages are released.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Release {
    /// No handler was called with them.
    Untouched,
    /// Their handlers were aborted: the attempt counts.
    Unfinished,
    /// Their handlers have returned `Release`.
    Returned,
}

impl Unsettled {
    pub(super) fn new() -> Self {
        Self {
            fresh: Lane::default(),
            uncertain: Lane::default(),
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
        self.fresh.len() + self.uncertain.len() + sent
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

    /// Whether there are only a few acks, which can wait for more.
    pub(super) fn can_wait(&self, few: usize) -> bool {
        !self.failing && self.uncertain.is_empty() && self.fresh.is_acks_below(few)
    }

    /// Receipts of all finished deliveries whose leases still have to be extended.
    pub(super) fn receipts(&self) -> Vec<Receipt> {
        let mut receipts = self.fresh.receipts();
        receipts.extend(self.uncertain.receipts());
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
        let unknown = handled(&self.fresh) + handled(&self.uncertain) + sent;
        (self.fresh, self.uncertain) = (Lane::default(), Lane::default());
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
        self.acks.len() < few && self.acks.len() == self.len()
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

impl Release {
    fn of(self) -> impl FnOnce(Vec<Receipt>) -> Settlements {
        move |receipts| Settlements::Release {
            receipts,
            kind: self,
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

impl Batch {
    pub(super) fn len(&self) -> usize {
        match &self.settlements {
            Settlements::Ack(receipts)
            | Settlements::Archive(receipts)
            | Settlements::Release { receipts, .. } => receipts.len(),
            Settlements::Fail(failures) => failures.len(),
        }
    }

    fn receipts(&self) -> Vec<Receipt> {
        match &self.settlements {
            Settlements::Ack(receipts)
            | Settlements::Archive(receipts)
            | Settlements::Release { receipts, .. } => receipts.clone(),
            Settlements::Fail(failures) => failures.iter().map(|failure| failure.receipt).collect(),
        }
    }

    /// How many of its messages a handler has been called with.
    fn handled(&self) -> usize {
        match &self.settlements {
            Settlements::Release {
                kind: Release::Untouched,
                ..
            } => 0,
            _ => self.len(),
        }
    }

    fn split_off_half(&mut self) -> Self {
        let half = self.len() / 2;
        let settlements = match &mut self.settlements {
            Settlements::Ack(receipts) => Settlements::Ack(receipts.split_off(half)),
            Settlements::Archive(receipts) => Settlements::Archive(receipts.split_off(half)),
            Settlements::Fail(failures) => Settlements::Fail(failures.split_off(half)),
            Settlements::Release { receipts, kind } => Settlements::Release {
                receipts: receipts.split_off(half),
                kind: *kind,
            },
        };
        Self {
            settlements,
            is_uncertain: self.is_uncertain,
        }
    }

    /// Replaces texts by ones that every database can store, whatever its encoding; `false` if nothing changed.
    fn simplify_texts(&mut self) -> bool {
        let Settlements::Fail(failures) = &mut self.settlements else {
            return false;
        };
        let texts = failures
            .iter_mut()
            .flat_map(|failure| [&mut failure.error, &mut failure.dead])
            .flatten();
        let mut changed = false;
        for text in texts {
            if !text.is_ascii() {
                *text = text
                    .chars()
                    .map(|letter| if letter.is_ascii() { letter } else { '?' })
                    .collect();
                changed = true;
            }
        }
        changed
    }
}

/// The outcome of a batch: what was settled and, if it failed, what is left.
pub(super) struct Outcome {
    pub(super) report: Report,
    pub(super) failed: Option<(Batch, Error)>,
}

/// Settles a batch. If the server rejects it for a reason that may apply to one message, the others are settled without
/// it.
pub(super) async fn settle(store: &Store, batch: Batch, timeout: Duration) -> Outcome {
    let mut report = Report::default();
    let mut batches = vec![batch];
    while let Some(mut batch) = batches.pop() {
        let error = match settle_batch(store, &batch, timeout).await {
            Ok(settled) => {
                report.add(settled);
                continue;
            }
            Err(error) => error,
        };
        if !error.may_concern_one_message() {
            while let Some(other) = batches.pop() {
                batch.append(other);
            }
            return Outcome {
                report,
                failed: Some((batch, error)),
            };
        }
        if batch.len() > 1 {
            batches.push(batch.split_off_half());
            batches.push(batch);
        } else if batch.simplify_texts() {
            batches.push(batch);
        } else {
            // The lease of that message runs out, and it is delivered again.
            telemetry::settlement_refused(batch.message(), &error);
            report.unknown += batch.handled() as u64;
        }
    }
    Outcome {
        report,
        failed: None,
    }
}

impl Batch {
    /// Merges a batch of the same kind, such as the other half of a split batch.
    fn append(&mut self, other: Self) {
        match (&mut self.settlements, other.settlements) {
            (Settlements::Ack(these), Settlements::Ack(mut those))
            | (Settlements::Archive(these), Settlements::Archive(mut those))
            | (
                Settlements::Release {
                    receipts: these, ..
                },
                Settlements::Release {
                    receipts: mut those,
                    ..
                },
            ) => these.append(&mut those),
            (Settlements::Fail(these), Settlements::Fail(mut those)) => these.append(&mut those),
            _ => {}
        }
    }

    fn message(&self) -> Option<i64> {
        let receipt = match &self.settlements {
            Settlements::Ack(receipts)
            | Settlements::Archive(receipts)
            | Settlements::Release { receipts, .. } => receipts.first(),
            Settlements::Fail(failures) => failures.first().map(|failure| &failure.receipt),
        };
        receipt.map(|receipt| receipt.id.get())
    }
}

async fn settle_batch(store: &Store, batch: &Batch, timeout: Duration) -> Result<Report> {
    let mut connection = store.reserved().await?;
    let mut report = connection
        .within(timeout, async |connection| {
            let mut report = Report::default();
            match &batch.settlements {
                Settlements::Ack(receipts) => {
                    report.done = settle::ack_many(connection, receipts).await?;
                }
                Settlements::Archive(receipts) => {
                    report.archived = settle::archive(connection, receipts).await?.len() as u64;
                }
                Settlements::Fail(failures) => {
                    let failed = settle::fail(connection, failures).await?;
                    report.dead = failed.iter().filter(|failed| failed.dead).count() as u64;
                    report.retried = failed.len() as u64 - report.dead;
                    if failed.len() < failures.len() {
                        let found: HashSet<_> = failed.iter().map(|failed| failed.id).collect();
                        let by_handler = failures.iter().filter(|failure| {
                            failure.is_settled && !found.contains(&failure.receipt.id)
                        });
                        report.done = by_handler.count() as u64;
                    }
                }
                Settlements::Release { receipts, kind } => {
                    let used = *kind == Release::Unfinished;
                    report.released = settle::release(connection, receipts, !used).await?;
                }
            }
            Ok(report)
        })
        .await?;
    let settled = report.done + report.archived + report.dead + report.retried + report.released;
    let missing = (batch.handled() as u64).saturating_sub(settled);
    if batch.is_uncertain {
        // The first statement may have settled them, or their leases were lost.
        report.unknown = missing;
    } else {
        report.lost = missing;
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::pool::no_answer;

    fn receipt(id: i64) -> Receipt {
        Receipt {
            queue_id: 1,
            id: id.into(),
            token: id,
        }
    }

    fn receipts(ids: std::ops::Range<i64>) -> Vec<Receipt> {
        ids.map(receipt).collect()
    }

    fn with_acks(many: i64) -> Unsettled {
        let mut unsettled = Unsettled::new();
        for id in 0..many {
            unsettled.ack(receipt(id));
        }
        unsettled
    }

    fn next(unsettled: &mut Unsettled) -> Batch {
        unsettled.next_batch().expect("there is more")
    }

    fn no_connection() -> Error {
        Error::Connect(Arc::new(sqlx::Error::PoolTimedOut))
    }

    #[test]
    fn a_batch_has_at_most_a_thousand() {
        let mut unsettled = with_acks(2_500);
        let mut sizes = Vec::new();
        while let Some(batch) = unsettled.next_batch() {
            sizes.push(batch.len());
            unsettled.settled();
        }
        assert_eq!(sizes, [1_000, 1_000, 500]);
        assert!(unsettled.is_empty());
    }

    #[test]
    fn each_kind_gets_its_turn() {
        let mut unsettled = with_acks(3_000);
        unsettled.archive(receipt(3_000));
        unsettled.fail(Failure::retry(receipt(3_001), Duration::ZERO, None));
        unsettled.release_untouched(receipts(3_002..3_003));
        unsettled.release_unfinished(receipts(3_003..3_004));
        unsettled.release_returned(receipt(3_004), false);
        let mut kinds = Vec::new();
        while let Some(batch) = unsettled.next_batch() {
            kinds.push(match batch.settlements {
                Settlements::Ack(_) => "ack",
                Settlements::Archive(_) => "archive",
                Settlements::Fail(_) => "fail",
                Settlements::Release { kind, .. } => match kind {
                    Release::Untouched => "untouched",
                    Release::Unfinished => "unfinished",
                    Release::Returned => "returned",
                },
            });
            unsettled.settled();
        }
        let expected = [
            "ack",
            "archive",
            "fail",
            "untouched",
            "unfinished",
            "returned",
            "ack",
            "ack",
        ];
        assert_eq!(kinds, expected);
    }

    #[test]
    fn after_a_failure_batches_are_half_as_large_and_grow_again() {
        let mut unsettled = with_acks(100_000);
        for expected in [1_000, 500, 250] {
            let batch = next(&mut unsettled);
            assert_eq!(batch.len(), expected);
            unsettled.failed(batch, &no_answer());
            assert!(unsettled.is_failing());
        }
        assert_eq!(next(&mut unsettled).len(), 125);
        for _ in 0..50 {
            unsettled.settled();
            assert!(!unsettled.is_failing());
            let _ = next(&mut unsettled);
        }
        assert_eq!(unsettled.limit.get(), 1_000);
    }

    #[test]
    fn without_a_connection_the_size_is_not_to_blame() {
        let mut unsettled = with_acks(1_000);
        let batch = next(&mut unsettled);
        unsettled.failed(batch, &no_connection());
        let batch = next(&mut unsettled);
        assert_eq!((batch.len(), batch.is_uncertain), (1_000, false));
    }

    #[test]
    fn what_was_sent_without_an_answer_is_uncertain_from_then_on() {
        let mut unsettled = with_acks(10);
        let batch = next(&mut unsettled);
        assert!(!batch.is_uncertain);
        unsettled.failed(batch, &no_answer());
        for id in 10..20 {
            unsettled.ack(receipt(id));
        }
        let again = next(&mut unsettled);
        assert!(again.is_uncertain);
        unsettled.failed(again, &no_connection());
        // The others take their turn.
        let fresh = next(&mut unsettled);
        assert_eq!(fresh.receipts(), receipts(10..15));
        assert!(!fresh.is_uncertain);
        unsettled.settled();
        let again = next(&mut unsettled);
        assert!(
            again.is_uncertain,
            "also after a failure that has sent nothing"
        );
    }

    #[test]
    fn leases_are_kept_of_what_waits_and_of_what_is_on_its_way() {
        let mut unsettled = with_acks(1_500);
        let batch = next(&mut unsettled);
        let mut kept: Vec<_> = unsettled.receipts().iter().map(|kept| kept.token).collect();
        kept.sort_unstable();
        assert_eq!(kept, (0..1_500).collect::<Vec<_>>());
        assert_eq!(unsettled.len(), 1_500);
        unsettled.failed(batch, &no_answer());
        assert_eq!(
            (unsettled.receipts().len(), unsettled.len()),
            (1_500, 1_500)
        );
    }

    #[test]
    fn what_is_abandoned_is_unknown_unless_no_handler_had_it() {
        let mut unsettled = with_acks(1_500);
        unsettled.release_untouched(receipts(1_500..1_510));
        unsettled.release_unfinished(receipts(1_510..1_512));
        unsettled.release_returned(receipt(1_512), false);
        let batch = next(&mut unsettled);
        assert_eq!(batch.len(), 1_000);
        assert_eq!(unsettled.abandon().unknown, 1_503);
        assert!(unsettled.is_empty() && !unsettled.is_settling());
        assert_eq!(unsettled.abandon().unknown, 0);
    }

    #[test]
    fn the_halves_of_a_batch_are_all_of_it() {
        let mut unsettled = with_acks(7);
        let mut first = next(&mut unsettled);
        let second = first.split_off_half();
        assert_eq!(first.receipts(), receipts(0..3));
        assert_eq!(second.receipts(), receipts(3..7));
        first.append(second);
        assert_eq!(first.receipts(), receipts(0..7));
    }

    #[test]
    fn texts_are_simplified_once() {
        let mut unsettled = Unsettled::new();
        let failure = Failure::dead(receipt(1), "it can\u{2019}t", Some("\u{201c}no\u{201d}"));
        unsettled.fail(failure);
        let mut batch = next(&mut unsettled);
        assert!(batch.simplify_texts());
        let Settlements::Fail(failures) = &batch.settlements else {
            panic!("a failure");
        };
        assert_eq!(failures[0].dead.as_deref(), Some("it can?t"));
        assert_eq!(failures[0].error.as_deref(), Some("?no?"));
        assert!(!batch.simplify_texts());
    }
}
