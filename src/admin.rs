//! `admin(&store)`: the schema, queues, workers, messages, dead letters and the archive, for set-up, operators and
//! dashboards. Each call reads the database when it is made, and one that only reports writes nothing.

use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::{
    connect,
    error::{Error, Result},
    lifecycle::{Transition, WorkerId},
    message::{MessageId, Page, Visible},
    pool::STATEMENT_TIMEOUT,
    postgres::{
        archive::{self, ArchivedMessage},
        dead_letters::{self, DeadLetter},
        messages::{self, QueuedMessage},
        queues::{self, QueueInfo, QueueOptions, QueueStats},
        schema::{self, SchemaVersion},
        workers::{self, HeldMessage, WorkerFilter, WorkerInfo},
    },
    queue::{IntoQueue, QueueName},
    store::{AsStore, Store},
    worker,
};

/// Returns the administrative calls of a store.
///
/// # Example
/// ```no_run
/// # async fn example(store: pgqrs::Store) -> pgqrs::Result<()> {
/// let admin = pgqrs::admin(&store);
/// admin.install().await?;
/// admin.create_queue("tasks").await?;
/// println!("{:?}", admin.queue_stats("tasks").await?);
/// # Ok(())
/// # }
/// ```
pub fn admin<S: AsStore + ?Sized>(store: &S) -> Admin {
    Admin {
        store: store.as_store().clone(),
    }
}

/// Administrative calls; made by [`admin`].
///
/// # Errors
/// Each call fails with [`Error::NotInstalled`] if there is no schema, and those that take a queue with
/// [`Error::InvalidQueueName`] and [`Error::QueueNotFound`].
///
/// # Example
/// Requeue dead letters after a bug was fixed:
///
/// ```no_run
/// # async fn example(store: pgqrs::Store) -> pgqrs::Result<()> {
/// use pgqrs::Page;
///
/// let admin = pgqrs::admin(&store);
/// for dead in admin.dead_letters("emails", Page::default()).await? {
///     println!("{}: {}", dead.reason, dead.last_error.as_deref().unwrap_or_default());
///     admin.requeue("emails", dead.id).await?;
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Admin {
    store: Store,
}

impl Admin {
    /// Creates the schema `pgqrs` with its tables, or upgrades it. If it is up to date, nothing happens; if several
    /// processes do this at once, one does it and the others wait.
    ///
    /// An upgrade takes short locks on tables in use. A statement waits two seconds for its lock, since sends and
    /// claims wait behind it meanwhile; then the migration is rolled back and tried again, for 30 seconds.
    ///
    /// A role that only sends or receives needs less than this does: see [`Access`](crate::Access).
    ///
    /// # Errors
    /// [`Error::SchemaNewer`] if a newer version of the crate has upgraded the schema, which is left as it is.
    /// [`Error::Migrate`] if the role may not create a schema, or a migration fails; then that migration is rolled
    /// back. It is retryable if a lock was not obtained in time.
    ///
    /// # Source
    /// [`MIGRATOR`](crate::MIGRATOR): `migrations/`, with their history in `pgqrs._sqlx_migrations`. On a
    /// connection of its own, beside the store's pool.
    pub async fn install(&self) -> Result<()> {
        let to = self.store.pool().connect_options();
        connect::migrate(&to, self.store.acquire_timeout()).await
    }

