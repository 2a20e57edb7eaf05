//! The board: what a consumer has leased, from the claim until it is handled. For the loop and its handlers, which
//! take from it and note on it without going through the loop: that would cost each message a change of tasks.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use slab::Slab;
use tokio::{sync::Notify, time::Instant};

use crate::{
    delivery::{Delivery, Lease},
    handler::Verdict,
};

/// What the loop and its handlers share.
pub(crate) struct Board<P> {
    /// Never held across an await.
    state: Mutex<State<P>>,
    /// Something was handled that the loop is waiting for.
    pub(crate) news: Notify,
}

pub(crate) struct State<P> {
    /// Leased, and not begun.
    pub(crate) ready: VecDeque<Held<P>>,
    /// By delivery, and not by message: one whose lease was lost can come again while its first handler is
    /// still at it, and what that one says must not be taken for what the second says.
    pub(crate) at_work: Slab<AtWork>,
    pub(crate) handled: Vec<(AtWork, Verdict)>,
    pub(crate) lost: u64,
    /// The loop wants to know of what was handled when there are fewer ready than this.
    pub(crate) tell_below: usize,
}

/// A delivery, and until when it is safe to begin with it: counted from before the claim was sent, on this
/// process's own steady clock.
pub(crate) struct Held<P> {
    pub(crate) delivery: Delivery<P>,
    pub(crate) until: Instant,
}

/// A delivery that a handler has.
pub(crate) struct AtWork {
    pub(crate) lease: Arc<Lease>,
    pub(crate) attempt: u32,
}

impl<P> Board<P> {
    pub(crate) fn new() -> Self {
        let (ready, at_work, handled) = (VecDeque::new(), Slab::new(), Vec::new());
        let state = State {
            ready,
            at_work,
            handled,
            lost: 0,
            tell_below: usize::MAX,
        };
        Self {
            state: Mutex::new(state),
            news: Notify::new(),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State<P>> {
        // No handler runs under it, so none can panic under it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next delivery, and the key by which it is known until it is handled.
    pub(crate) fn take(&self) -> Option<(usize, Delivery<P>)> {
        let mut state = self.lock();
        loop {
            let Held { delivery, until } = state.ready.pop_front()?;
            if until <= Instant::now() {
                // The database was away for so long that somebody else may have it by now.
                state.lost += 1;
                continue;
            }
            let (lease, attempt) = (Arc::clone(delivery.lease()), delivery.attempt());
            let work = AtWork { lease, attempt };
            return Some((state.at_work.insert(work), delivery));
        }
    }

    pub(crate) fn handled(&self, key: usize, verdict: Verdict) {
        let mut state = self.lock();
        if let Some(work) = state.at_work.try_remove(key) {
            state.handled.push((work, verdict));
        }
        if state.ready.len() < state.tell_below {
            self.news.notify_one();
        }
    }
}

impl<P> State<P> {
    pub(crate) fn held(&self) -> usize {
        self.ready.len() + self.at_work.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.held() == 0 && self.handled.is_empty()
    }
}
