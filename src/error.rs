//! The one error type of this crate. A variant exists only if a caller would act on it; a mistake that the types rule
//! out has none.

mod chain;
mod no_host;
mod remedy;
mod variants;

use std::{io, sync::Arc, time::Duration};

use self::remedy::{permission_remedy, tls_remedy};
pub(crate) use self::{
    chain::error_chain,
    no_host::{NoHost, Unsuitable},
    remedy::{DISTRIBUTED_REMEDY, GENERAL_REMEDY, qualified},
};
#[cfg(feature = "schedules")]
use crate::cron::InvalidCron;
use crate::{
    headers::InvalidHeader,
    lifecycle::{WorkerId, WorkerKind, WorkerStatus},
    message::MessageId,
    queue::{InvalidQueueName, QueueName},
};

/// The result of every call of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call failed.
///
/// The message says what happened and what to do; [`source`](std::error::Error::source) returns the cause. If a call
/// returns an error, nothing was stored, unless the variant says otherwise. `Debug` prints the message with its
/// sources, for `fn main() -> Result<(), Box<dyn Error>>`; `{:#?}` prints the fields.
///
/// # Example
/// ```no_run
/// # async fn example(store: pgqrs::Store) -> pgqrs::Result<()> {
/// use pgqrs::Error;
///
/// let sent = pgqrs::enqueue().message(&"hello").to("tasks").execute(&store).await;
/// match sent {
///     Ok(ids) => println!("stored as {}", ids[0]),
///     Err(Error::OutcomeUnknown { ids, .. }) => println!("may be stored, as {ids:?}"),
///     Err(error) if error.is_retryable() => println!("not stored; again later: {error}"),
///     Err(error) => return Err(error),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The database has no pgqrs schema.
    #[error(
        "pgqrs is not installed in this database; call `pgqrs::admin(&store).install()`, or connect with `ConnectOptions::builder().install(true)`"
    )]
    NotInstalled,

    /// The database's schema is older than this version of the crate.
    #[error(
        "the pgqrs schema of this database is older than this version of the crate; call `pgqrs::admin(&store).install()`"
    )]
    SchemaOutdated,

    /// The database's schema is newer than this version of the crate, so [`install`](crate::Admin::install) leaves it
    /// unchanged.
    #[error(
        "the pgqrs schema of this database is version {installed}, and this version of the crate knows up to {compiled}; upgrade the crate"
    )]
    SchemaNewer {
        /// The version in the database.
        installed: i64,
        /// The newest version that this build of the crate knows.
        compiled: i64,
    },

    /// Citus manages tables of the schema: they were distributed, made reference tables, or added to its metadata. It
    /// refuses most of this crate's statements on them. [`install`](crate::Admin::install) changes nothing.
    #[error(
        "Citus manages {}, and refuses most statements of pgqrs there; {}",
        qualified(tables),
        DISTRIBUTED_REMEDY
    )]
    SchemaDistributed {
        /// The tables, without the schema's name.
        tables: Vec<String>,
    },

    /// A migration failed or doesn't match what was applied before.
    #[error("the pgqrs schema could not be migrated")]
    Migrate(#[source] Arc<sqlx::migrate::MigrateError>),

    /// The role that is connected lacks a privilege. Nothing was changed.
    #[error("{}", permission_remedy(role.as_deref(), object))]
    PermissionDenied {
        /// The role that the store connects as; `None` on a connection of the caller's own.
        role: Option<String>,
        /// The object that the privilege is missing on, such as `schema pgqrs` or `pgqrs.messages`.
        object: String,
        /// PostgreSQL's error.
        source: Arc<sqlx::Error>,
    },

    /// There is no queue of that name.
    #[error(
        "queue `{queue}` does not exist; create it with `pgqrs::admin(&store).create_queue(\"{queue}\")`"
    )]
    QueueNotFound {
        /// The name that was asked for.
        queue: QueueName,
    },

    /// The queue accepts no messages: it was closed.
    #[error("queue `{queue}` is closed; `admin(&store).reopen_queue(\"{queue}\")` reopens it")]
    QueueClosed {
        /// The queue that the messages were sent to.
        queue: QueueName,
    },

    /// There is a queue of that name already.
    #[error("queue `{queue}` exists already; `store.queue(\"{queue}\")` returns it")]
    QueueExists {
        /// The name that is taken.
        queue: QueueName,
    },

    /// A queue that holds messages can't be deleted.
    #[error(
        "queue `{queue}` still holds {messages} messages; empty it with `pgqrs::admin(&store).purge_queue(\"{queue}\")` first"
    )]
    QueueNotEmpty {
        /// The queue that was to be deleted.
        queue: QueueName,
        /// How many messages it holds: ready, delayed and leased.
        messages: u64,
    },

    /// A worker of this kind, host, port and queue is running.
    #[error(
        "a {kind} `{hostname}:{port}` for queue `{queue}` is registered already: its last heartbeat was {last_heartbeat:?} ago, and it counts as crashed after {crashed_after:?}; wait for that, replace it with `.replace(true)`, or choose another port"
    )]
    WorkerExists {
        /// Its kind.
        kind: WorkerKind,
        /// Its host.
        hostname: String,
        /// Its port.
        port: u16,
        /// Its queue.
        queue: QueueName,
        /// How long ago its last heartbeat was, by the database's clock.
        last_heartbeat: Duration,
        /// How long after its last heartbeat it counts as crashed, and its identity is free.
        crashed_after: Duration,
    },

    /// There is no such worker.
    #[error("there is no worker {worker}")]
    WorkerNotFound {
        /// The id that was asked for.
        worker: WorkerId,
    },

    /// The worker is suspended, so its enqueues and dequeues are refused.
    #[error(
        "worker {worker} is suspended; resume it with `.resume()` or `pgqrs::admin(&store).resume_worker({worker})`"
    )]
    WorkerSuspended {
        /// The worker.
        worker: WorkerId,
    },

    /// The worker was stopped, removed, or taken over by another after it had missed its heartbeats.
    #[error("worker {worker} has stopped, or was replaced by another; register a new one")]
    WorkerStopped {
        /// The worker.
        worker: WorkerId,
    },

    /// The worker can't make this transition from its current state.
    #[error("worker {worker} is {from} and can't become {to}")]
    InvalidTransition {
        /// The worker.
        worker: WorkerId,
        /// Its current state.
        from: WorkerStatus,
        /// The state that was asked for.
        to: WorkerStatus,
    },

    /// A worker's host name is invalid.
    #[error(
        "{hostname:?} can't be a worker's host: it has 1 to 255 bytes and no control characters"
    )]
    InvalidHostname {
        /// The string that was refused.
        hostname: String,
    },

    /// A queue's name is invalid.
    #[error(transparent)]
    InvalidQueueName(#[from] InvalidQueueName),

    /// A header's name or value is invalid, or an enqueue's headers are too large together.
    #[error(transparent)]
    InvalidHeader(#[from] InvalidHeader),

    /// A message's key can't be stored.
    #[error("the key of message {index} {problem}")]
    InvalidKey {
        /// Its place in the batch, from 0.
        index: usize,
        /// What is wrong with it.
        problem: &'static str,
    },

    /// The key of a message can't be computed, since its payload isn't one of the queue's type.
    #[error(
        "the key of payload {index} can't be computed: the payload, as it was serialised, doesn't decode as the type of its queue"
    )]
    Unkeyed {
        /// Its place in the batch, from 0.
        index: usize,
        /// The error of `serde_json`.
        source: Arc<serde_json::Error>,
    },

    /// Another transaction holds a key or a group of the messages: it has sent a message with the same one, and is still open. Nothing
    /// was stored. In the caller's own transaction this aborts it, as [`Error::aborted_transaction`] says.
    #[error(
        "nothing was stored: another open transaction has sent a message with the same key or group to queue `{queue}`, and was waited for in vain; try again once it has ended"
    )]
    KeyHeld {
        /// The queue.
        queue: QueueName,
    },

    /// The queue takes no messages of groups: it has no `groups` in its options. Nothing was stored.
    #[error(
        "queue `{queue}` takes no messages of groups; `pgqrs::admin(&store).configure_queue(\"{queue}\", QueueOptions::builder().groups(Groups::default()).build())` has it take them"
    )]
    GroupsNotEnabled {
        /// The queue that the messages were sent to.
        queue: QueueName,
    },

    /// A cron expression is invalid, or never fires.
    #[cfg(feature = "schedules")]
    #[error(transparent)]
    InvalidCron(#[from] InvalidCron),

    /// There is no schedule of that name.
    #[cfg(feature = "schedules")]
    #[error(
        "there is no schedule {schedule:?}; `pgqrs::admin(&store).schedules()` lists those that there are"
    )]
    ScheduleNotFound {
        /// The name that was asked for.
        schedule: String,
    },

    /// There is a schedule of that name that belongs to another owner. Nothing was changed.
    #[cfg(feature = "schedules")]
    #[error(
        "schedule {schedule:?} belongs to {}; choose another name, or delete that one with `pgqrs::admin(&store).delete_schedule({schedule:?})`",
        owner.as_ref().map_or("no owner".to_owned(), |owner| format!("{owner:?}"))
    )]
    ScheduleTaken {
        /// The name that is taken.
        schedule: String,
        /// The owner that it belongs to.
        owner: Option<String>,
    },

    /// A setting is out of its range.
    #[error("`{setting}` is {value}, and must be {expected}")]
    InvalidSetting {
        /// Its name.
        setting: &'static str,
        /// What it was set to.
        value: String,
        /// The allowed values.
        expected: &'static str,
    },

    /// A payload can't be written as JSON.
    #[error("payload {index} can't be serialised as JSON")]
    Serialize {
        /// Its place in the batch, from 0.
        index: usize,
        /// The error of `serde_json`.
        source: Arc<serde_json::Error>,
    },

    /// A payload takes more bytes as JSON than the store accepts.
    #[error(
        "payload {index} has {bytes} bytes, over the limit of {limit}; store it elsewhere and enqueue a reference, or raise `ConnectOptions::payload_limit`"
    )]
    PayloadTooLarge {
        /// Its place in the batch, from 0.
        index: usize,
        /// Its size as JSON, in bytes.
        bytes: usize,
        /// The maximum size, in bytes.
        limit: usize,
    },

    /// A payload is nested more deeply than JSON parsers, `serde_json` among them, read back.
    #[error(
        "payload {index} is nested more than {limit} levels deep, so that no consumer could read it; flatten it"
    )]
    PayloadTooDeep {
        /// Its place in the batch, from 0.
        index: usize,
        /// The deepest nesting that is accepted.
        limit: usize,
    },

    /// A payload doesn't have the shape of the type that the queue is read as.
    #[error("the payload of message {message} doesn't decode; the delivery can still be settled")]
    Decode {
        /// The message.
        message: MessageId,
        /// The error of `serde_json`.
        source: Arc<serde_json::Error>,
    },

    /// A delay is longer than PostgreSQL's `timestamptz` can hold.
    #[error("a delay of {delay:?} is beyond the longest one, {limit:?}")]
    DelayTooLong {
        /// The delay that was asked for.
        delay: Duration,
        /// The longest one.
        limit: Duration,
    },

    /// A dequeue's limit is zero, or more than one statement should claim.
    #[error("a dequeue takes 1 to {max} messages, not {limit}")]
    LimitOutOfRange {
        /// The limit that was asked for.
        limit: u32,
        /// The highest one.
        max: u32,
    },

    /// A lease is so short that it runs out at once, or so long that it would hide a crashed consumer's messages for
    /// too long.
    #[error(
        "a lease lasts between {min:?} and {max:?}, not {lease:?}; extend it if the work takes longer"
    )]
    LeaseOutOfRange {
        /// The lease that was asked for.
        lease: Duration,
        /// The shortest one.
        min: Duration,
        /// The longest one.
        max: Duration,
    },

    /// The delivery no longer holds its message, so nothing was changed. Either the lease ran out and the
    /// message was or will be delivered again, or the message is gone: settled elsewhere, or purged.
    #[error(
        "the lease of message {message} was lost: it ran out, or the message is gone; nothing was changed"
    )]
    LeaseLost {
        /// The message.
        message: MessageId,
    },

    /// All of the pool's connections were in use, or no new one could be opened, for
    /// [`ConnectOptions::acquire_timeout`](crate::ConnectOptions).
    #[error(
        "no connection to PostgreSQL was available within {after:?}; check that the server runs and can be reached, or, if all connections are in use, raise `max_connections` or `acquire_timeout`"
    )]
    AcquireTimeout {
        /// How long the call waited.
        after: Duration,
    },

    /// The store's pool was closed.
    #[error("the store is closed; connect again")]
    Closed,

    /// The server was not reached, or it refused the login.
    #[error("can't connect to PostgreSQL; {}", connect_remedy(.0))]
    Connect(#[source] Arc<sqlx::Error>),

    /// The connection broke during the call. A statement whose result was lost may or may not have taken effect.
    #[error(
        "the connection to PostgreSQL broke; it is not known whether the statement took effect"
    )]
    ConnectionLost(#[source] Arc<sqlx::Error>),

    /// A send was retried for [`ConnectOptions::retry_for`](crate::ConnectOptions) without success. Nothing was stored,
    /// and nothing will be.
    #[error(
        "nothing was stored: every attempt failed, for {after:?}; check that the server runs, or raise `ConnectOptions::retry_for` if it takes longer to restart"
    )]
    NotStored {
        /// How long it was retried.
        after: Duration,
        /// Why the last try failed.
        source: Box<Error>,
    },

    /// The time for a send ran out before its outcome was known: the messages are stored, each once, or they are not,
    /// and will not be.
    #[error(
        "it is not known whether {} messages were stored: the server could not be queried in time; look for their ids, or raise `ConnectOptions::retry_for`",
        ids.len()
    )]
    OutcomeUnknown {
        /// The ids that the messages have if they are stored, in their order.
        ids: Vec<MessageId>,
        /// Why the outcome could not be found out.
        source: Box<Error>,
    },

    /// PostgreSQL refused the statement for a reason that has no variant of its own.
    #[error("PostgreSQL refused the statement")]
    Database(#[source] Arc<sqlx::Error>),
}

