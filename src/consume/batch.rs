//! A batch: settlements of one kind, for one statement. One that fails is split, so that no settlement blocks another.

use std::{collections::HashSet, sync::Arc, time::Duration};

use sqlx::PgConnection;

use crate::{
    error::{Error, Result},
    message::{Origin, Receipt},
    postgres::settle::{
        self,
        failures::{self, Failed, Failure, Then},
    },
    report::Report,
    store::Store,
    telemetry::{self, Subject, Timer},
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

impl Settlements {
    /// What is done with the messages, as spans and events name it.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Ack(_) => "ack",
            Self::Archive(_) => "archive",
            Self::Fail(_) => "nack",
            Self::Release { .. } => "release",
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
        let texts = failures.iter_mut().flat_map(|failure| {
            let reason = match &mut failure.then {
                Then::Dead(reason) => Some(reason),
                _ => None,
            };
            [failure.error.as_mut(), reason].into_iter().flatten()
        });
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
}

/// The outcome of a batch: what was settled and, if it failed, what is left.
pub(super) struct Outcome {
    pub(super) report: Report,
    pub(super) failed: Option<(Batch, Error)>,
}

/// Settles a batch. If the server rejects it for a reason that may apply to one message, the others are settled without
/// it.
pub(super) async fn settle(
    store: &Store,
    batch: Batch,
    origin: &Arc<Origin>,
    timeout: Duration,
) -> Outcome {
    let mut report = Report::default();
    let mut batches = vec![batch];
    while let Some(mut batch) = batches.pop() {
        let error = match settle_batch(store, &batch, origin, timeout).await {
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
            for receipt in batch.receipts() {
                telemetry::settlement_refused(&Subject::settled(origin, receipt), &error);
            }
            report.unknown += batch.handled() as u64;
        }
    }
    Outcome {
        report,
        failed: None,
    }
}

/// What a statement has done with a batch.
#[derive(Default)]
struct Settled<'a> {
    report: Report,
    /// Messages that are dead letters now.
    dead: Vec<&'a Failure>,
    /// Deliveries that had lost their leases, as far as it is known which ones.
    lost: Vec<Receipt>,
}

async fn settle_batch(
    store: &Store,
    batch: &Batch,
    origin: &Arc<Origin>,
    timeout: Duration,
) -> Result<Report> {
    let (timer, during) = (Timer::start(), batch.settlements.name());
    let settled = async {
        let mut connection = store.reserved().await?;
        connection
            .within(timeout, async |connection| {
                carry_out(connection, batch).await
            })
            .await
    };
    let settled = settled.await;
    let (queue, error) = (origin.queue.as_str(), settled.as_ref().err());
    telemetry::settled(during, Some(queue), batch.len(), timer, error);
    let Settled {
        mut report,
        dead,
        lost,
    } = settled?;
    for failure in dead {
        let subject = Subject::settled(origin, failure.receipt);
        telemetry::dead_lettered(&subject, failure.reason(), failure.error_to_show());
    }
    let put_back = report.retried + report.snoozed + report.undecodable + report.released;
    let settled = report.done + report.archived + report.dead + put_back;
    let missing = (batch.handled() as u64).saturating_sub(settled);
    if batch.is_uncertain {
        // The first statement may have settled them, or their leases were lost.
        report.unknown = missing;
    } else {
        report.lost = missing;
        for receipt in &lost {
            telemetry::lease_lost(&Subject::settled(origin, *receipt), during);
        }
        let others = missing.saturating_sub(lost.len() as u64);
        if others > 0 {
            telemetry::leases_lost(origin, others, during);
        }
    }
    Ok(report)
}

async fn carry_out<'a>(connection: &mut PgConnection, batch: &'a Batch) -> Result<Settled<'a>> {
    let mut settled = Settled::default();
    let report = &mut settled.report;
    match &batch.settlements {
        Settlements::Ack(receipts) => {
            report.done = settle::ack_many(connection, receipts).await?;
            if report.done < receipts.len() as u64 && !batch.is_uncertain {
                // Only their number is known. Those that are still there belong to others by now.
                let there = settle::still_queued(connection, receipts).await;
                let there: HashSet<_> = there.unwrap_or_default().into_iter().collect();
                let lost = receipts.iter().filter(|one| there.contains(&one.id));
                settled.lost = lost.copied().collect();
            }
        }
        Settlements::Archive(receipts) => {
            let archived = settle::archive(connection, receipts).await?;
            report.archived = archived.len() as u64;
            settled.lost = settle::missing(receipts, &archived);
        }
        Settlements::Fail(failures) => {
            let failed = failures::fail(connection, failures).await?;
            for Failed { failure, dead } in &failed {
                let count = match failure.then {
                    _ if *dead => {
                        settled.dead.push(failure);
                        &mut report.dead
                    }
                    Then::Later => &mut report.snoozed,
                    Then::Undecodable { .. } => &mut report.undecodable,
                    Then::Retry | Then::Dead(_) => &mut report.retried,
                };
                *count += 1;
            }
            if failed.len() < failures.len() {
                let missing = failures::not_found(failures, &failed);
                let (by_handler, lost): (Vec<_>, Vec<_>) =
                    missing.partition(|failure| failure.is_settled);
                report.done = by_handler.len() as u64;
                settled.lost = lost.into_iter().map(|failure| failure.receipt).collect();
            }
        }
        Settlements::Release { receipts, kind } => {
            let used = *kind == Release::Unfinished;
            report.released = settle::release(connection, receipts, !used).await?;
        }
    }
    Ok(settled)
}
