//! Settlements of messages with groups. A group that another transaction has locked, such as a sender's that stays open,
//! must not hold up the others: so they are settled without waiting first, and what is left for a moment, one by one.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use sqlx::PgConnection;

use crate::{
    error::Result,
    message::{MessageId, Receipt},
    postgres::settle::{
        self,
        failures::{Failed, Failure, not_found},
        grouped::{self, FailedOfGroups, LockWait, SettledOfGroups},
    },
};

/// How long a settlement waits for its group: long enough for others that only commit.
const SHORT_WAIT: LockWait = LockWait::Milliseconds(20);
/// How long a batch waits in all. What is left then is settled later.
const LONGEST_WAIT: Duration = Duration::from_millis(100);

/// What has become of acknowledgements of which some are of messages with groups.
pub(super) struct AckedWithGroups {
    pub(super) ids: Vec<MessageId>,
    pub(super) blocked: Vec<Receipt>,
    pub(super) is_next_ready: bool,
}

/// Acknowledges messages of which some have groups; moves them to the archive if their queue is among `archiving`.
pub(super) async fn ack_with_groups(
    connection: &mut PgConnection,
    receipts: &[Receipt],
    archiving: &[i32],
) -> Result<AckedWithGroups> {
    let (in_groups, others): (Vec<_>, Vec<_>) =
        receipts.iter().copied().partition(|one| one.is_grouped);
    let (
        SettledOfGroups {
            mut ids,
            ready_queues,
        },
        blocked,
    ) = ack_groups(connection, &in_groups, archiving).await?;
    if !others.is_empty() {
        let settled = if archiving.is_empty() {
            settle::each::ack_each(connection, &others).await?
        } else {
            settle::archive(connection, &others).await?
        };
        ids.extend(settled);
    }
    Ok(AckedWithGroups {
        ids,
        blocked,
        is_next_ready: !ready_queues.is_empty(),
    })
}

/// Returns what was settled, and whose groups are locked.
async fn ack_groups(
    connection: &mut PgConnection,
    receipts: &[Receipt],
    archiving: &[i32],
) -> Result<(SettledOfGroups, Vec<Receipt>)> {
    let mut all = SettledOfGroups::default();
    let mut left = receipts.to_vec();
    if receipts.len() > 1 {
        all = grouped::ack(connection, receipts, archiving, LockWait::SkipLocked).await?;
        if all.ids.len() == receipts.len() {
            return Ok((all, Vec::new()));
        }
        left = grouped::still_held(connection, &settle::missing(receipts, &all.ids)).await?;
    }
    let until = Instant::now() + LONGEST_WAIT;
    let mut blocked = Vec::new();
    for receipt in left {
        if Instant::now() >= until {
            blocked.push(receipt);
            continue;
        }
        match grouped::ack(connection, &[receipt], archiving, SHORT_WAIT).await {
            Ok(settled) => {
                all.ids.extend(settled.ids);
                all.ready_queues.extend(settled.ready_queues);
            }
            Err(error) if error.is_lock_timeout() => blocked.push(receipt),
            Err(error) => return Err(error),
        }
    }
    Ok((all, blocked))
}

/// What has become of failures of messages with groups.
pub(super) struct FailedWithGroups<'a> {
    pub(super) failed: Vec<Failed<'a>>,
    pub(super) blocked: Vec<Failure>,
    pub(super) is_next_ready: bool,
}

/// Puts messages with groups back, or dead-letters them.
pub(super) async fn fail_with_groups<'a>(
    connection: &mut PgConnection,
    failures: &[&'a Failure],
) -> Result<FailedWithGroups<'a>> {
    let FailedOfGroups {
        mut failed,
        mut is_next_ready,
    } = grouped::fail(connection, failures, LockWait::SkipLocked).await?;
    let mut blocked = Vec::new();
    if failed.len() < failures.len() {
        let missing: Vec<_> = not_found(failures.iter().copied(), &failed).collect();
        let receipts: Vec<_> = missing.iter().map(|failure| failure.receipt).collect();
        let held = grouped::still_held(connection, &receipts).await?;
        let held: HashSet<_> = held.into_iter().collect();
        let until = Instant::now() + LONGEST_WAIT;
        for failure in missing {
            if !held.contains(&failure.receipt) {
                continue;
            }
            if Instant::now() >= until {
                blocked.push(failure.clone());
                continue;
            }
            match grouped::fail(connection, &[failure], SHORT_WAIT).await {
                Ok(done) => {
                    failed.extend(done.failed);
                    is_next_ready |= done.is_next_ready;
                }
                Err(error) if error.is_lock_timeout() => blocked.push(failure.clone()),
                Err(error) => return Err(error),
            }
        }
    }
    Ok(FailedWithGroups {
        failed,
        blocked,
        is_next_ready,
    })
}