impl Error {
    /// The error if none of the hosts of a URL can be taken.
    pub(crate) fn of_hosts(none: NoHost) -> Self {
        let is_transient = none.reasons().any(|reason| match reason {
            Unsuitable::Failed(error) => Self::Connect(Arc::clone(error)).is_retryable(),
            _ => true,
        });
        let kind = if is_transient {
            io::ErrorKind::NotConnected
        } else {
            io::ErrorKind::InvalidInput
        };
        let error = io::Error::new(kind, none);
        Self::Connect(Arc::new(sqlx::Error::Io(error)))
    }

    /// Why none of the hosts of a URL was taken, if that is the reason.
    pub(crate) fn no_host(&self) -> Option<&NoHost> {
        match self {
            Self::Connect(source) => match &**source {
                sqlx::Error::Io(error) => NoHost::of(error),
                _ => None,
            },
            _ => None,
        }
    }

    /// Names the role of the connection that the error came from.
    pub(crate) fn of_role(mut self, name: impl FnOnce() -> String) -> Self {
        if let Self::PermissionDenied { role, .. } = &mut self {
            role.get_or_insert_with(name);
        }
        self
    }
}

/// The remedy for a connection that could not be made.
fn connect_remedy(error: &sqlx::Error) -> &'static str {
    match error {
        sqlx::Error::Database(refusal) => Error::login_remedy(refusal.as_ref()),
        sqlx::Error::Tls(error) => tls_remedy(&error.to_string()),
        sqlx::Error::Io(error) if let Some(none) = NoHost::of(error) => hosts_remedy(none),
        sqlx::Error::Io(error) => match error.kind() {
            // rustls reports certificates that it doesn't accept as such.
            io::ErrorKind::InvalidData => tls_remedy(&error.to_string()),
            io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => {
                "a file that the URL names can't be read: check the paths of `sslrootcert`, `sslcert` and `sslkey`, or the folder of the server's socket"
            }
            _ => GENERAL_REMEDY,
        },
        _ => GENERAL_REMEDY,
    }
}

/// The remedy if none of the hosts of a URL can be taken: that for the first with a special one.
fn hosts_remedy(none: &NoHost) -> &'static str {
    let mut remedies = none.reasons().map(|reason| match reason {
        Unsuitable::Failed(error) => connect_remedy(error),
        _ => GENERAL_REMEDY,
    });
    match remedies.find(|remedy| *remedy != GENERAL_REMEDY) {
        Some(remedy) => remedy,
        None if none.reasons().any(Unsuitable::has_answered) => {
            "none of the URL's hosts accepts writes: promote a standby, or add the primary to the URL"
        }
        None => "check the URL, and that one of its hosts runs and accepts connections",
    }
}

#[cfg(test)]
mod tests;