    /// Returns how the database's schema compares with the one that this build was made for. Changes nothing.
    ///
    /// # Example
    /// ```no_run
    /// # async fn example(store: pgqrs::Store) -> pgqrs::Result<()> {
    /// use pgqrs::SchemaVersion;
    ///
    /// match pgqrs::admin(&store).verify().await? {
    ///     SchemaVersion::UpToDate { .. } => {}
    ///     other => eprintln!("the schema is not what this program was built for: {other:?}"),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn verify(&self) -> Result<SchemaVersion> {
        self.store
            .run(async |connection| schema::version(connection).await)
            .await
    }

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

    /// Returns messages of a queue, ordered by id: ready, delayed and leased ones.
    ///
    /// # Errors
    /// [`Error::QueueNotFound`].
    pub async fn messages(&self, queue: impl IntoQueue, page: Page) -> Result<Vec<QueuedMessage>> {
        let queue = queue.into_name()?;
        let listed = self
            .store
            .run(async |connection| messages::list(connection, &queue, &page).await)
            .await?;
        self.unless_absent(queue, !listed.is_empty(), listed).await
    }

    /// Deletes a message that no consumer holds. Returns `false` if there is no message with that id, or a consumer
    /// holds it: then it may be handled already.
    ///
    /// # Errors
    /// [`Error::QueueNotFound`].
    pub async fn cancel(&self, queue: impl IntoQueue, message: MessageId) -> Result<bool> {
        let queue = queue.into_name()?;
        let cancelled = self
            .store
            .run(async |connection| messages::cancel(connection, &queue, message).await)
            .await?;
        self.unless_absent(queue, cancelled, cancelled).await
    }

    /// Moves a message that no consumer holds to another time; a time in the past means now. Returns `false` if there
    /// is no message with that id, or a consumer holds it.
    ///
    /// # Errors
    /// [`Error::QueueNotFound`].
    pub async fn reschedule(
        &self,
        queue: impl IntoQueue,
        message: MessageId,
        time: DateTime<Utc>,
    ) -> Result<bool> {
        let (queue, visible) = (queue.into_name()?, Visible::At(time));
        let moved = self
            .store
            .run(async |connection| {
                messages::reschedule(connection, &queue, message, visible).await
            })
            .await?;
        self.unless_absent(queue, moved, moved).await
    }

    /// Returns what was found in a queue. If nothing was, checks that the queue exists.
    async fn unless_absent<T>(&self, queue: QueueName, exists: bool, found: T) -> Result<T> {
        if !exists {
            self.queue(queue).await?;
        }
        Ok(found)
    }

    /// Returns dead letters of a queue, ordered by id.
    ///
    /// # Errors
    /// [`Error::QueueNotFound`].
    pub async fn dead_letters(&self, queue: impl IntoQueue, page: Page) -> Result<Vec<DeadLetter>> {
        let queue = queue.into_name()?;
        let listed = self
            .store
            .run(async |connection| dead_letters::list(connection, &queue, &page).await)
            .await?;
        self.unless_absent(queue, !listed.is_empty(), listed).await
    }

    /// Returns the number of dead letters of a queue.
    ///
    /// # Errors
    /// [`Error::QueueNotFound`].
    pub async fn dead_letter_count(&self, queue: impl IntoQueue) -> Result<u64> {
        let queue = queue.into_name()?;
        found(
            self.store
                .run_long(async |connection| dead_letters::count(connection, &queue).await)
                .await?,
            queue,
        )
    }

    /// Puts a dead letter back into its queue: ready, with its id, and with all of its attempts available again.
    /// Returns `false` if there is no dead letter with that id. A message that was handled can't be requeued.
    ///
    /// # Errors
    /// [`Error::QueueNotFound`].
    pub async fn requeue(&self, queue: impl IntoQueue, message: MessageId) -> Result<bool> {
        Ok(self
            .revive(queue.into_name()?, Some(message), Duration::ZERO)
            .await?
            == 1)
    }

    /// Requeues all dead letters that are at least `older_than` old; all of them for `Duration::ZERO`. Returns the
    /// number of them.
    ///
    /// # Errors
    /// [`Error::QueueNotFound`].
    pub async fn requeue_all(&self, queue: impl IntoQueue, older_than: Duration) -> Result<u64> {
        self.revive(queue.into_name()?, None, older_than).await
    }

    async fn revive(
        &self,
        queue: QueueName,
        message: Option<MessageId>,
        age: Duration,
    ) -> Result<u64> {
        let requeued = self
            .store
            .run_long(async |connection| {
                dead_letters::requeue(connection, &queue, message, age).await
            })
            .await?;
        self.store.notifier().wake(&queue);
        found(requeued, queue)
    }

    /// Deletes dead letters that are at least `older_than` old. Returns the number of them.
    ///
    /// # Errors
    /// [`Error::QueueNotFound`].
    pub async fn purge_dead_letters(
        &self,
        queue: impl IntoQueue,
        older_than: Duration,
    ) -> Result<u64> {
        let queue = queue.into_name()?;
        found(
            self.store
                .run_long(async |connection| {
                    dead_letters::purge(connection, &queue, older_than).await
                })
                .await?,
            queue,
        )
    }

    /// Returns archived messages of a queue, ordered by id.
    ///
    /// # Errors
    /// [`Error::QueueNotFound`].
    pub async fn archived(
        &self,
        queue: impl IntoQueue,
        page: Page,
    ) -> Result<Vec<ArchivedMessage>> {
        let queue = queue.into_name()?;
        let listed = self
            .store
            .run(async |connection| archive::list(connection, &queue, &page).await)
            .await?;
        self.unless_absent(queue, !listed.is_empty(), listed).await
    }

    /// Deletes messages that were archived at least `older_than` ago. Returns the number of them.
    ///
    /// # Errors
    /// [`Error::QueueNotFound`].
    pub async fn purge_archive(&self, queue: impl IntoQueue, older_than: Duration) -> Result<u64> {
        let queue = queue.into_name()?;
        found(
            self.store
                .run_long(async |connection| archive::purge(connection, &queue, older_than).await)
                .await?,
            queue,
        )
    }

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

fn found<T>(row: Option<T>, queue: QueueName) -> Result<T> {
    row.ok_or(Error::QueueNotFound { queue })
}
