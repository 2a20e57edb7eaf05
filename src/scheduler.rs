//! `store.scheduler()`: fires schedules in a process that runs no consumer.

use std::{fmt, sync::Arc};

#[cfg(doc)]
use crate::error::Error;
use crate::{
    error::Result, firing::FiringGuard, pool::WakeSubscription, queue::QueueName, store::Store,
};

impl Store {
    /// Fires schedules until the [`Scheduler`] is dropped: in a process that runs no consumer. Any
    /// [`Consumer::run`](crate::Consumer::run) does so too, without this.
    ///
    /// Any number of processes may do it. While nothing is due, it costs each of them one query a minute.
    ///
    /// # Errors
    /// If it can't work: [`Error::NotInstalled`], [`Error::SchemaOutdated`], [`Error::PermissionDenied`], and those of a
    /// server that can't be reached. Later failures are logged and retried.
    ///
    /// # Source
    /// The function `pgqrs.fire_schedules`, which all roles of [`Access`](crate::Access) may call.
    ///
    /// # Example
    /// ```no_run
    /// # async fn example(store: pgqrs::Store) -> pgqrs::Result<()> {
    /// let scheduler = store.scheduler().await?;
    /// pgqrs::shutdown_signal().await;
    /// drop(scheduler);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn scheduler(&self) -> Result<Scheduler> {
        self.firing().look().await?;
        Ok(Scheduler(Arc::new(Inner {
            _firing: self.firing().join(),
            _woken: self
                .notifier()
                .subscribe(&QueueName::SCHEDULES, self.can_listen()),
        })))
    }
}

/// Fires schedules until it, and all of its clones, are dropped; made by [`Store::scheduler`].
#[derive(Clone)]
#[must_use = "it fires schedules until it is dropped: keep it in a variable"]
pub struct Scheduler(#[expect(dead_code, reason = "it is held")] Arc<Inner>);

struct Inner {
    _firing: FiringGuard,
    /// So that the store listens for schedules that other processes install.
    _woken: WakeSubscription,
}

impl fmt::Debug for Scheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scheduler").finish_non_exhaustive()
    }
}
