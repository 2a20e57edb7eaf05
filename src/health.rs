//! What [`Admin::health`](crate::Admin::health) returns: facts about the database and the queues, and findings, which
//! are those facts that an operator should act on. The thresholds are in `health/findings.rs`.

mod display;
mod findings;

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::admin::rows::{QueueStats, SchemaVersion, WorkerInfo};

/// The state of the database and of the queues at one moment.
///
/// It prints as a report for a terminal: the findings with their remedies, the most severe first, and then the facts.
/// It serialises to JSON for programs.
///
/// # Example
/// ```no_run
/// # async fn example(store: pgqrs::Store) -> pgqrs::Result<()> {
/// use pgqrs::Severity;
///
/// let health = pgqrs::admin(&store).health().await?;
/// println!("{health}");
/// if health.severity() >= Some(Severity::Critical) {
///     std::process::exit(1);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Health {
    /// What to act on, the most severe first. Empty only if everything could be read, too: a role without
    /// `pg_read_all_stats` always has a finding of severity [`Info`](Severity::Info).
    pub findings: Vec<Finding>,
    /// When it was read, by the database's clock.
    pub checked_at: DateTime<Utc>,
    /// The database.
    pub database: String,
    /// The role that looked.
    pub role: String,
    /// PostgreSQL's version, such as `17.2`.
    pub server_version: String,
    /// The version of the schema; `None` if it could not be read.
    pub schema: Option<SchemaVersion>,
    /// What keeps vacuum from removing dead rows; `None` if the role may not read the server's views.
    pub horizon: Option<Horizon>,
    /// The tables of the schema `pgqrs`.
    pub tables: Vec<TableHealth>,
    /// Whether the server runs autovacuum.
    pub autovacuum: bool,
    /// The queues, ordered by name: at most 10,000. Empty if they could not be read.
    pub queues: Vec<QueueHealth>,
    /// Workers that missed their heartbeats, the last ones first: at most 100.
    pub stale_workers: Vec<StaleWorker>,
    /// How many connections are in use; `None` if the role may not read `pg_stat_activity`.
    pub connections: Option<ConnectionUse>,
    /// How many transactions ago the database's oldest row was frozen. The server refuses to write shortly before
    /// 2,147,483,648.
    pub unfrozen_transactions: u64,
}

impl Health {
    /// The severity of the most severe finding; `None` if there is no finding.
    pub fn severity(&self) -> Option<Severity> {
        self.findings.iter().map(|finding| finding.severity).max()
    }
}

/// How urgent a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Severity {
    /// Good to know.
    Info,
    /// It gets worse unless somebody acts.
    Warning,
    /// Messages are late, or soon will be.
    Critical,
}

impl Severity {
    /// `info`, `warning` or `critical`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// Something to act on. It prints as one line that says what was found.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Finding {
    /// How urgent it is.
    pub severity: Severity,
    /// What was found.
    #[serde(flatten)]
    pub kind: FindingKind,
    /// What to do, with the statement to run.
    pub remedy: String,
}

/// What was found, with its data.
///
/// | kind | info | warning | critical |
/// |---|---|---|---|
/// | `HorizonHeld` | | for 5 minutes, or 1,000,000 transactions | for an hour, or 10,000,000 transactions |
/// | `DeadRows` | | 10 times as many as autovacuum starts at, and no vacuum for 10 minutes, or one that could not remove them | 100 times as many, and no vacuum for an hour, or likewise |
/// | `AutovacuumOff` | | always | if the table also has 10 times as many dead rows as autovacuum starts at |
/// | `Backlog` | | the oldest message is ready for 5 minutes | for an hour |
/// | `MissedHeartbeats` | another worker of its kind and queue runs | none does | |
/// | `Schema` | newer than this build | older | not installed |
/// | `ConnectionsShort` | | 80 % are in use | 95 % |
/// | `Wraparound` | | 500,000,000 transactions | 1,500,000,000 |
/// | `NotVisible` | the role lacks a privilege | it could not be read for another reason | |
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum FindingKind {
    /// A session, a prepared transaction, a replication slot or a standby keeps vacuum from removing dead rows. Claims
    /// that begin at the head of a queue then read over more and more of them.
    HorizonHeld(HorizonHolder),
    /// A table has many dead rows.
    DeadRows(TableHealth),
    /// Autovacuum is off, for the server or for a table.
    AutovacuumOff {
        /// The table; `None` if it is off for the server.
        table: Option<String>,
    },
    /// Messages of a queue are ready for long.
    Backlog(QueueHealth),
    /// A worker is registered as running, and has missed its heartbeats.
    MissedHeartbeats(StaleWorker),
    /// The schema is not the one that this build was made for.
    Schema {
        /// Both versions.
        version: SchemaVersion,
    },
    /// The server is short of connections.
    ConnectionsShort(ConnectionUse),
    /// The database is on its way to the end of its transaction ids.
    Wraparound {
        /// [`Health::unfrozen_transactions`].
        transactions: u64,
    },
    /// A part of the facts could not be read.
    NotVisible {
        /// What is missing.
        what: HealthPart,
        /// Why; `None` if the role lacks a privilege.
        reason: Option<String>,
    },
}

