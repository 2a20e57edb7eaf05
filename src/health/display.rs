//! Health as text, for a terminal. Names and statements that others chose are printed without control characters.

use std::{fmt, time::Duration};

use super::{
    ConnectionUse, Finding, FindingKind, Health, HealthPart, HorizonHolder, HorizonSource,
    QueueHealth, Severity, StaleWorker, TableHealth,
};
use crate::{admin::rows::SchemaVersion, count::grouped, error::qualified};

impl Health {
    /// How many findings there are of each severity, such as `2 critical, 1 warning`.
    fn summary(&self) -> String {
        let severities = [Severity::Critical, Severity::Warning, Severity::Info];
        let counted = severities.map(|severity| {
            let of_it = self
                .findings
                .iter()
                .filter(|found| found.severity == severity);
            (of_it.count(), severity.as_str())
        });
        let found = counted.iter().filter(|(count, _)| *count > 0);
        let found = found.map(|(count, severity)| match (*count, *severity) {
            (2.., "warning") => format!("{count} warnings"),
            _ => format!("{count} {severity}"),
        });
        found.collect::<Vec<_>>().join(", ")
    }
}

/// The report: what to act on, and then the facts.
impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "pgqrs in database `{}` on PostgreSQL {}, as role `{}`, at {}",
            printable(&self.database),
            self.server_version,
            printable(&self.role),
            self.checked_at.format("%Y-%m-%d %H:%M:%S UTC"),
        )?;
        if self.findings.is_empty() {
            writeln!(f, "\nOK        nothing to act on")?;
        } else {
            writeln!(f, "{}", self.summary())?;
        }
        for finding in &self.findings {
            let severity = finding.severity.as_str().to_uppercase();
            writeln!(f, "\n{severity:<8}  {finding}")?;
            writeln!(f, "          -> {}", printable(&finding.remedy))?;
        }
        if !self.queues.is_empty() {
            writeln!(f, "\n{}", queues(&self.queues).trim_end())?;
        }
        if !self.tables.is_empty() {
            writeln!(f, "\n{}", tables(&self.tables).trim_end())?;
        }
        writeln!(f)?;
        if let Some(horizon) = &self.horizon {
            match horizon.holders.first() {
                None => writeln!(f, "oldest snapshot: none")?,
                Some(holder) => writeln!(f, "oldest snapshot: {holder}")?,
            }
        }
        if let Some(connections) = self.connections {
            writeln!(f, "{connections}")?;
        }
        write!(
            f,
            "{} of 2,147,483,648 transactions since the oldest row was frozen",
            grouped(self.unfrozen_transactions)
        )
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            FindingKind::HorizonHeld(holder) => {
                write!(f, "vacuum is held back by {holder}")?;
                match &holder.source {
                    HorizonSource::Session {
                        query: Some(query), ..
                    } if !query.is_empty() => {
                        write!(f, "; its last statement: {}", printable(query))
                    }
                    _ => Ok(()),
                }
            }
            FindingKind::DeadRows(table) => table.fmt(f),
            FindingKind::AutovacuumOff { table: None } => {
                f.write_str("autovacuum is off on this server: dead rows stay for ever")
            }
            FindingKind::AutovacuumOff { table: Some(table) } => {
                write!(
                    f,
                    "autovacuum is off for {table}: its dead rows stay for ever"
                )
            }
            FindingKind::Backlog(queue) => queue.fmt(f),
            FindingKind::MissedHeartbeats(stale) => stale.fmt(f),
            FindingKind::Schema { version } => schema(version, f),
            FindingKind::ConnectionsShort(connections) => connections.fmt(f),
            FindingKind::Wraparound { transactions } => write!(
                f,
                "the oldest row of this database was frozen {} transactions ago; the server refuses to write shortly before 2,147,483,648",
                grouped(*transactions)
            ),
            FindingKind::NotVisible { what, reason } => not_visible(*what, reason.as_deref(), f),
        }
    }
}

