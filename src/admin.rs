//! `admin(&store)`: the schema and the queues. For set-up, operators and dashboards. What it reports it
//! reads at that moment and writes nothing for it.

use crate::{
    error::{Error, Result},
    postgres::{
        queues::{self, QueueInfo, QueueStats},
        schema::{self, SchemaVersion},
    },
    queue::{IntoQueue, QueueName},
    store::{Acquire, Store},
};

/// Starts an administrative call.
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
pub fn admin(store: &Store) -> Admin {
    Admin {
        store: store.clone(),
    }
}

/// Administrative calls; made by [`admin`].
///
/// Each of them fails with [`Error::NotInstalled`] where there is no schema, and those that take a queue
/// with [`Error::InvalidQueueName`].
#[derive(Debug, Clone)]
pub struct Admin {
    store: Store,
}

impl Admin {
    /// Creates the schema `pgqrs` with its tables, or upgrades it. Where it is up to date, nothing
    /// happens; where several processes do this at once, one does it and the others wait.
    ///
    /// # Errors
    /// [`Error::SchemaNewer`] where a newer version of the crate has been here: it is left as it is.
    /// [`Error::Migrate`] where the role may not create a schema, or a migration fails; then nothing of
    /// that migration stays.
    ///
    /// # Source
    /// [`MIGRATOR`](crate::MIGRATOR): `migrations/`, with their history in `pgqrs._sqlx_migrations`. On a
    /// connection of its own, beside the store's pool.
    pub async fn install(&self) -> Result<()> {
        schema::migrate(&self.store.pool().connect_options()).await
    }

    /// Compares the database's schema with the one that this build was made for. Changes nothing.
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
        schema::version(&mut *self.store.acquire().await?).await
    }

    /// Creates a queue.
    ///
    /// # Errors
    /// [`Error::QueueExists`]; to get a queue whether or not it exists, see
    /// [`Store::queue`](crate::Store::queue).
    pub async fn create_queue(&self, queue: impl IntoQueue) -> Result<QueueInfo> {
        let queue = queue.into_name()?;
        let created = queues::create(&mut *self.store.acquire().await?, &queue).await?;
        created.ok_or(Error::QueueExists { queue })
    }

    /// A queue and its settings.
    ///
    /// # Errors
    /// [`Error::QueueNotFound`].
    pub async fn queue(&self, queue: impl IntoQueue) -> Result<QueueInfo> {
        let queue = queue.into_name()?;
        found(
            queues::find(&mut *self.store.acquire().await?, &queue).await?,
            queue,
        )
    }

    /// All queues, by name.
    pub async fn queues(&self) -> Result<Vec<QueueInfo>> {
        queues::list(&mut *self.store.acquire().await?).await
    }

    /// Deletes an empty queue.
    ///
    /// No message gets lost to it: it waits for enqueues that are under way, and holds up new ones, of
    /// all queues, while it looks. It gives up with a retryable [`Error::Database`] where a transaction
    /// that has enqueued stays open for more than two seconds.
    ///
    /// # Errors
    /// [`Error::QueueNotEmpty`] with the number of messages; [`Error::QueueNotFound`].
    ///
    /// # Source
    /// `lock table pgqrs.messages in share row exclusive mode`, then a guarded `delete`.
    pub async fn delete_queue(&self, queue: impl IntoQueue) -> Result<()> {
        let queue = queue.into_name()?;
        let mut transaction = self.store.begin().await?;
        queues::hold_enqueues(&mut transaction).await?;
        let messages = queues::delete(&mut transaction, &queue).await?;
        transaction.commit().await?;
        match messages {
            Some(0) => Ok(()),
            Some(messages) => Err(Error::QueueNotEmpty { queue, messages }),
            None => Err(Error::QueueNotFound { queue }),
        }
    }

    /// Deletes all messages of a queue: ready, delayed, and leased ones too, whose consumers then find
    /// their lease lost. Gives the number of them.
    ///
    /// # Errors
    /// [`Error::QueueNotFound`].
    pub async fn purge_queue(&self, queue: impl IntoQueue) -> Result<u64> {
        let queue = queue.into_name()?;
        found(
            queues::purge(&mut *self.store.acquire().await?, &queue).await?,
            queue,
        )
    }

    /// Counts what a queue holds, in one snapshot.
    ///
    /// Exact, so it reads all of the queue's messages: about a second for some millions of them.
    ///
    /// # Errors
    /// [`Error::QueueNotFound`].
    pub async fn queue_stats(&self, queue: impl IntoQueue) -> Result<QueueStats> {
        let queue = queue.into_name()?;
        found(
            queues::stats(&mut *self.store.acquire().await?, &queue).await?,
            queue,
        )
    }
}

fn found<T>(row: Option<T>, queue: QueueName) -> Result<T> {
    row.ok_or(Error::QueueNotFound { queue })
}