impl FindingKind {
    /// The kind's name, such as `horizon_held`, for programs.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::HorizonHeld(_) => "horizon_held",
            Self::DeadRows(_) => "dead_rows",
            Self::AutovacuumOff { .. } => "autovacuum_off",
            Self::Backlog(_) => "backlog",
            Self::MissedHeartbeats(_) => "missed_heartbeats",
            Self::Schema { .. } => "schema",
            Self::ConnectionsShort(_) => "connections_short",
            Self::Wraparound { .. } => "wraparound",
            Self::NotVisible { .. } => "not_visible",
        }
    }
}

/// A part of [`Health`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum HealthPart {
    /// What sessions of other roles do, and since when. Their pids and how many transactions they hold back are visible.
    SessionDetails,
    /// The server's sessions, and what holds back vacuum.
    Sessions,
    /// The version of the schema.
    Schema,
    /// The messages in the queues.
    Queues,
    /// The workers.
    Workers,
}

/// What keeps vacuum from removing dead rows, in all tables of the database.
///
/// A row that was deleted, or replaced by a newer version, stays in the table until no snapshot can see it any more, and
/// a vacuum has run since. The oldest snapshot is the *horizon*.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[non_exhaustive]
pub struct Horizon {
    /// Whatever holds it back, the oldest first: at most ten, and mostly for less than a second each. Empty if nothing
    /// does.
    pub holders: Vec<HorizonHolder>,
}

impl Horizon {
    /// How many transactions have begun since the oldest snapshot; 0 if there is none.
    pub fn transactions(&self) -> u64 {
        let holders = self.holders.iter();
        let of_rows = holders.filter(|holder| !holder.only_catalogs);
        of_rows.map(|holder| holder.transactions).max().unwrap_or(0)
    }

    /// For how long the oldest transaction has been open, as far as that is known; zero if there is none.
    pub fn held_for(&self) -> Duration {
        let known = self.holders.iter().filter_map(|holder| holder.held_for);
        known.max().unwrap_or_default()
    }
}

/// A session, a prepared transaction, a replication slot or a standby that holds back vacuum.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct HorizonHolder {
    /// What it is.
    #[serde(flatten)]
    pub source: HorizonSource,
    /// How many transactions have begun since.
    pub transactions: u64,
    /// For how long its transaction has been open, by the database's clock; `None` if the role may not see that, and for
    /// replication slots and standbys, of which the server knows no time.
    pub held_for: Option<Duration>,
    /// Whether it holds back only the system's catalogs, and no row of a queue: a logical replication slot.
    pub only_catalogs: bool,
}

/// What holds back vacuum.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "source", rename_all = "snake_case")]
#[non_exhaustive]
pub enum HorizonSource {
    /// A session of this database.
    Session {
        /// Its process, for `pg_terminate_backend`.
        pid: i32,
        /// Its role; `None` for a process of the server's own.
        role: Option<String>,
        /// Its `application_name`.
        application: String,
        /// Its state, such as `idle in transaction`; `None` if the role may not see that.
        state: Option<String>,
        /// The first 120 characters of its last statement; `None` if the role may not see that. Statements of this
        /// library have parameters, so payloads are not part of them; those of others may hold data.
        query: Option<String>,
    },
    /// A transaction that was prepared for a two-phase commit, and is neither committed nor rolled back.
    PreparedTransaction {
        /// Its identifier.
        gid: String,
        /// The role that prepared it.
        role: String,
    },
    /// A replication slot: one of a physical standby with `hot_standby_feedback`, or a logical one.
    ReplicationSlot {
        /// Its name.
        name: String,
        /// The process that uses it; `None` if nobody does.
        active_pid: Option<i32>,
    },
    /// A standby with `hot_standby_feedback`, and without a slot: a transaction on it is open.
    Standby {
        /// The process that sends to it.
        pid: i32,
        /// Its `application_name`.
        application: String,
    },
}

