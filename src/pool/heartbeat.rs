//! Heartbeats in the background: one task per store, one statement for all of its workers. A worker joins when it is
//! registered, and leaves when its last handle is dropped. The task ends when no worker is left.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use tokio::{
    sync::Notify,
    task::JoinHandle,
    time::{Instant, sleep_until},
};

use super::connection::Connections;
use crate::{error::Result, lifecycle::WorkerId, postgres::workers, telemetry};

/// After a failure the next attempt follows soon, so that no worker counts as crashed because the server was restarted.
const RETRY: Duration = Duration::from_secs(1);
/// Shorter than elsewhere: the next attempt uses another connection.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(crate) struct Heartbeats {
    connections: Connections,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Never held across an await.
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    workers: BTreeMap<i64, Beat>,
    task: Option<JoinHandle<()>>,
}

/// A worker that is alive.
#[derive(Debug)]
struct Beat {
    /// When its next heartbeat is due.
    due: Instant,
    interval: Duration,
    /// How many messages it has taken out of its queue.
    settled: u64,
}

/// Workers whose heartbeats are due, and what each has settled.
#[derive(Debug, Default)]
struct Due {
    workers: Vec<i64>,
    settled: Vec<i64>,
}

impl Heartbeats {
    pub(crate) fn new(connections: Connections) -> Self {
        Self {
            connections,
            shared: Arc::default(),
        }
    }

    /// Sends heartbeats for a worker until the guard is dropped.
    pub(crate) fn join(&self, worker: WorkerId, interval: Duration) -> HeartbeatGuard {
        let mut state = self.shared.lock();
        let beat = Beat {
            due: Instant::now() + interval,
            interval,
            settled: 0,
        };
        state.workers.insert(worker.get(), beat);
        self.start_task(&mut state);
        drop(state);
        self.shared.changed.notify_one();
        HeartbeatGuard {
            worker: worker.get(),
            shared: Arc::downgrade(&self.shared),
        }
    }

    /// Counts messages that a worker has taken out of its queue. Its next heartbeat writes their number.
    pub(crate) fn count_settled(&self, worker: WorkerId, messages: u64) {
        if let Some(beat) = self.shared.lock().workers.get_mut(&worker.get()) {
            beat.settled += messages;
        }
    }

    /// How many messages a worker has settled, for a heartbeat that is sent by hand.
    pub(crate) fn settled(&self, worker: WorkerId) -> i64 {
        let state = self.shared.lock();
        state.workers.get(&worker.get()).map_or(0, Beat::settled)
    }

    /// Restarts the task if the runtime that ran it has ended. To be called by long-running operations.
    pub(crate) fn resume(&self) {
        self.start_task(&mut self.shared.lock());
    }

    fn start_task(&self, state: &mut State) {
        let is_gone = state.task.as_ref().is_none_or(JoinHandle::is_finished);
        if is_gone && !state.workers.is_empty() {
            state.task = Some(tokio::spawn(send_heartbeats(
                Arc::clone(&self.shared),
                self.connections.clone(),
            )));
        }
    }
}

impl Beat {
    fn settled(&self) -> i64 {
        i64::try_from(self.settled).unwrap_or(i64::MAX)
    }
}

/// Heartbeats are sent for the worker until this is dropped. Dropping needs no runtime.
pub(crate) struct HeartbeatGuard {
    worker: i64,
    shared: Weak<Shared>,
}

impl HeartbeatGuard {
    pub(crate) fn stop(&self) {
        if let Some(shared) = self.shared.upgrade() {
            shared.lock().workers.remove(&self.worker);
            shared.changed.notify_one();
        }
    }
}

impl Drop for HeartbeatGuard {
    fn drop(&mut self) {
        self.stop();
    }
}

impl fmt::Debug for HeartbeatGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HeartbeatGuard")
            .field("worker", &self.worker)
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No operation under the lock can leave the state half-updated.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When the next worker is due; `None` if there is none, and then the task ends. Under the same lock under which a
    /// worker joins, so that a new worker either finds the task or starts another.
    fn next(&self) -> Option<Instant> {
        let mut state = self.lock();
        let next = state.workers.values().map(|beat| beat.due).min();
        if next.is_none() {
            state.task = None;
        }
        next
    }

    /// Workers that are due, and those due within half of their interval: one statement instead of two.
    fn due(&self) -> Due {
        let (now, mut due) = (Instant::now(), Due::default());
        for (worker, beat) in &self.lock().workers {
            if beat.due <= now + beat.interval / 2 {
                due.workers.push(*worker);
                due.settled.push(beat.settled());
            }
        }
        due
    }

    fn succeeded(&self, tried: &[i64], alive: &[i64]) {
        let now = Instant::now();
        let mut state = self.lock();
        for worker in tried {
            if !alive.contains(worker) {
                // Stopped, or taken over by another process. Its handle returns an error on its next use.
                state.workers.remove(worker);
            } else if let Some(beat) = state.workers.get_mut(worker) {
                beat.due = now + beat.interval;
            }
        }
    }

    fn failed(&self, tried: &[i64]) {
        let again = Instant::now() + RETRY;
        for (worker, beat) in &mut self.lock().workers {
            if tried.contains(worker) {
                beat.due = again.min(Instant::now() + beat.interval);
            }
        }
    }
}

async fn send_heartbeats(shared: Arc<Shared>, connections: Connections) {
    while let Some(next) = shared.next() {
        tokio::select! {
            () = sleep_until(next) => {}
            () = shared.changed.notified() => continue,
        }
        let due = shared.due();
        match send_heartbeat(&connections, &due).await {
            Ok(alive) => shared.succeeded(&due.workers, &alive),
            Err(error) => {
                telemetry::heartbeat_failed(due.workers.len(), &error);
                shared.failed(&due.workers);
            }
        }
    }
}

async fn send_heartbeat(connections: &Connections, due: &Due) -> Result<Vec<i64>> {
    let mut connection = connections.acquire_reserved().await?;
    connection
        .within(STATEMENT_TIMEOUT, async |connection| {
            workers::heartbeat(connection, &due.workers, &due.settled).await
        })
        .await
}
