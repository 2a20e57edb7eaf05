//! What a consumer's loop has to tell to the database of messages that were handled, or won't be. A statement for
//! each kind of it; what a statement has told is not told again when the next one fails.

use std::time::Duration;

use sqlx::PgConnection;

use crate::{
    error::{Error, Result},
    postgres::messages::{self, Failure, Leased},
    store::Store,
};

/// What a consumer has done from its start to its end. Counted in deliveries: a message that was retried
/// counts each time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Report {
    /// Handled and acknowledged, by the loop or by the handler itself.
    pub done: u64,
    /// Handled and archived.
    pub archived: u64,
    /// Failed, and put back for another attempt.
    pub retried: u64,
    /// Put among the dead letters.
    pub dead: u64,
    /// Given back at the end: not begun, or not finished by the deadline.
    pub released: u64,
    /// Whose lease was lost before they could be settled: they were, or will be, delivered again.
    pub lost: u64,
}

impl Report {
    pub(crate) fn add(&mut self, other: Self) {
        self.done += other.done;
        self.archived += other.archived;
        self.retried += other.retried;
        self.dead += other.dead;
        self.released += other.released;
        self.lost += other.lost;
    }
}

/// What is to be told to the database.
#[derive(Default)]
pub(crate) struct Unsettled {
    pub(crate) done: Vec<Leased>,
    pub(crate) archive: Vec<Leased>,
    pub(crate) failed: Vec<Failure>,
    pub(crate) untouched: Vec<Leased>,
    pub(crate) unfinished: Vec<Leased>,
}

impl Unsettled {
    pub(crate) fn is_empty(&self) -> bool {
        self.done.is_empty() && self.is_only_done()
    }

    /// Nothing but acknowledgements, which can wait for more of them.
    pub(crate) fn is_only_done(&self) -> bool {
        self.archive.is_empty()
            && self.failed.is_empty()
            && self.untouched.is_empty()
            && self.unfinished.is_empty()
    }

    pub(crate) fn append(&mut self, mut other: Self) {
        self.done.append(&mut other.done);
        self.archive.append(&mut other.archive);
        self.failed.append(&mut other.failed);
        self.untouched.append(&mut other.untouched);
        self.unfinished.append(&mut other.unfinished);
    }
}

/// What is left when it fails, what was done, and why it failed.
pub(crate) async fn settle(
    store: &Store,
    mut rest: Unsettled,
    patience: Duration,
) -> (Unsettled, Report, Option<Error>) {
    let mut report = Report::default();
    let settled = async {
        let mut lent = store.lend().await?;
        lent.within(patience, async |connection| {
            settle_all(connection, &mut rest, &mut report).await
        })
        .await
    };
    let error = settled.await.err();
    (rest, report, error)
}

async fn settle_all(
    connection: &mut PgConnection,
    rest: &mut Unsettled,
    report: &mut Report,
) -> Result<()> {
    if !rest.done.is_empty() {
        let done = messages::ack(connection, &rest.done).await?;
        report.done += done;
        report.lost += (rest.done.len() as u64).saturating_sub(done);
        rest.done.clear();
    }
    if !rest.archive.is_empty() {
        let archived = messages::archive(connection, &rest.archive).await?.len();
        report.archived += archived as u64;
        report.lost += (rest.archive.len() - archived) as u64;
        rest.archive.clear();
    }
    if !rest.failed.is_empty() {
        let failed = messages::fail(connection, &rest.failed).await?;
        let dead = failed.iter().filter(|(_, dead)| *dead).count();
        report.dead += dead as u64;
        report.retried += (failed.len() - dead) as u64;
        report.lost += (rest.failed.len() - failed.len()) as u64;
        rest.failed.clear();
    }
    for (leased, untouched) in [(&mut rest.untouched, true), (&mut rest.unfinished, false)] {
        if !leased.is_empty() {
            let released = messages::release(connection, leased, untouched).await?;
            report.released += released;
            report.lost += leased.len() as u64 - released;
            leased.clear();
        }
    }
    Ok(())
}
