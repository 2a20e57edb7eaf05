//! Queues: create, configure, count, delete.

use super::{
    Admin, found,
    rows::{QueueInfo, QueueOptions, QueueStats},
};
use crate::{
    error::{Error, Result},
    pool::STATEMENT_TIMEOUT,
    postgres::{queues, stats},
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

    /// Returns how many messages of a queue are ready, delayed and leased, and how many dead letters it has, in one
    /// snapshot.
    ///
    /// It is cheap on a queue of any size, since it counts only up to 10,000 messages of each priority that are due,
    /// ready and leased ones together, 10,000 that are delayed, and 10,000 dead letters. The messages that are due for
    /// the longest time come first. Beyond that, a count is a lower bound, and prints as `10,000+`: see
    /// [`Count`](crate::Count). `leased` is exact if `ready` is.
    ///
    /// # Errors
    /// [`Error::QueueNotFound`].
    ///
    /// # Source
    /// Ranges of the index `messages_ready`, and of the primary key of `pgqrs.dead_letters`. As each reading of these
    /// indexes, it takes longer while vacuum can't remove the dead rows before the oldest message, which
    /// [`health`](Self::health) shows.
    pub async fn queue_stats(&self, queue: impl IntoQueue) -> Result<QueueStats> {
        let queue = queue.into_name()?;
        let mut counted = self
            .store
            .run(async |connection| stats::count(connection, Some(&queue)).await)
            .await?;
        found(counted.pop(), queue)
    }

    /// Returns [`queue_stats`](Self::queue_stats) of all queues, ordered by name, in one statement and one snapshot.
    ///
    /// At most 10,000 queues are counted. If there are more than 20 of them, fewer messages of each are: 200,000
    /// divided by the number of queues, and at least 100.
    pub async fn all_queue_stats(&self) -> Result<Vec<QueueStats>> {
        self.store
            .run(async |connection| stats::count(connection, None).await)
            .await
    }

    /// The same as [`queue_stats`](Self::queue_stats), with exact counts. It reads all of the queue's messages: about
    /// a second for some millions of them.
    ///
    /// # Errors
    /// [`Error::QueueNotFound`].
    pub async fn exact_queue_stats(&self, queue: impl IntoQueue) -> Result<QueueStats> {
        let queue = queue.into_name()?;
        found(
            self.store
                .run_long(async |connection| stats::count_exactly(connection, &queue).await)
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
