//! Workers: list, suspend, stop, remove; the messages that they hold.

use std::time::Duration;

use super::{
    Admin,
    rows::{HeldMessage, WorkerFilter, WorkerInfo},
};
use crate::{
    error::{Error, Result},
    lifecycle::{Transition, WorkerId},
    postgres::{messages, workers},
    worker,
};

impl Admin {
    /// Returns workers, ordered by id.
    ///
    /// # Example
    /// ```no_run
    /// # async fn example(store: pgqrs::Store) -> pgqrs::Result<()> {
    /// use pgqrs::{QueueName, WorkerFilter};
    ///
    /// let of_tasks = WorkerFilter::builder().queue(QueueName::new("tasks")?).build();
    /// for worker in pgqrs::admin(&store).workers(&of_tasks).await? {
    ///     println!("{} {}:{} {}", worker.kind, worker.hostname, worker.port, worker.status);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn workers(&self, filter: &WorkerFilter) -> Result<Vec<WorkerInfo>> {
        self.store
            .run(async |connection| workers::list(connection, filter).await)
            .await
    }

    /// Returns a worker.
    ///
    /// # Errors
    /// [`Error::WorkerNotFound`].
    pub async fn worker(&self, worker: WorkerId) -> Result<WorkerInfo> {
        let found = self
            .store
            .run(async |connection| workers::find(connection, worker).await)
            .await?;
        found.ok_or(Error::WorkerNotFound { worker })
    }

    /// Suspends a worker, in whichever process it runs: its next enqueue or dequeue is refused.
    ///
    /// # Errors
    /// [`Error::InvalidTransition`] if it isn't ready; [`Error::WorkerNotFound`].
    pub async fn suspend_worker(&self, worker: WorkerId) -> Result<()> {
        self.step(worker, Transition::Suspend).await
    }

    /// Resumes a suspended worker.
    ///
    /// # Errors
    /// [`Error::InvalidTransition`] if it isn't suspended; [`Error::WorkerNotFound`].
    pub async fn resume_worker(&self, worker: WorkerId) -> Result<()> {
        self.step(worker, Transition::Resume).await
    }

    /// Stops a worker, for good. If it is already stopped, nothing happens. The messages that it holds are delivered
    /// again when their leases run out.
    ///
    /// # Errors
    /// [`Error::WorkerNotFound`].
    pub async fn stop_worker(&self, worker: WorkerId) -> Result<()> {
        self.step(worker, Transition::Shutdown).await
    }

    async fn step(&self, worker: WorkerId, transition: Transition) -> Result<()> {
        match worker::step(&self.store, worker, transition).await {
            Err(Error::WorkerStopped { worker }) => Err(Error::WorkerNotFound { worker }),
            outcome => outcome,
        }
    }

    /// Removes a worker, whatever its state and whatever it holds or has sent. Its handle then reports it as stopped;
    /// its messages keep its id.
    ///
    /// # Errors
    /// [`Error::WorkerNotFound`].
    pub async fn remove_worker(&self, worker: WorkerId) -> Result<()> {
        let removed = self
            .store
            .run(async |connection| workers::remove(connection, worker).await)
            .await?;
        removed.map(drop).ok_or(Error::WorkerNotFound { worker })
    }

    /// Removes workers that were stopped or have crashed, if their last heartbeat is older than `older_than`. Returns
    /// the number of them.
    pub async fn remove_ended_workers(&self, older_than: Duration) -> Result<u64> {
        self.store
            .run_long(async |connection| workers::remove_ended(connection, older_than).await)
            .await
    }

    /// Returns the messages that a worker holds under leases that have not run out, ordered by when they will.
    ///
    /// Reads all of the queue's messages.
    ///
    /// # Errors
    /// [`Error::WorkerNotFound`].
    pub async fn held_messages(&self, worker: WorkerId) -> Result<Vec<HeldMessage>> {
        let held = self
            .store
            .run(async |connection| workers::held(connection, worker).await)
            .await?;
        held.ok_or(Error::WorkerNotFound { worker })
    }

    /// Makes all messages that a worker holds ready again, without waiting for their leases to run out. Returns the
    /// number of them. For a worker that is known to have crashed: a running one loses its leases.
    ///
    /// Reads all of the queue's messages.
    ///
    /// # Errors
    /// [`Error::WorkerNotFound`].
    pub async fn release(&self, worker: WorkerId) -> Result<u64> {
        let released = self
            .store
            .run_long(async |connection| messages::release_of(connection, worker).await)
            .await?;
        released.ok_or(Error::WorkerNotFound { worker })
    }
}
