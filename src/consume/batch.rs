//! A batch: settlements of one kind, for one statement. One that fails is split, so that no settlement blocks another.

use std::{collections::HashSet, time::Duration};

use crate::{
    error::{Error, Result},
    message::Receipt,
    postgres::settle::{self, Failure},
    report::Report,
    store::Store,
    telemetry,
};

/// Settlements of one kind, for one statement.
pub(super) struct Batch {
    pub(super) settlements: Settlements,
    pub(super) is_uncertain: bool,
}

#[derive(Clone)]
pub(super) enum Settlements {
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
pub(super) enum Release {
    /// No handler was called with them.
    Untouched,
    /// Their handlers were aborted: the attempt counts.
    Unfinished,
    /// Their handlers have returned `Release`.
    Returned,
}

impl Release {
    pub(super) fn of(self) -> impl FnOnce(Vec<Receipt>) -> Settlements {
        move |receipts| Settlements::Release {
            receipts,
            kind: self,
        }
    }
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

    pub(super) fn receipts(&self) -> Vec<Receipt> {
        match &self.settlements {
            Settlements::Ack(receipts)
            | Settlements::Archive(receipts)
            | Settlements::Release { receipts, .. } => receipts.clone(),
            Settlements::Fail(failures) => failures.iter().map(|failure| failure.receipt).collect(),
        }
    }

    /// How many of its messages a handler has been called with.
    pub(super) fn handled(&self) -> usize {
        match &self.settlements {
            Settlements::Release {
                kind: Release::Untouched,
                ..
            } => 0,
            _ => self.len(),
        }
    }

    pub(super) fn split_off_half(&mut self) -> Self {
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
    pub(super) fn simplify_texts(&mut self) -> bool {
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

    /// Merges a batch of the same kind, such as the other half of a split batch.
    pub(super) fn append(&mut self, other: Self) {
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
