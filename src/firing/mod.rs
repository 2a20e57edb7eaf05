//! Fires schedules that are due. No process leads: each that runs a consumer or a scheduler has one task for it, which
//! sleeps until the next time by the database's clock. If several find the same schedule, the statement that fires it
//! lets one of them do so.

mod shared;
mod task;

use std::{fmt, sync::Arc};

use tokio::task::JoinHandle;

use self::shared::{Shared, State};
use crate::{
    error::Result,
    pool::{Connections, Notifier},
};

/// Fires schedules while anybody takes part. Shared by all clones of a store.
pub(crate) struct Firing {
    connections: Connections,
    notifier: Notifier,
    shared: Arc<Shared>,
}

impl Firing {
    pub(crate) fn new(connections: Connections, notifier: Notifier) -> Self {
        Self {
            connections,
            notifier,
            shared: Arc::default(),
        }
    }

    /// Looks once, and fires nothing: whether this role may, and the schema is there.
    pub(crate) async fn look(&self) -> Result<()> {
        task::look_once(&self.connections).await
    }

    /// Fires schedules until the guard is dropped.
    pub(crate) fn join(&self) -> FiringGuard {
        let mut state = self.shared.lock();
        state.participants += 1;
        self.start_task(&mut state);
        FiringGuard(Arc::clone(&self.shared))
    }

    /// Restarts the task if the runtime that ran it has ended. To be called by long-running operations.
    pub(crate) fn resume(&self) {
        let mut state = self.shared.lock();
        if state.participants > 0 {
            self.start_task(&mut state);
        }
    }

    fn start_task(&self, state: &mut State) {
        if state.task.as_ref().is_none_or(JoinHandle::is_finished) {
            state.task = Some(tokio::spawn(task::fire_loop(
                Arc::clone(&self.shared),
                self.connections.clone(),
                self.notifier.clone(),
            )));
        }
    }
}

impl fmt::Debug for Firing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Firing").finish_non_exhaustive()
    }
}

/// Schedules are fired until this is dropped. Dropping needs no runtime.
#[derive(Debug)]
pub(crate) struct FiringGuard(Arc<Shared>);

impl Drop for FiringGuard {
    fn drop(&mut self) {
        self.0.lock().participants -= 1;
        self.0.left.notify_one();
    }
}
