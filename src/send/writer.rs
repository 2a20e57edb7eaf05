//! A writer: a sequence of statements, each of which stores all of its messages or none. The next one follows once the
//! outcome of the last is known. If the answer to an attempt is lost, the writer queries its outcome, and fences the
//! attempt so that it can't take effect late, before the messages are sent again.
//!
//! The rules are listed in `tests/models/writer.rs`, which checks them against every failure.

mod deliver;
mod write;

use std::time::Duration;

use sqlx::PgConnection;
use tokio::time::Instant;

use super::{
    ids::{FIRST_BLOCK, IdPool},
    pending::PendingSend,
};
use crate::{
    error::{Error, Result},
    pool::StoreConnection,
    postgres::writers::{self, Try},
    telemetry,
    token::random_token,
};

/// A token is used for at most this many statements, since an old snapshot keeps all versions of its row, and for at
/// most this time, since rows are pruned a day after they were created.
const MAX_STATEMENTS: i64 = 1_000;
const MAX_AGE: Duration = Duration::from_secs(60 * 60);
/// For at most this time, keys are deleted whose time is over.
const PRUNE_TIME: Duration = Duration::from_millis(500);

/// A sequence of statements under one token.
pub(crate) struct Writer {
    token: i64,
    /// Of the last attempt.
    sequence: i64,
    /// When its row was created; `None` before. Without its row, no attempt stores anything.
    since: Option<Instant>,
    ids: IdPool,
    /// Kept from one statement to the next.
    pub(super) connection: Option<StoreConnection>,
    pub(super) idle_since: Instant,
}

impl Default for Writer {
    fn default() -> Self {
        Self {
            token: random_token(),
            sequence: 0,
            since: None,
            ids: IdPool::default(),
            connection: None,
            idle_since: Instant::now(),
        }
    }
}

impl Writer {
    /// A writer whose row exists, for a store that is being connected: its first send is then one statement.
    pub(crate) async fn begun(connection: &mut PgConnection, server: i64) -> Result<Self> {
        let mut writer = Self::default();
        let drawn = writers::reserve(connection, Some(writer.token), FIRST_BLOCK).await?;
        writer.ids.put(drawn, server);
        writer.since = Some(Instant::now());
        Ok(writer)
    }

    fn last(&self) -> Try {
        Try {
            token: self.token,
            sequence: self.sequence,
        }
    }

    fn renew(&mut self) {
        (self.token, self.sequence, self.since) = (random_token(), 0, None);
    }

    /// Draws a new token in good time: before an attempt, since the writer may have been idle for days.
    fn renew_if_old(&mut self) {
        let is_old = self.since.is_some_and(|since| since.elapsed() > MAX_AGE);
        if self.sequence >= 2 * MAX_STATEMENTS || is_old {
            self.renew();
        }
    }

    fn forget_ids(&mut self, group: &mut [PendingSend]) {
        group.iter_mut().for_each(|pending| pending.ids.clear());
        self.ids.clear();
    }
}

/// The outcome of one attempt.
pub(super) enum Attempt {
    Stored,
    /// Nothing is stored: for these reasons, these envelopes have no queue that accepts them.
    NoQueue(Vec<(usize, Error)>),
    /// Nothing is stored: another transaction holds a key, and was waited for in vain.
    KeyHeld(Error),
    /// Nothing is stored, for a reason that applies to all messages.
    NotSent(Error),
    /// Nothing is stored: the server rejected the statement, perhaps because of one message.
    Refused(Error),
    Unknown(Error),
}

/// Deletes the rows of writers that ended long ago, and keys that are unique no longer.
pub(super) async fn prune(connection: &mut StoreConnection, timeout: Duration) {
    if let Err(error) = connection.within(timeout, writers::prune).await {
        telemetry::prune_failed("writers", &error);
    }
    // Statements of thousand messages with keys may have come since.
    let started = Instant::now();
    while started.elapsed() < PRUNE_TIME {
        match connection.within(timeout, writers::prune_seen).await {
            Ok(1_000..) => {}
            Ok(_) => return,
            Err(error) => return telemetry::prune_failed("seen", &error),
        }
    }
}