/// What it is, and since when.
impl fmt::Display for HorizonHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            HorizonSource::Session {
                pid,
                role,
                application,
                state,
                ..
            } => {
                write!(f, "session {pid} (")?;
                if let Some(state) = state {
                    write!(f, "{state}, ")?;
                }
                match role {
                    Some(role) => write!(f, "role `{}`", printable(role))?,
                    None => f.write_str("a process of the server")?,
                }
                if !application.is_empty() {
                    write!(f, ", application `{}`", printable(application))?;
                }
                f.write_str(")")?;
            }
            HorizonSource::PreparedTransaction { gid, role } => write!(
                f,
                "prepared transaction `{}` (role `{}`)",
                printable(gid),
                printable(role)
            )?,
            HorizonSource::ReplicationSlot { name, active_pid } => match active_pid {
                Some(pid) => write!(f, "replication slot `{name}` (in use by process {pid})")?,
                None => write!(f, "replication slot `{name}` (not in use)")?,
            },
            HorizonSource::Standby { pid, application } => write!(
                f,
                "standby `{}` (sent to by process {pid})",
                printable(application)
            )?,
        }
        let transactions = grouped(self.transactions);
        match self.held_for {
            Some(time) => write!(f, ", for {} and {transactions} transactions", spoken(time))?,
            None => write!(f, ", for {transactions} transactions")?,
        }
        if self.only_catalogs {
            f.write_str(", in the system's catalogs only")?;
        }
        Ok(())
    }
}

impl TableHealth {
    /// Its name, also if it is the one of large payloads.
    pub(super) fn full_name(&self) -> String {
        let toast = if self.toast { " (large payloads)" } else { "" };
        format!("pgqrs.{}{toast}", self.name)
    }
}

impl fmt::Display for TableHealth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} has {} dead rows and {} live ones; autovacuum starts at {}, and the last vacuum ",
            self.full_name(),
            grouped(self.dead_rows),
            grouped(self.live_rows),
            grouped(self.vacuum_at),
        )?;
        match self.last_vacuum {
            Some(time) => write!(f, "was {} ago", spoken(time)),
            None => f.write_str("never was"),
        }
    }
}

impl fmt::Display for QueueHealth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stats = &self.stats;
        write!(
            f,
            "the oldest ready message of queue `{}` has waited for {}: {} ready, {} leased; {} consumers run",
            stats.queue,
            spoken(stats.oldest_ready.unwrap_or_default()),
            stats.ready,
            stats.leased,
            self.consumers,
        )?;
        if self.suspended_consumers > 0 {
            write!(f, ", and {} are suspended", self.suspended_consumers)?;
        }
        if self.is_paused {
            f.write_str("; the queue is paused")?;
        }
        Ok(())
    }
}

impl fmt::Display for StaleWorker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let worker = &self.worker;
        write!(
            f,
            "{} {} of queue `{}` (`{}:{}`) missed its heartbeats: the last one was {} ago; ",
            worker.kind,
            worker.id,
            worker.queue,
            printable(&worker.hostname),
            worker.port,
            spoken(self.last_heartbeat),
        )?;
        if self.others_run {
            f.write_str("others of its kind and queue run")
        } else {
            f.write_str("no other of its kind and queue runs")
        }
    }
}

impl fmt::Display for ConnectionUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} connections are in use", self.used, self.limit)
    }
}

fn schema(version: &SchemaVersion, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match version {
        SchemaVersion::NotInstalled => f.write_str("pgqrs is not installed in this database"),
        SchemaVersion::UpToDate { installed, .. } => write!(f, "the schema is version {installed}"),
        SchemaVersion::Older {
            installed,
            compiled,
        } => write!(
            f,
            "the schema is version {installed}, and this program needs {compiled}: some of its calls may fail"
        ),
        SchemaVersion::Newer {
            installed,
            compiled,
        } => write!(
            f,
            "the schema is version {installed}, and this program knows up to {compiled}: it goes on unless the newer one has removed something"
        ),
        SchemaVersion::Distributed { tables, .. } => write!(
            f,
            "Citus manages {}, and refuses most statements of this program",
            qualified(tables)
        ),
    }
}

fn not_visible(what: HealthPart, reason: Option<&str>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let (part, privilege) = match what {
        HealthPart::Sessions => (
            "the server's sessions, and what holds back vacuum,",
            "a privilege on `pg_stat_activity` and its like",
        ),
        HealthPart::SessionDetails => (
            "what sessions of other roles do, and since when,",
            "the privileges of `pg_read_all_stats`",
        ),
        HealthPart::Schema => ("the version of the schema", "a privilege on it"),
        HealthPart::Queues => ("the queues", "the privileges of an operator"),
        HealthPart::Workers => ("the workers", "the privileges of an operator"),
    };
    match reason {
        None => write!(f, "{part} can't be seen: this role lacks {privilege}"),
        Some(reason) => write!(f, "{part} could not be read: {}", printable(reason)),
    }
}

