//! Queues: create, configure, count, delete.

use chrono::{DateTime, Utc};

use super::{
    Admin, found,
    rows::{QueueInfo, QueueOptions, QueueStats},
};
use crate::{
    delivery::lease::check_lease,
    error::{Error, Result},
    pool::STATEMENT_TIMEOUT,
    postgres::{
        queues::{self, Pause},
        stats,
    },
    queue::{IntoQueue, QueueName},
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
            .run(async |connection| {
                if !queues::create(connection, &queue).await? {
                    return Ok(None);
                }
                queues::find(connection, &queue).await
            })
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

    /// Returns how many messages of a queue are ready, delayed, parked and leased, and how many dead letters it has, in one
    /// snapshot.
    ///
    /// It is cheap on a queue of any size, since it counts only up to 10,000 messages of each priority that are due,
    /// ready and leased ones together, 10,000 that are delayed, 10,000 that are parked, and 10,000 dead letters. The messages that are due for
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

    /// Changes the settings of a queue that are set in `options`, and returns all of them. Running consumers apply them
    /// from their next claim on; messages that they hold already keep the lease, and are settled, as before.
    ///
    /// # Errors
    /// [`Error::QueueNotFound`]; [`Error::InvalidSetting`] for `max_attempts(0)`, or a `retry_max` that is shorter than
    /// `retry_min`; [`Error::LeaseOutOfRange`].
    pub async fn configure_queue(
        &self,
        queue: impl IntoQueue,
        options: QueueOptions,
    ) -> Result<QueueInfo> {
        let queue = queue.into_name()?;
        options.check()?;
        if let Some(lease) = options.lease.flatten() {
            check_lease(lease)?;
        }
        let configured = self
            .store
            .run(async |connection| {
                if !queues::configure(connection, &queue, &options).await? {
                    return Ok(None);
                }
                queues::find(connection, &queue).await
            })
            .await;
        found(configured.map_err(|error| options.explain(error))?, queue)
    }

    /// Pauses a queue: no consumer and no [`dequeue`](crate::dequeue()), in any process, claims a message of it until
    /// it is [resumed](Self::resume_queue). Sends go on. If it is already paused, it now is until it is resumed.
    ///
    /// Messages that consumers hold already are worked off, also those that they have prefetched; a claim that has
    /// begun before may still return messages.
    ///
    /// # Errors
    /// [`Error::QueueNotFound`].
    ///
    /// # Source
    /// `update pgqrs.queues set paused_until = 'infinity'`; a claim reads the queue's row.
    ///
    /// # Example
    /// ```no_run
    /// # async fn example(store: pgqrs::Store) -> pgqrs::Result<()> {
    /// let admin = pgqrs::admin(&store);
    /// admin.pause_queue("emails").await?;
    /// // The mail server is being replaced.
    /// admin.resume_queue("emails").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn pause_queue(&self, queue: impl IntoQueue) -> Result<()> {
        self.pause(queue.into_name()?, Pause::UntilResumed).await
    }

    /// Pauses a queue, as [`pause_queue`](Self::pause_queue) does, until a time by the database's clock. A time in the
    /// past resumes it. Consumers notice the end of the pause at their next poll.
    ///
    /// # Errors
    /// [`Error::QueueNotFound`].
    pub async fn pause_until(&self, queue: impl IntoQueue, time: DateTime<Utc>) -> Result<()> {
        self.pause(queue.into_name()?, Pause::Until(time)).await
    }

    /// Resumes a paused queue, and wakes its consumers. If it isn't paused, nothing happens.
    ///
    /// # Errors
    /// [`Error::QueueNotFound`].
    pub async fn resume_queue(&self, queue: impl IntoQueue) -> Result<()> {
        let queue = queue.into_name()?;
        self.pause(queue.clone(), Pause::Resumed).await?;
        self.store.wake(queue)
    }

    async fn pause(&self, queue: QueueName, pause: Pause) -> Result<()> {
        let is_found = self
            .store
            .run(async |connection| queues::pause(connection, &queue, pause).await)
            .await?;
        found(is_found.then_some(()), queue)
    }

    /// Closes a queue: sends to it are refused with [`Error::QueueClosed`], in each process and on each way, and the
    /// messages that it holds are worked off. If it is already closed, nothing happens.
    ///
    /// A send that has begun before may still be stored, as is what a transaction has sent that commits later. Dead
    /// letters can be requeued, and failed messages are retried.
    ///
    /// # Errors
    /// [`Error::QueueNotFound`].
    ///
    /// # Source
    /// `update pgqrs.queues set closed_at = …`; a send finds only queues with `closed_at is null`.
    ///
    /// # Example
    /// ```no_run
    /// # async fn example(store: pgqrs::Store) -> pgqrs::Result<()> {
    /// use pgqrs::Error;
    ///
    /// let admin = pgqrs::admin(&store);
    /// admin.close_queue("emails").await?;
    /// let refused = pgqrs::enqueue().message(&"hello").to("emails").execute(&store).await;
    /// assert!(matches!(refused, Err(Error::QueueClosed { .. })));
    /// println!("{} are left", admin.queue_stats("emails").await?.total());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn close_queue(&self, queue: impl IntoQueue) -> Result<()> {
        self.close(queue.into_name()?, true).await
    }

    /// Reopens a closed queue: sends are accepted again. If it isn't closed, nothing happens.
    ///
    /// # Errors
    /// [`Error::QueueNotFound`].
    pub async fn reopen_queue(&self, queue: impl IntoQueue) -> Result<()> {
        self.close(queue.into_name()?, false).await
    }

    async fn close(&self, queue: QueueName, close: bool) -> Result<()> {
        let is_found = self
            .store
            .run(async |connection| queues::close(connection, &queue, close).await)
            .await?;
        found(is_found.then_some(()), queue)
    }
}
