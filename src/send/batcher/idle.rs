//! Idle writers: each keeps its connection for a while, since the next send is likely to follow soon.

use std::{
    sync::{Arc, Weak, atomic::Ordering},
    time::Duration,
};

use tokio::time::{Instant, sleep};

use super::{Batcher, Lane, LaneId};
use crate::{
    pool::StoreConnection,
    send::writer::{Writer, prune},
};

/// How long an idle writer keeps its connection. The next send is likely to follow soon, and the pool pings each
/// connection that is returned, which takes a round trip.
const IDLE_CONNECTION_TIMEOUT: Duration = Duration::from_millis(50);
impl Batcher {
    /// Makes a writer idle. It keeps its connection for a while if the pool is large enough.
    pub(super) fn park(
        self: &Arc<Self>,
        id: LaneId,
        lane: &mut Lane,
        mut writer: Writer,
    ) -> Parked {
        let is_of_use = self.connections.can_keep() || self.is_prune_due.load(Ordering::Relaxed);
        // A writer that found no pending sends has not noticed that the pool was closed.
        let keeps = is_of_use && !self.connections.is_closed();
        let returned = if keeps {
            None
        } else {
            writer.connection.take()
        };
        writer.idle_since = Instant::now();
        let needs_reaper = writer.connection.is_some() && !lane.has_reaper;
        lane.has_reaper |= needs_reaper;
        lane.idle.push(writer);
        Parked {
            returned,
            reaper: needs_reaper.then(|| Reaper {
                batcher: Arc::downgrade(self),
                lane: id,
                is_done: false,
            }),
        }
    }

    /// Takes the connections of writers that have been idle for this long.
    fn take_idle_connections(&self, id: LaneId, idle_for: Duration) -> Returned {
        let mut state = self.lock();
        let mut connections = Vec::new();
        let Some((_, lane)) = state.lanes.iter_mut().find(|(lane, _)| *lane == id) else {
            return Returned {
                connections,
                is_last: true,
            };
        };
        for writer in &mut lane.idle {
            let is_over = writer.idle_since.elapsed() >= idle_for;
            connections.extend(writer.connection.take_if(|_| is_over));
        }
        // Updated under the same lock under which the next reaper is started.
        lane.has_reaper = lane.idle.iter().any(|writer| writer.connection.is_some());
        Returned {
            connections,
            is_last: !lane.has_reaper,
        }
    }
}

/// What is left to do after a writer was parked, without the lock.
#[must_use]
pub(super) struct Parked {
    /// To be returned to the pool.
    returned: Option<StoreConnection>,
    reaper: Option<Reaper>,
}

impl Parked {
    pub(super) fn finish(self) {
        drop(self.returned);
        if let Some(reaper) = self.reaper {
            // A runtime that is ending drops the task at once, and its connections with it.
            tokio::spawn(reaper.run());
        }
    }
}

/// Returns the connections of a lane's writers that have been idle for [`IDLE_CONNECTION_TIMEOUT`]. Before that, it
/// deletes the rows of old writers over one of them.
struct Reaper {
    batcher: Weak<Batcher>,
    lane: LaneId,
    is_done: bool,
}

impl Reaper {
    async fn run(mut self) {
        while !self.is_done {
            sleep(IDLE_CONNECTION_TIMEOUT).await;
            let Some(batcher) = self.batcher.upgrade() else {
                return;
            };
            let mut returned = batcher.take_idle_connections(self.lane, IDLE_CONNECTION_TIMEOUT);
            self.is_done = returned.is_last;
            if let Some(connection) = returned.connections.first_mut()
                && batcher.take_prune_due()
            {
                prune(connection, batcher.options.statement_timeout()).await;
            }
        }
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        // The reaper's runtime has ended, so its connections have to be returned here.
        if !self.is_done
            && let Some(batcher) = self.batcher.upgrade()
        {
            drop(batcher.take_idle_connections(self.lane, Duration::ZERO));
        }
    }
}

/// Connections of idle writers, to be returned to the pool without the lock.
struct Returned {
    connections: Vec<StoreConnection>,
    /// Whether no idle writer has a connection left, so that the next one to keep its own starts another reaper.
    is_last: bool,
}
