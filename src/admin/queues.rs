//! Queues: create, configure, count, delete.

use super::{
    Admin, found,
    rows::{QueueInfo, QueueOptions, QueueStats},
};
use crate::{
    error::{Error, Result},
    pool::STATEMENT_TIMEOUT,
    postgres::queues,
    queue::IntoQueue,
};

impl Admin {
    /// Creates a queue, and returns its settings.
    ///
    /// # Errors
    /// [`Error::QueueExists`]; to create a queue only if it doesn't exist, see [`Store::queue`](crate::Store::queue).
    pub async fn create_queue(&self, queue: impl IntoQueue) -> Result<QueueInfo> {
        let queue = queue.into_name()?;
        let created = self
            .store
            .run(async |connection| queues::create(connection, &queue).await)
            .await?;
        created.ok_or(Error::QueueExists { queue })
    }

    /// Returns a queue and its settings.
    ///
    /// # Errors
    /// [`Error::QueueNotFound`].
    pub async fn queue(&self, queue: impl IntoQueue) -> Result<QueueInfo> {
        let queue = queue.into_name()?;
        found(
            self.store
                .run(async |connection| queues::find(connection, &queue).await)
                .await?,
            queue,
        )
    }

    /// Returns all queues, ordered by name.
    pub async fn queues(&self) -> Result<Vec<QueueInfo>> {
        self.store
            .run(async |connection| queues::list(connection).await)
            .await
    }

    /// Deletes an empty queue.
    ///
    /// No message is lost: it waits for enqueues in progress, and blocks new ones, of all queues, while it checks. It
    /// fails with a retryable [`Error::Database`] if a transaction that has enqueued stays open for more than two
    /// seconds. The queue's workers, dead letters and archive are removed with it.
    ///
    /// # Errors
    /// [`Error::QueueNotEmpty`] with the number of messages; [`Error::QueueNotFound`].
    ///
    /// # Source
    /// `lock table pgqrs.messages in share row exclusive mode`, then a guarded `delete`.
    pub async fn delete_queue(&self, queue: impl IntoQueue) -> Result<()> {
        let queue = queue.into_name()?;
        let messages = self
            .store
            .run_long(async |connection| {
                queues::delete(connection, &queue, STATEMENT_TIMEOUT).await
            })
            .await?;
        match messages {
            Some(0) => Ok(()),
            Some(messages) => Err(Error::QueueNotEmpty { queue, messages }),
            None => Err(Error::QueueNotFound { queue }),
        }
    }

    /// Deletes all messages of a queue: ready, delayed, and leased ones too, whose consumers then get
    /// [`Error::LeaseLost`]. Returns the number of messages.
    ///
    /// # Errors
    /// [`Error::QueueNotFound`].
    pub async fn purge_queue(&self, queue: impl IntoQueue) -> Result<u64> {
        let queue = queue.into_name()?;
        found(
            self.store
                .run_long(async |connection| queues::purge(connection, &queue).await)
                .await?,
            queue,
        )
    }

    /// Returns how many messages of a queue are ready, delayed and leased, in one snapshot.
    ///
    /// The counts are exact, so it reads all of the queue's messages: about a second for some millions of them.
    ///
    /// # Errors
    /// [`Error::QueueNotFound`].
    pub async fn queue_stats(&self, queue: impl IntoQueue) -> Result<QueueStats> {
        let queue = queue.into_name()?;
        found(
            self.store
                .run_long(async |connection| queues::stats(connection, &queue).await)
                .await?,
            queue,
        )
    }

    /// Changes the settings of a queue that are set in `options`, and returns all of them.
    ///
    /// # Errors
    /// [`Error::QueueNotFound`]; [`Error::InvalidSetting`] for `max_attempts(0)`.
    pub async fn configure_queue(
        &self,
        queue: impl IntoQueue,
        options: QueueOptions,
    ) -> Result<QueueInfo> {
        let queue = queue.into_name()?;
        options.check()?;
        found(
            self.store
                .run(async |connection| queues::configure(connection, &queue, options).await)
                .await?,
            queue,
        )
    }
}
