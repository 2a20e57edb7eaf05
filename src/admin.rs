//! `admin(&store)`: the schema, health, queues, workers, messages, dead letters and the archive, for set-up, operators
//! and dashboards. Each call reads the database, without a cache, and one that only reports writes nothing.

mod archive;
pub(crate) mod cancel;
mod dead_letters;
mod groups;
mod health;
mod messages;
mod queues;
pub(crate) mod rows;
#[cfg(feature = "schedules")]
mod schedules;
pub(crate) mod search;
pub(crate) mod watch;
mod workers;

use self::rows::{Fillfactor, SchemaVersion};
use crate::{
    connect,
    error::{Error, Result},
    postgres::schema,
    queue::QueueName,
    store::{AsStore, Store},
};

/// Returns the administrative calls of a store.
///
/// # Example
/// ```no_run
/// # async fn example(store: pgqrs::Store) -> pgqrs::Result<()> {
/// let admin = pgqrs::admin(&store);
/// admin.install().await?;
/// admin.create_queue("tasks").await?;
/// println!("{} are ready", admin.queue_stats("tasks").await?.ready);
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
    /// An upgrade takes short locks on tables in use. Sends and claims wait behind a statement that waits for its lock,
    /// so it waits for two seconds only; then the migration is rolled back and tried again, for 30 seconds.
    ///
    /// A role that only sends or receives needs fewer privileges than this call: see [`Access`](crate::Access).
    ///
    /// # Errors
    /// [`Error::SchemaNewer`] if a newer version of the crate has upgraded the schema, which is left as it is.
    /// [`Error::SchemaDistributed`] if Citus manages tables of the schema.
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

    /// Sets how far inserts fill the pages of `pgqrs.messages`, those of all queues. The less, the more claims find room
    /// on their message's page, and write neither index entries nor a second page; the more, the less disk and memory a
    /// backlog takes: with payloads of 200 bytes, a million of them take 755 MB at 50 % and 400 MB at 100 %, at which
    /// draining has two thirds of the speed.
    ///
    /// It holds for pages that are filled from now on. Sends and claims go on meanwhile.
    ///
    /// # Errors
    /// [`Error::Database`] if the role doesn't own the table.
    ///
    /// # Example
    /// Backlogs of messages that are delayed by days, and few claims of many messages:
    ///
    /// ```no_run
    /// # async fn example(store: pgqrs::Store) -> pgqrs::Result<()> {
    /// use pgqrs::Fillfactor;
    ///
    /// pgqrs::admin(&store).set_fillfactor(Fillfactor::Percent80).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Source
    /// `alter table … set (fillfactor = …)`, under PostgreSQL's lock `SHARE UPDATE EXCLUSIVE`.
    pub async fn set_fillfactor(&self, fillfactor: Fillfactor) -> Result<()> {
        self.store
            .run(async |connection| schema::set_fillfactor(connection, fillfactor).await)
            .await
    }

    /// Returns what was found in a queue. If nothing was, checks that the queue exists.
    async fn unless_absent<T>(&self, queue: QueueName, exists: bool, found: T) -> Result<T> {
        if !exists {
            self.queue(queue).await?;
        }
        Ok(found)
    }
}

fn found<T>(row: Option<T>, queue: QueueName) -> Result<T> {
    row.ok_or(Error::QueueNotFound { queue })
}
