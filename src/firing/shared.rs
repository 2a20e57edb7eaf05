//! Who takes part in firing schedules, and the task that does it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::{sync::Notify, task::JoinHandle};

#[derive(Debug, Default)]
pub(super) struct Shared {
    /// Never held across an await.
    state: Mutex<State>,
    /// Somebody takes part no longer.
    pub(super) left: Notify,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) participants: usize,
    pub(super) task: Option<JoinHandle<()>>,
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether anybody takes part. If nobody does, the task ends. Under the same lock under which the next one joins, so
    /// that it either finds the task or starts another.
    pub(super) fn has_participants(&self) -> bool {
        let mut state = self.lock();
        if state.participants == 0 {
            state.task = None;
        }
        state.participants > 0
    }
}