/// Columns, each as wide as its widest cell: the first to the left, the others to the right.
fn columns<const N: usize>(head: [&str; N], rows: impl Iterator<Item = [String; N]>) -> String {
    let rows: Vec<[String; N]> = [head.map(str::to_owned)].into_iter().chain(rows).collect();
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.max().unwrap_or_default()
    };
    let widths: [usize; N] = std::array::from_fn(width);
    let mut text = String::new();
    for row in &rows {
        for (n, (cell, width)) in row.iter().zip(widths).enumerate() {
            if n == 0 {
                text += &format!("{cell:<width$}");
            } else {
                text += &format!("  {cell:>width$}");
            }
        }
        text += "\n";
    }
    text
}

/// So many lines fit on a screen; findings name the queues beyond.
const MOST_QUEUES: usize = 30;

fn queues(queues: &[QueueHealth]) -> String {
    let head = [
        "queue",
        "ready",
        "delayed",
        "leased",
        "dead letters",
        "oldest ready",
        "consumers",
    ];
    let rows = queues.iter().take(MOST_QUEUES).map(|queue| {
        let stats = &queue.stats;
        [
            stats.queue.to_string(),
            stats.ready.to_string(),
            stats.delayed.to_string(),
            stats.leased.to_string(),
            stats.dead.to_string(),
            stats.oldest_ready.map_or("-".to_owned(), spoken),
            queue.consumers.to_string(),
        ]
    });
    let mut text = columns(head, rows);
    if queues.len() > MOST_QUEUES {
        text += &format!("and {} more queues\n", queues.len() - MOST_QUEUES);
    }
    text
}

fn tables(tables: &[TableHealth]) -> String {
    let head = [
        "table",
        "rows",
        "dead rows",
        "autovacuum at",
        "last vacuum",
        "last analyze",
    ];
    let ago = |time: Option<Duration>| {
        time.map_or("never".to_owned(), |time| format!("{} ago", spoken(time)))
    };
    // Tables of large payloads are mostly empty.
    let shown = tables
        .iter()
        .filter(|table| !table.toast || table.dead_rows > 0);
    let rows = shown.map(|table| {
        let vacuum_at = if table.autovacuum {
            grouped(table.vacuum_at)
        } else {
            "off".to_owned()
        };
        [
            table.full_name(),
            grouped(table.live_rows),
            grouped(table.dead_rows),
            vacuum_at,
            ago(table.last_vacuum),
            ago(table.last_analyze),
        ]
    });
    columns(head, rows)
}

/// A duration in its two largest units: `2 h 14 min`, `45 s`.
fn spoken(time: Duration) -> String {
    const MINUTE: u64 = 60;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;
    match time.as_secs() {
        seconds @ ..MINUTE => format!("{seconds} s"),
        seconds @ ..HOUR => format!("{} min {} s", seconds / MINUTE, seconds % MINUTE),
        seconds @ ..DAY => format!("{} h {} min", seconds / HOUR, seconds % HOUR / MINUTE),
        seconds => format!("{} d {} h", seconds / DAY, seconds % DAY / HOUR),
    }
}

/// A text of others, without what would move a terminal's cursor.
fn printable(text: &str) -> String {
    text.replace(|letter: char| letter.is_control(), " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_two_units() {
        let spoken = [0, 59, 60, 3_599, 3_600, 8_040, 86_400, 100_000_000]
            .map(|seconds| spoken(Duration::from_secs(seconds)));
        assert_eq!(
            spoken,
            [
                "0 s",
                "59 s",
                "1 min 0 s",
                "59 min 59 s",
                "1 h 0 min",
                "2 h 14 min",
                "1 d 0 h",
                "1157 d 9 h"
            ]
        );
    }

    #[test]
    fn what_others_named_cannot_write_over_the_report() {
        assert_eq!(printable("a\u{1b}[2Jb\nc"), "a [2Jb c");
    }
}
