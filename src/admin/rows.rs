//! What administrative calls return and take: the schema's version, queues, messages, dead letters, the archive and
//! workers.

mod debug;
#[cfg(feature = "schedules")]
pub(crate) mod firings;
pub(crate) mod groups;
mod options;
pub(crate) mod rate;
#[cfg(feature = "schedules")]
pub(crate) mod schedules;
pub(crate) mod search;

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;
use typed_builder::TypedBuilder;

use self::{groups::Groups, rate::Rate};
use crate::{
    count::Count,
    headers::Headers,
    lifecycle::{WorkerId, WorkerKind, WorkerStatus},
    message::{MessageId, Priority},
    queue::QueueName,
};

/// How the database's schema compares with the one that this build of the crate requires.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub enum SchemaVersion {
    /// The schema isn't installed.
    NotInstalled,
    /// [`install`](crate::Admin::install) would upgrade it.
    Older {
        /// The version in the database.
        installed: i64,
        /// The version of this build.
        compiled: i64,
    },
    /// The versions are equal.
    UpToDate {
        /// The version in the database and of this build.
        installed: i64,
        /// Whether the database is on a node of Citus. The tables of queues are local to it.
        on_citus: bool,
    },
    /// A newer version of the crate has upgraded it.
    Newer {
        /// The version in the database.
        installed: i64,
        /// The version of this build.
        compiled: i64,
    },
    /// Citus manages tables of the schema, whatever its version: they were distributed, made reference tables, or added to
    /// its metadata. Citus refuses most of this crate's statements on them.
    /// [`Error::SchemaDistributed`](crate::Error::SchemaDistributed) has the remedy.
    Distributed {
        /// The version in the database.
        installed: i64,
        /// Their names, without the schema's.
        tables: Vec<String>,
    },
}

/// How far inserts fill the pages of `pgqrs.messages`, in percent; see
/// [`set_fillfactor`](crate::Admin::set_fillfactor).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Fillfactor {
    /// Half of each page is free: the default.
    #[default]
    Percent50,
    /// 60 %.
    Percent60,
    /// 70 %.
    Percent70,
    /// 80 %.
    Percent80,
    /// 90 %.
    Percent90,
    /// Pages are filled: PostgreSQL's own default.
    Percent100,
}

/// A queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct QueueInfo {
    /// Its name.
    pub name: QueueName,
    /// How often a message is delivered before it becomes a dead letter.
    pub max_attempts: u32,
    /// How long its messages are leased; `None` if their consumers decide.
    pub lease: Option<Duration>,
    /// How long a message waits after its first attempt failed; `None` if consumers decide.
    pub retry_min: Option<Duration>,
    /// How long a message waits after a failed attempt, at most; `None` if consumers decide.
    pub retry_max: Option<Duration>,
    /// Whether acknowledged messages are archived.
    pub archive_on_ack: bool,
    /// Whether the operators' page and the command hide its payloads.
    pub sensitive: bool,
    /// How long archived messages are kept; `None` is for ever.
    pub archive_for: Option<Duration>,
    /// How long dead letters are kept; `None` is for ever.
    pub dead_letters_for: Option<Duration>,
    /// How messages of groups are handled; `None` if it takes none.
    pub groups: Option<Groups>,
    /// How many of its messages are leased at a time, by all consumers together; `None` if there is no limit.
    pub max_running: Option<u32>,
    /// How many attempts start within a time, by all consumers together; `None` if there is no limit.
    pub rate: Option<Rate>,
    /// Whether it is paused now, by the database's clock: nothing is claimed.
    pub is_paused: bool,
    /// When the pause ends; `None` if it isn't paused, or paused until it is resumed.
    pub paused_until: Option<DateTime<Utc>>,
    /// Until when nothing is claimed since a handler has [slowed it down](crate::Outcome::SlowDown), by the database's clock.
    pub slowed_until: Option<DateTime<Utc>>,
    /// Since when it refuses sends, by the database's clock; `None` if it accepts them.
    pub closed_at: Option<DateTime<Utc>>,
    /// When it was created, by the database's clock.
    pub created_at: DateTime<Utc>,
}

