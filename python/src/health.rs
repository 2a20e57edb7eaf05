//! Health, counts and observations, for Python's `Admin` and `Observer`. Rows are returned as tuples, in the order of the
//! fields of Python's classes.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use pgqrs::{
    Count, Finding, FindingKind, Health, Horizon, HorizonHolder, HorizonSource, Observation,
    QueueHealth, QueueStats, StaleWorker, TableHealth,
};
use pyo3::prelude::*;
use tokio::sync::Mutex;

use crate::{
    answer::Mode,
    errors,
    process::Here,
    rows::{VersionRow, WorkerRow, version, worker_row},
};

type CountRow = (u64, bool);
type StatsRow = (
    String,
    CountRow,
    CountRow,
    CountRow,
    CountRow,
    CountRow,
    Option<Duration>,
    CountRow,
);
type HolderRow = (
    &'static str,
    Option<i32>,
    Option<String>,
    Option<String>,
    Option<String>,
    Option<String>,
    u64,
    Option<Duration>,
    bool,
);
type TableRow = (
    String,
    bool,
    u64,
    u64,
    u64,
    Option<Duration>,
    Option<Duration>,
    bool,
);
/// With the place of its subject in the list of its kind.
type FindingRow = (&'static str, &'static str, String, String, Option<usize>);
type FactsRow = (
    Option<Vec<HolderRow>>,
    Vec<TableRow>,
    Vec<(StatsRow, u64, u64, bool)>,
    Vec<(WorkerRow, Duration, bool)>,
    Option<(u64, u64)>,
);
type ServerRow = (
    DateTime<Utc>,
    String,
    String,
    String,
    Option<VersionRow>,
    bool,
    u64,
);

pub(crate) fn stats_row(stats: &QueueStats) -> StatsRow {
    let count = |count: Count| (count.value, count.at_least);
    (
        stats.queue.as_str().to_owned(),
        count(stats.ready),
        count(stats.delayed),
        count(stats.parked),
        count(stats.leased),
        count(stats.dead),
        stats.oldest_ready,
        count(stats.stopped_groups),
    )
}

/// The report as text, the findings, the server, and the lists of facts.
pub(crate) fn health_row(health: Health) -> (String, Vec<FindingRow>, ServerRow, FactsRow) {
    let findings = health.findings.iter();
    let findings = findings.map(|finding| finding_row(finding, &health));
    let findings = findings.collect();
    let report = health.to_string();
    let server = (
        health.checked_at,
        health.database,
        health.role,
        health.server_version,
        health.schema.map(version),
        health.autovacuum,
        health.unfrozen_transactions,
    );
    let facts = (
        health.horizon.map(horizon_rows),
        health.tables.into_iter().map(table_row).collect(),
        health.queues.iter().map(queue_row).collect(),
        health.stale_workers.into_iter().map(stale_row).collect(),
        health.connections.map(|use_of| (use_of.used, use_of.limit)),
    );
    (report, findings, server, facts)
}

fn finding_row(finding: &Finding, health: &Health) -> FindingRow {
    let subject = match &finding.kind {
        FindingKind::HorizonHeld(holder) => {
            let mut holders = health.horizon.iter().flat_map(|horizon| &horizon.holders);
            holders.position(|found| found == holder)
        }
        FindingKind::DeadRows(table) => health.tables.iter().position(|found| found == table),
        FindingKind::Backlog(queue) => health.queues.iter().position(|found| found == queue),
        FindingKind::MissedHeartbeats(stale) => {
            health.stale_workers.iter().position(|found| found == stale)
        }
        _ => None,
    };
    (
        finding.severity.as_str(),
        finding.kind.as_str(),
        finding.to_string(),
        finding.remedy.clone(),
        subject,
    )
}

fn horizon_rows(horizon: Horizon) -> Vec<HolderRow> {
    horizon.holders.into_iter().map(holder_row).collect()
}

