//! Heartbeats in the background: one task for each store, and one statement for all of its workers. For
//! managed workers, which join when they register and leave when their last handle is dropped. The task
//! ends when nobody is left, and holds nothing but the pool.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use sqlx::PgPool;
use tokio::{
    sync::Notify,
    task::JoinHandle,
    time::{Instant, sleep_until},
};

use crate::{error::Result, lifecycle::WorkerId, postgres::workers, store::Lent, telemetry};

/// After a failure the next try comes soon, so that a restart of the database costs no worker its life.
const RETRY: Duration = Duration::from_secs(1);
/// For a statement whose server has vanished.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(crate) struct Heartbeats {
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
    /// When each worker is due, and how often.
    workers: BTreeMap<i64, (Instant, Duration)>,
    task: Option<JoinHandle<()>>,
}

impl Heartbeats {
    /// Beats for a worker until the guard is dropped.
    pub(crate) fn join(&self, pool: &PgPool, worker: WorkerId, interval: Duration) -> Beating {
        let mut state = self.shared.lock();
        state
            .workers
            .insert(worker.get(), (Instant::now() + interval, interval));
        // The runtime that the task was started on may have ended before the process did.
        if state.task.as_ref().is_none_or(JoinHandle::is_finished) {
            state.task = Some(tokio::spawn(beat(Arc::clone(&self.shared), pool.clone())));
        }
        drop(state);
        self.shared.changed.notify_one();
        Beating {
            worker: worker.get(),
            shared: Arc::downgrade(&self.shared),
        }
    }
}

/// As long as it lives, its worker's heart beats. Dropping it needs no runtime.
pub(crate) struct Beating {
    worker: i64,
    shared: Weak<Shared>,
}

impl Beating {
    pub(crate) fn stop(&self) {
        if let Some(shared) = self.shared.upgrade() {
            shared.lock().workers.remove(&self.worker);
            shared.changed.notify_one();
        }
    }
}

impl Drop for Beating {
    fn drop(&mut self) {
        self.stop();
    }
}

impl fmt::Debug for Beating {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Beating")
            .field("worker", &self.worker)
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that is done under it can leave it half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When the next worker is due. Where there is none, the task is told to end, under the same lock by
    /// which a worker joins.
    fn next(&self) -> Option<Instant> {
        let mut state = self.lock();
        let next = state.workers.values().map(|(due, _)| *due).min();
        if next.is_none() {
            state.task = None;
        }
        next
    }

    /// Those who are due, and all who would be before half of their interval is over: one statement now
    /// instead of two.
    fn due(&self) -> Vec<i64> {
        let now = Instant::now();
        let workers = &self.lock().workers;
        let due = workers
            .iter()
            .filter(|(_, (due, interval))| *due <= now + *interval / 2);
        due.map(|(worker, _)| *worker).collect()
    }

    fn beaten(&self, tried: &[i64], alive: &[i64]) {
        let now = Instant::now();
        let mut state = self.lock();
        for worker in tried {
            if !alive.contains(worker) {
                // Stopped or taken over by somebody else. Its handle learns of it when it is used.
                state.workers.remove(worker);
            } else if let Some((due, interval)) = state.workers.get_mut(worker) {
                *due = now + *interval;
            }
        }
    }

    fn failed(&self, tried: &[i64]) {
        let again = Instant::now() + RETRY;
        for (worker, (due, interval)) in &mut self.lock().workers {
            if tried.contains(worker) {
                *due = again.min(Instant::now() + *interval);
            }
        }
    }
}

async fn beat(shared: Arc<Shared>, pool: PgPool) {
    while let Some(next) = shared.next() {
        tokio::select! {
            () = sleep_until(next) => {}
            () = shared.changed.notified() => continue,
        }
        let due = shared.due();
        match once(&pool, &due).await {
            Ok(alive) => shared.beaten(&due, &alive),
            Err(error) => {
                telemetry::heartbeat_failed(&error.to_string());
                shared.failed(&due);
            }
        }
    }
}

async fn once(pool: &PgPool, due: &[i64]) -> Result<Vec<i64>> {
    let mut lent = Lent::of(pool).await?;
    lent.within(STATEMENT_TIMEOUT, async |connection| {
        workers::heartbeat(connection, due).await
    })
    .await
}