/// Counts of a queue's messages, in one snapshot. Each message is in just one of them.
///
/// As [`queue_stats`](crate::Admin::queue_stats) returns it, each count stops at a limit; see there. As
/// [`exact_queue_stats`](crate::Admin::exact_queue_stats) returns it, each is exact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct QueueStats {
    /// The queue.
    pub queue: QueueName,
    /// Messages that the next dequeue can get.
    pub ready: Count,
    /// Messages that aren't visible yet: delayed, scheduled, or waiting for a retry.
    pub delayed: Count,
    /// Messages that are parked behind others of their [groups](crate::Enqueue::group).
    pub parked: Count,
    /// Messages that a consumer holds and whose lease still runs.
    pub leased: Count,
    /// Dead letters, which aren't in the queue any more.
    pub dead: Count,
    /// How long the oldest ready message has been ready; `None` if none is ready. If `ready` is not exact, of those
    /// that were counted: the oldest ones are counted first.
    pub oldest_ready: Option<Duration>,
    /// Groups that are stopped, by an operator or by a dead letter: what they have parked waits for an operator.
    pub stopped_groups: Count,
}

impl QueueStats {
    /// All messages of the queue: ready, delayed, parked and leased.
    pub fn total(&self) -> Count {
        self.ready + self.delayed + self.parked + self.leased
    }
}

/// Settings of a queue that can be changed. Those that aren't set stay as they are.
///
/// They are in the queue's row, and reach running consumers with their next claim. A lease, a wait and the archiving of
/// acknowledged messages take precedence over what a consumer's own settings say; `None` leaves that to the consumers
/// again.
///
/// | setting | meaning | for a new queue |
/// |---|---|---|
/// | `max_attempts` | deliveries of a message before it becomes a dead letter | 20 |
/// | `lease` | how long messages are leased, from a millisecond to a day | `None`: as consumers say |
/// | `retry_min` | the wait after the first failed attempt | `None`: as consumers say |
/// | `retry_max` | the maximum wait after a failed attempt | `None`: as consumers say |
/// | `archive_on_ack` | whether acknowledged messages are archived | false |
/// | `sensitive` | whether the operators' page and the command hide payloads | false |
/// | `archive_for` | how long archived messages are kept | `None`: for ever |
/// | `dead_letters_for` | how long dead letters are kept | `None`: for ever |
/// | `max_running` | how many of its messages are leased at a time, over all processes | `None`: no limit |
/// | `rate` | how many attempts start within a [time](Rate), over all processes | `None`: no limit |
/// | `groups` | how messages of [groups](crate::Enqueue::group) are handled | `None`: it takes none |
///
/// # Example
/// ```no_run
/// # async fn example(store: pgqrs::Store) -> pgqrs::Result<()> {
/// use std::time::Duration;
///
/// use pgqrs::QueueOptions;
///
/// let options = QueueOptions::builder()
///     .max_attempts(5)
///     .retry_max(Duration::from_secs(600))
///     .dead_letters_for(Duration::from_secs(30 * 24 * 60 * 60))
///     .build();
/// pgqrs::admin(&store).configure_queue("tasks", options).await?;
///
/// let options = QueueOptions::builder().retry_max(None).build();
/// pgqrs::admin(&store).configure_queue("tasks", options).await?; // consumers decide again
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, Default, TypedBuilder)]
#[builder(builder_type(
    doc = "Settings of [`QueueOptions`], each with its default; made by [`QueueOptions::builder`]."
))]
pub struct QueueOptions {
    #[builder(
        default,
        setter(
            strip_option,
            doc = "How often a message is delivered before it becomes a dead letter: from 1 to 2,147,483,647; 20 for a new queue."
        )
    )]
    pub(crate) max_attempts: Option<u32>,
    #[builder(
        default,
        setter(
            transform = |lease: impl Into<Option<Duration>>| Some(lease.into()),
            doc = "How long messages are leased, from a millisecond to a day, whatever consumers say; or `None`."
        )
    )]
    pub(crate) lease: Option<Option<Duration>>,
    #[builder(
        default,
        setter(
            transform = |wait: impl Into<Option<Duration>>| Some(wait.into()),
            doc = "The wait after the first failed attempt, which replaces that of consumers' [`RetryPolicy`](crate::RetryPolicy); or `None`."
        )
    )]
    pub(crate) retry_min: Option<Option<Duration>>,
    #[builder(
        default,
        setter(
            transform = |wait: impl Into<Option<Duration>>| Some(wait.into()),
            doc = "The maximum wait after a failed attempt, which replaces that of consumers' [`RetryPolicy`](crate::RetryPolicy), and is not shorter than `retry_min`; or `None`."
        )
    )]
    pub(crate) retry_max: Option<Option<Duration>>,
    #[builder(
        default,
        setter(
            strip_option,
            doc = "Whether acknowledged messages are archived; false for a new queue."
        )
    )]
    pub(crate) archive_on_ack: Option<bool>,
    #[builder(
        default,
        setter(
            strip_option,
            doc = "Whether the operators' page and the command hide the queue's payloads; false for a new queue."
        )
    )]
    pub(crate) sensitive: Option<bool>,
    #[builder(
        default,
        setter(
            transform = |time: impl Into<Option<Duration>>| Some(time.into()),
            doc = "How long archived messages are kept, at most a thousand years; or `None`, for ever. Running consumers of the queue delete older ones."
        )
    )]
    pub(crate) archive_for: Option<Option<Duration>>,
    #[builder(
        default,
        setter(
            transform = |time: impl Into<Option<Duration>>| Some(time.into()),
            doc = "How long dead letters are kept, at most a thousand years; or `None`, for ever. Running consumers of the queue delete older ones."
        )
    )]
    pub(crate) dead_letters_for: Option<Option<Duration>>,
    #[builder(
        default,
        setter(
            transform = |groups: impl Into<Option<Groups>>| Some(groups.into()),
            doc = "How messages of groups are handled; or `None`: the queue takes no more of them, and those that it has are handled as before, one of a group at a time."
        )
    )]
    pub(crate) groups: Option<Option<Groups>>,
    #[builder(
        default,
        setter(
            transform = |most: impl Into<Option<u32>>| Some(most.into()),
            doc = "How many of its messages are leased at a time, by all consumers of all processes together: from 1 to 2,147,483,647; or `None`, which sets no limit. Consumers don't prefetch then."
        )
    )]
    pub(crate) max_running: Option<Option<u32>>,
    #[builder(
        default,
        setter(
            transform = |rate: impl Into<Option<Rate>>| Some(rate.into()),
            doc = "How many attempts start within a time, by all consumers of all processes together; or `None`, which sets no limit. Consumers don't prefetch then."
        )
    )]
    pub(crate) rate: Option<Option<Rate>>,
}