fn holder_row(holder: HorizonHolder) -> HolderRow {
    let (transactions, held_for, catalogs) =
        (holder.transactions, holder.held_for, holder.only_catalogs);
    match holder.source {
        HorizonSource::Session {
            pid,
            role,
            application,
            state,
            query,
            ..
        } => {
            let (pid, name) = (Some(pid), Some(application));
            (
                "session",
                pid,
                name,
                role,
                state,
                query,
                transactions,
                held_for,
                catalogs,
            )
        }
        HorizonSource::PreparedTransaction { gid, role, .. } => named(
            "prepared_transaction",
            None,
            gid,
            Some(role),
            transactions,
            held_for,
        ),
        HorizonSource::ReplicationSlot {
            name, active_pid, ..
        } => {
            let row = named(
                "replication_slot",
                active_pid,
                name,
                None,
                transactions,
                held_for,
            );
            (
                row.0, row.1, row.2, row.3, row.4, row.5, row.6, row.7, catalogs,
            )
        }
        HorizonSource::Standby {
            pid, application, ..
        } => named(
            "standby",
            Some(pid),
            application,
            None,
            transactions,
            held_for,
        ),
        _ => named("unknown", None, String::new(), None, transactions, held_for),
    }
}

fn named(
    source: &'static str,
    pid: Option<i32>,
    name: String,
    role: Option<String>,
    transactions: u64,
    held_for: Option<Duration>,
) -> HolderRow {
    (
        source,
        pid,
        Some(name),
        role,
        None,
        None,
        transactions,
        held_for,
        false,
    )
}

fn table_row(table: TableHealth) -> TableRow {
    (
        table.name,
        table.toast,
        table.live_rows,
        table.dead_rows,
        table.vacuum_at,
        table.last_vacuum,
        table.last_analyze,
        table.autovacuum,
    )
}

fn queue_row(queue: &QueueHealth) -> (StatsRow, u64, u64, bool) {
    (
        stats_row(&queue.stats),
        queue.consumers,
        queue.suspended_consumers,
        queue.is_paused,
    )
}

fn stale_row(stale: StaleWorker) -> (WorkerRow, Duration, bool) {
    (
        worker_row(stale.worker),
        stale.last_heartbeat,
        stale.others_run,
    )
}

type ObservationRow = (DateTime<Utc>, Vec<StatsRow>, Option<Vec<HolderRow>>);

fn observation_row(observation: &Observation) -> ObservationRow {
    (
        observation.at,
        observation.queues.iter().map(stats_row).collect(),
        observation.horizon.clone().map(horizon_rows),
    )
}

/// Observes the queues until it is stopped, or collected.
#[pyclass(frozen, module = "pgqrs._pgqrs")]
pub(crate) struct Observer {
    held: Here<Held>,
    mode: Mode,
}

struct Held {
    observer: pgqrs::Observer,
    /// A clone, which knows what was returned last.
    changes: Arc<Mutex<pgqrs::Observer>>,
}

impl Observer {
    pub(crate) fn new(observer: pgqrs::Observer, mode: Mode) -> Self {
        let changes = Arc::new(Mutex::new(observer.clone()));
        Self {
            held: Here::new(Held { observer, changes }),
            mode,
        }
    }
}

#[pymethods]
impl Observer {
    /// Returns what was read last.
    fn latest(&self, py: Python<'_>) -> PyResult<Option<ObservationRow>> {
        let latest = self.held.get(py)?.observer.latest();
        Ok(latest.map(|latest| observation_row(&latest)))
    }

    /// Returns why the last attempt to read failed.
    fn error<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let error = self.held.get(py)?.observer.error();
        Ok(error.map(|error| {
            errors::raised(py, &error)
                .into_value(py)
                .into_bound(py)
                .into_any()
        }))
    }

    /// Waits for the next attempt, and returns what it read.
    fn changed<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let changes = Arc::clone(&self.held.get(py)?.changes);
        self.mode.answer(py, async move {
            Ok(observation_row(&*changes.lock().await.changed().await?))
        })
    }

    /// Stops it.
    fn stop(&self, py: Python<'_>) -> PyResult<()> {
        self.held.get(py)?.observer.stop();
        Ok(())
    }
}