/// A table of the schema `pgqrs`, as the server's statistics have it. The numbers of rows are estimates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct TableHealth {
    /// Its name, such as `messages`.
    pub name: String,
    /// Whether it is the table in which the large payloads of `name` are, outside of it (TOAST).
    pub toast: bool,
    /// Rows.
    pub live_rows: u64,
    /// Rows that were inserted since the server's statistics were last reset.
    pub inserted: u64,
    /// Rows that were deleted since then.
    pub deleted: u64,
    /// Dead rows that vacuum has not removed yet.
    pub dead_rows: u64,
    /// The number of dead rows from which on autovacuum vacuums it.
    pub vacuum_at: u64,
    /// How long ago the last vacuum, manual or automatic, has finished; `None` if there was none.
    pub last_vacuum: Option<Duration>,
    /// How long ago its statistics were last updated; `None` if they never were.
    pub last_analyze: Option<Duration>,
    /// Whether autovacuum is on for this table.
    pub autovacuum: bool,
}

/// A queue, and the consumers that are registered for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct QueueHealth {
    /// Its messages.
    pub stats: QueueStats,
    /// Consumers that run. Calls of `dequeue()` without a registered consumer aren't among them.
    pub consumers: u64,
    /// Consumers that are suspended.
    pub suspended_consumers: u64,
    /// How many messages consumers' [`run`](crate::Consumer::run)s have taken out of the queue since they were registered: done,
    /// archived, and dead letters. As of their last heartbeats, and without consumers whose rows are deleted. What was
    /// claimed without a registered consumer, or acknowledged without `run`, isn't counted.
    pub settled: u64,
    /// When `settled` was counted, by the database's clock: the time of the last heartbeats of running consumers, on
    /// average. `None` if none runs.
    pub settled_at: Option<DateTime<Utc>>,
    /// Whether the queue is paused, so that no consumer claims.
    pub is_paused: bool,
}

/// A worker that is registered as running, and has missed so many heartbeats that it counts as crashed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct StaleWorker {
    /// The worker.
    pub worker: WorkerInfo,
    /// How long ago its last heartbeat was.
    pub last_heartbeat: Duration,
    /// Whether another worker of its kind and queue runs.
    pub others_run: bool,
}

/// Connections of clients, of all databases of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ConnectionUse {
    /// Those that are open.
    pub used: u64,
    /// How many can be open, for roles that aren't superusers: `max_connections` without the reserved ones.
    pub limit: u64,
}

/// All that was read, from which the findings are made.
pub(crate) struct Facts {
    pub(crate) now: DateTime<Utc>,
    pub(crate) server: ServerFacts,
    pub(crate) horizon: Part<Horizon>,
    pub(crate) connections: Part<ConnectionUse>,
    pub(crate) tables: Vec<TableHealth>,
    pub(crate) schema: Part<SchemaVersion>,
    pub(crate) queues: Part<Vec<QueueHealth>>,
    pub(crate) workers: Part<Vec<StaleWorker>>,
}

/// What the server says about itself.
pub(crate) struct ServerFacts {
    pub(crate) database: String,
    pub(crate) role: String,
    pub(crate) version: String,
    /// Whether the role sees what sessions of other roles do.
    pub(crate) sees_sessions: bool,
    pub(crate) autovacuum: bool,
    pub(crate) unfrozen_transactions: u64,
}

/// A part of the facts that may be missing.
pub(crate) enum Part<T> {
    Read(T),
    /// The role lacks a privilege.
    Denied,
    /// There is no such part, since the schema isn't installed, or is not the one of this build.
    Absent,
    Failed(String),
}

impl<T> Part<T> {
    pub(crate) fn read(self) -> Option<T> {
        match self {
            Self::Read(part) => Some(part),
            _ => None,
        }
    }
}