/// What a cancelled message was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub enum Cancelled {
    /// It waited to be delivered, for the first time or again. No consumer has it.
    Waiting,
    /// A consumer had claimed it, and had not settled it: its handler runs, or was about to start, or its consumer has
    /// crashed. It has lost its lease, so nothing that its consumer does can settle it.
    ///
    /// A running consumer is notified. It doesn't start the handler any more; if it runs already,
    /// [`Delivery::cancelled`](crate::Delivery::cancelled) becomes ready, and the handler is dropped after
    /// [`Run::cancel_grace`](crate::Run::cancel_grace).
    Running,
}

/// A message of a queue, in its current state. Its `Debug` output leaves the payload out.
#[derive(Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct QueuedMessage {
    /// The message.
    pub id: MessageId,
    /// Its priority.
    pub priority: Priority,
    /// From when on it can be delivered, if it isn't leased. Of a parked one, the time that it was delayed to, if that is
    /// still to come when its turn comes.
    pub visible_at: DateTime<Utc>,
    /// Its group, if it has one.
    pub group: Option<String>,
    /// Whether it waits for others of its group to be settled.
    pub is_parked: bool,
    /// When it was enqueued, by the database's clock.
    pub enqueued_at: DateTime<Utc>,
    /// How often it was delivered. Deliveries that were put off, or whose payload didn't decode, don't count.
    pub attempt: u32,
    /// After how many attempts it becomes a dead letter, if it has a limit of its own; otherwise that of its queue holds.
    pub max_attempts: Option<u32>,
    /// When it expires, unless it was started before.
    pub expires_at: Option<DateTime<Utc>>,
    /// How often a handler has put it off.
    pub snoozes: u32,
    /// Since when consumers have found that its payload doesn't decode.
    pub undecodable_since: Option<DateTime<Utc>>,
    /// When its lease runs out; `None` if no consumer holds it.
    pub lease_expires_at: Option<DateTime<Utc>>,
    /// The producer that it was sent through, if any.
    pub producer: Option<WorkerId>,
    /// The consumer that it was last delivered to, if any.
    pub consumer: Option<WorkerId>,
    /// The key that no other message of its queue has while this one is unfinished.
    pub unique_key: Option<String>,
    /// The key that no other message of its queue has while this one waits to be claimed.
    pub waiting_key: Option<String>,
    /// The error of the last attempt, if known.
    pub last_error: Option<String>,
    /// Its headers.
    pub headers: Headers,
    /// The payload as it was sent, if the page asked for payloads.
    pub payload: Option<String>,
}

