//! A batch: settlements of one kind, for one statement. One that fails is split, so that no settlement blocks another.

mod grouped;

use std::{collections::HashSet, sync::Arc, time::Duration};

use sqlx::PgConnection;

use self::grouped::{AckedWithGroups, ack_with_groups, fail_with_groups};
use crate::{
    error::{Error, Result},
    message::{Origin, Receipt},
    postgres::settle::{
        self,
        fail::fail,
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
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Ack(receipts) | Self::Archive(receipts) | Self::Release { receipts, .. } => {
                receipts.len()
            }
            Self::Fail(failures) => failures.len(),
        }
    }

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
        self.settlements.len()
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
    /// Settlements whose groups other transactions have locked.
    pub(super) blocked: Vec<Settlements>,
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
    let (mut report, mut blocked) = (Report::default(), Vec::new());
    let mut batches = vec![batch];
    while let Some(mut batch) = batches.pop() {
        let error = match settle_batch(store, &batch, origin, timeout).await {
            Ok(done) => {
                report.add(done.report);
                blocked.extend(done.blocked);
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
                blocked,
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
        blocked,
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
    /// What wasn't settled, since other transactions have locked the groups.
    blocked: Option<Settlements>,
    /// Whether messages are ready that were parked behind others of their groups.
    is_next_ready: bool,
}

/// What [`settle_batch`] has done.
struct Done {
    report: Report,
    blocked: Option<Settlements>,
}

async fn settle_batch(
    store: &Store,
    batch: &Batch,
    origin: &Arc<Origin>,
    timeout: Duration,
) -> Result<Done> {
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
        blocked,
        is_next_ready,
    } = settled?;
    if is_next_ready {
        store.notifier().wake(&origin.queue);
    }
    for failure in dead {
        let subject = Subject::settled(origin, failure.receipt);
        telemetry::dead_lettered(&subject, failure.reason(), failure.error_to_show());
    }
    let put_back = report.retried + report.snoozed + report.undecodable + report.released;
    let settled = report.done + report.archived + report.dead + put_back;
    let waiting = blocked.as_ref().map_or(0, Settlements::len);
    let missing = (batch.handled() as u64).saturating_sub(settled + waiting as u64);
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
    Ok(Done { report, blocked })
}

async fn carry_out<'a>(connection: &mut PgConnection, batch: &'a Batch) -> Result<Settled<'a>> {
    let mut settled = Settled::default();
    let report = &mut settled.report;
    match &batch.settlements {
        Settlements::Ack(receipts) if receipts.iter().any(|one| one.is_grouped) => {
            let acked = ack_with_groups(connection, receipts, &[]).await?;
            return Ok(settled_with_groups(batch, receipts, acked, false));
        }
        Settlements::Archive(receipts) if receipts.iter().any(|one| one.is_grouped) => {
            let archiving = receipts.first().map(|receipt| receipt.queue_id);
            let acked = ack_with_groups(connection, receipts, archiving.as_slice()).await?;
            return Ok(settled_with_groups(batch, receipts, acked, true));
        }
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
            let (in_groups, others): (Vec<_>, Vec<_>) = failures
                .iter()
                .partition(|failure| failure.receipt.is_grouped);
            let (failed, blocked) = if in_groups.is_empty() {
                (fail(connection, failures).await?, Vec::new())
            } else {
                let others: Vec<_> = others.into_iter().cloned().collect();
                let failed = fail_with_groups(connection, &in_groups).await?;
                settled.is_next_ready = failed.is_next_ready;
                let mut all = failed.failed;
                for failed in fail(connection, &others).await? {
                    let mut same = failures.iter();
                    let receipt = failed.failure.receipt;
                    if let Some(failure) = same.find(|one| one.receipt == receipt) {
                        all.push(Failed { failure, ..failed });
                    }
                }
                (all, failed.blocked)
            };
            for Failed { failure, dead } in &failed {
                let count = match failure.then {
                    _ if *dead => {
                        settled.dead.push(failure);
                        &mut report.dead
                    }
                    Then::Later | Then::SlowDown => &mut report.snoozed,
                    Then::Undecodable { .. } => &mut report.undecodable,
                    Then::Retry | Then::Dead(_) => &mut report.retried,
                };
                *count += 1;
            }
            if failed.len() + blocked.len() < failures.len() {
                let is_blocked =
                    |failure: &&Failure| blocked.iter().any(|one| one.receipt == failure.receipt);
                let missing = failures::not_found(failures, &failed);
                let missing = missing.filter(|failure| !is_blocked(failure));
                let (by_handler, lost): (Vec<_>, Vec<_>) =
                    missing.partition(|failure| failure.is_settled);
                report.done = by_handler.len() as u64;
                settled.lost = lost.into_iter().map(|failure| failure.receipt).collect();
            }
            settled.blocked = Some(blocked)
                .filter(|blocked| !blocked.is_empty())
                .map(Settlements::Fail);
        }
        Settlements::Release { receipts, kind } => {
            let used = *kind == Release::Unfinished;
            report.released = settle::release(connection, receipts, !used).await?;
        }
    }
    Ok(settled)
}

/// What acknowledgements of a batch have done of which some are of messages with groups.
fn settled_with_groups<'a>(
    batch: &Batch,
    receipts: &[Receipt],
    acked: AckedWithGroups,
    archives: bool,
) -> Settled<'a> {
    let AckedWithGroups {
        ids,
        blocked,
        is_next_ready,
    } = acked;
    let mut settled = Settled {
        is_next_ready,
        ..Settled::default()
    };
    if !batch.is_uncertain && ids.len() + blocked.len() < receipts.len() {
        let is_blocked: HashSet<_> = blocked.iter().collect();
        let missing = settle::missing(receipts, &ids).into_iter();
        settled.lost = missing.filter(|one| !is_blocked.contains(one)).collect();
    }
    let (count, of_kind): (_, fn(Vec<Receipt>) -> Settlements) = if archives {
        (&mut settled.report.archived, Settlements::Archive)
    } else {
        (&mut settled.report.done, Settlements::Ack)
    };
    *count = ids.len() as u64;
    settled.blocked = Some(blocked).filter(|it| !it.is_empty()).map(of_kind);
    settled
}