/// A message that is not delivered any more. Its `Debug` output leaves the payload out.
#[derive(Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct DeadLetter {
    /// The message.
    pub id: MessageId,
    /// Its priority.
    pub priority: Priority,
    /// When it was enqueued, by the database's clock.
    pub enqueued_at: DateTime<Utc>,
    /// How often it was delivered.
    pub attempt: u32,
    /// After how many attempts it was to become one, if it had a limit of its own.
    pub max_attempts: Option<u32>,
    /// The key that no other message of its queue had while this one was unfinished.
    pub unique_key: Option<String>,
    /// The key that no other message of its queue had while this one waited to be claimed.
    pub waiting_key: Option<String>,
    /// Its group, if it has one.
    pub group: Option<String>,
    /// Why it is here: `attempts used up`, `expired`, `its payload doesn't decode`, or the reason from the handler.
    pub reason: String,
    /// The error of the last attempt, if known.
    pub last_error: Option<String>,
    /// When it was dead-lettered, by the database's clock.
    pub died_at: DateTime<Utc>,
    /// Its headers.
    pub headers: Headers,
    /// The payload as it was sent, if the page asked for payloads.
    pub payload: Option<String>,
}

/// What became of dead letters that were to be put back into their queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize)]
#[non_exhaustive]
pub struct Requeued {
    /// How many are back.
    pub back: u64,
    /// How many stay dead letters, since by now another message of the queue has their key.
    pub held: u64,
}

/// A message that was handled and kept. Its `Debug` output leaves the payload out.
#[derive(Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ArchivedMessage {
    /// The message.
    pub id: MessageId,
    /// Its priority.
    pub priority: Priority,
    /// When it was enqueued, by the database's clock.
    pub enqueued_at: DateTime<Utc>,
    /// How often it was delivered.
    pub attempt: u32,
    /// When it was archived, by the database's clock.
    pub archived_at: DateTime<Utc>,
    /// Its headers.
    pub headers: Headers,
    /// The payload as it was sent, if the page asked for payloads.
    pub payload: Option<String>,
}

/// A registered worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct WorkerInfo {
    /// Its id.
    pub id: WorkerId,
    /// Whether it is a producer or a consumer.
    pub kind: WorkerKind,
    /// The queue that it is registered for.
    pub queue: QueueName,
    /// The host that it was registered with.
    pub hostname: String,
    /// The port that it was registered with; 0 is anonymous.
    pub port: u16,
    /// Its state.
    pub status: WorkerStatus,
    /// When it was registered, by the database's clock.
    pub started_at: DateTime<Utc>,
    /// When its last heartbeat was, by the database's clock.
    pub heartbeat_at: DateTime<Utc>,
    /// Of a consumer: how many messages [`run`](crate::Consumer::run) has taken out of the queue, by its last heartbeat.
    pub settled: u64,
    /// Whether its last heartbeat is so old that it counts as crashed.
    pub stale: bool,
}

/// Which workers to list. Defaults to all.
///
/// ```
/// use pgqrs::{WorkerFilter, WorkerKind, WorkerStatus};
///
/// let suspended = WorkerFilter::builder()
///     .kind(WorkerKind::Producer)
///     .status(WorkerStatus::Suspended)
///     .build();
/// ```
#[derive(Debug, Clone, Default, TypedBuilder)]
#[builder(
    field_defaults(default, setter(strip_option)),
    builder_type(
        doc = "Settings of [`WorkerFilter`], each with its default; made by [`WorkerFilter::builder`]."
    )
)]
pub struct WorkerFilter {
    #[builder(setter(doc = "Only those of this queue."))]
    pub(crate) queue: Option<QueueName>,
    #[builder(setter(doc = "Only those in this state."))]
    pub(crate) status: Option<WorkerStatus>,
    #[builder(setter(doc = "Only those that do this."))]
    pub(crate) kind: Option<WorkerKind>,
}

/// A message that a consumer holds under a lease that still runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct HeldMessage {
    /// The message.
    pub id: MessageId,
    /// Which delivery of it this is: 1 the first time.
    pub attempt: u32,
    /// When the lease runs out, by the database's clock.
    pub lease_expires_at: DateTime<Utc>,
}
