//! Which facts are findings, how severe they are, and what to do about them. The thresholds are here, and in the table
//! at [`FindingKind`]; none of them can be configured.

use std::{cmp::Reverse, time::Duration};

use super::{
    ConnectionUse, Facts, Finding, FindingKind, Health, HealthPart, HorizonHolder, HorizonSource,
    Part, QueueHealth, Severity, StaleWorker, TableHealth,
};
use crate::{admin::rows::SchemaVersion, error::DISTRIBUTED_REMEDY};

const HOUR: Duration = Duration::from_secs(60 * 60);

/// From when on a snapshot, or a ready message, is old. A report of some minutes is nothing unusual.
const OLD: [Duration; 2] = [Duration::from_secs(5 * 60), HOUR];
/// How many transactions a snapshot may hold back. Each may have left dead rows.
const HELD_TRANSACTIONS: [u64; 2] = [1_000_000, 10_000_000];
/// How many times as many dead rows as autovacuum starts at. It looks once a minute, in which a busy queue makes some
/// times as many.
const DEAD_ROWS: [u64; 2] = [10, 100];
/// How long ago a vacuum may have been, if there are so many dead rows.
const LAST_VACUUM: [Duration; 2] = [Duration::from_secs(10 * 60), HOUR];
/// Percent of the connections.
const CONNECTIONS: [u64; 2] = [80, 95];
/// Autovacuum freezes from 200,000,000 on by default, and stops being considerate at 1,600,000,000.
const UNFROZEN: [u64; 2] = [500_000_000, 1_500_000_000];

impl From<Facts> for Health {
    fn from(facts: Facts) -> Self {
        let findings = find(&facts);
        let server = facts.server;
        Self {
            findings,
            checked_at: facts.now,
            database: server.database,
            role: server.role,
            server_version: server.version,
            schema: facts.schema.read(),
            horizon: facts.horizon.read(),
            tables: facts.tables,
            autovacuum: server.autovacuum,
            queues: facts.queues.read().unwrap_or_default(),
            stale_workers: facts.workers.read().unwrap_or_default(),
            connections: facts.connections.read(),
            unfrozen_transactions: server.unfrozen_transactions,
        }
    }
}

/// The findings, the most severe first.
fn find(facts: &Facts) -> Vec<Finding> {
    let server = &facts.server;
    let held: Vec<_> = match &facts.horizon {
        Part::Read(horizon) => horizon.holders.iter().filter_map(held).collect(),
        _ => Vec::new(),
    };
    let is_held = held
        .iter()
        .any(|finding| matches!(&finding.kind, FindingKind::HorizonHeld(holder) if !holder.only_catalogs));
    let mut findings = held;
    if !server.autovacuum {
        findings.push(autovacuum_off_for_all());
    }
    for table in &facts.tables {
        findings.extend(autovacuum_off(table, &facts.tables));
        findings.extend(dead_rows(table, is_held));
    }
    if let Part::Read(version) = &facts.schema {
        findings.extend(schema(version));
    }
    if let Part::Read(queues) = &facts.queues {
        findings.extend(queues.iter().filter_map(backlog));
    }
    if let Part::Read(workers) = &facts.workers {
        findings.extend(workers.iter().map(missed_heartbeats));
    }
    if let Part::Read(used) = &facts.connections {
        findings.extend(connections(*used));
    }
    findings.extend(wraparound(server.unfrozen_transactions));
    if !server.sees_sessions {
        findings.push(session_details_not_visible(&server.role));
    }
    let sessions = not_visible(&facts.horizon, HealthPart::Sessions, &server.role);
    let parts = [
        sessions.or_else(|| not_visible(&facts.connections, HealthPart::Sessions, &server.role)),
        not_visible(&facts.schema, HealthPart::Schema, &server.role),
        not_visible(&facts.queues, HealthPart::Queues, &server.role),
        not_visible(&facts.workers, HealthPart::Workers, &server.role),
    ];
    findings.extend(parts.into_iter().flatten());
    findings.sort_by_key(|finding| Reverse(finding.severity));
    findings
}

/// The severity of a value that two thresholds are compared with.
fn severity<T: PartialOrd>(value: T, [warning, critical]: [T; 2]) -> Option<Severity> {
    if value >= critical {
        Some(Severity::Critical)
    } else if value >= warning {
        Some(Severity::Warning)
    } else {
        None
    }
}

fn held(holder: &HorizonHolder) -> Option<Finding> {
    let by_time = holder.held_for.and_then(|time| severity(time, OLD));
    let severity = by_time.max(severity(holder.transactions, HELD_TRANSACTIONS))?;
    Some(Finding {
        // No row of a queue is held back by it.
        severity: if holder.only_catalogs {
            Severity::Warning
        } else {
            severity
        },
        remedy: release_remedy(&holder.source),
        kind: FindingKind::HorizonHeld(holder.clone()),
    })
}

fn release_remedy(source: &HorizonSource) -> String {
    match source {
        HorizonSource::Session {
            pid, state, role, ..
        } => match state.as_deref() {
            Some("active") => format!(
                "wait for its statement to end, or run `select pg_cancel_backend({pid})`, or `select pg_terminate_backend({pid})` if that has no effect; run long reports on a standby without `hot_standby_feedback`"
            ),
            None => format!(
                "its state isn't visible to this role: as a superuser, run `select state, xact_start, query from pg_stat_activity where pid = {pid}`, and `select pg_terminate_backend({pid})` only if it is idle in a transaction"
            ),
            Some(_) => {
                let end = format!(
                    "run `select pg_terminate_backend({pid})`, or end the transaction in its application"
                );
                role.as_deref().map_or(end.clone(), |role| {
                    format!(
                        "{end}; `alter role {} set idle_in_transaction_session_timeout = '5min'` lets the server do so from then on",
                        quoted(role)
                    )
                })
            }
        },
        HorizonSource::PreparedTransaction { gid, .. } => {
            let gid = gid.replace('\'', "''");
            format!(
                "run `commit prepared '{gid}'` or `rollback prepared '{gid}'` in this database, as its transaction manager has decided"
            )
        }
        HorizonSource::ReplicationSlot {
            name,
            active_pid: None,
        } => format!(
            "run `select pg_drop_replication_slot('{name}')` if its standby or subscriber is gone for good, or else start that again"
        ),
        HorizonSource::ReplicationSlot { .. } | HorizonSource::Standby { .. } => {
            "on the standby or subscriber, find its old transaction with `select pid, query from pg_stat_activity order by age(backend_xmin) desc nulls last`, and end it; or run `alter system set hot_standby_feedback = off` and `select pg_reload_conf()` there".to_owned()
        }
    }
}

fn autovacuum_off_for_all() -> Finding {
    Finding {
        severity: Severity::Warning,
        kind: FindingKind::AutovacuumOff { table: None },
        remedy: "run `alter system reset autovacuum`, `alter system reset track_counts` and `select pg_reload_conf()`, and look at `show autovacuum` and `show track_counts` afterwards: both must be on".to_owned(),
    }
}

fn autovacuum_off(table: &TableHealth, tables: &[TableHealth]) -> Option<Finding> {
    // The table of large payloads has the settings of its table, unless it has its own.
    let mut mains = tables.iter().filter(|main| !main.toast);
    let is_inherited = table.toast && mains.any(|main| main.name == table.name && !main.autovacuum);
    if table.autovacuum || is_inherited {
        return None;
    }
    let settings = if table.toast {
        "toast.autovacuum_enabled"
    } else {
        "autovacuum_enabled, toast.autovacuum_enabled"
    };
    let is_full = table.dead_rows >= table.vacuum_at.saturating_mul(DEAD_ROWS[0]);
    Some(Finding {
        severity: if is_full {
            Severity::Critical
        } else {
            Severity::Warning
        },
        kind: FindingKind::AutovacuumOff {
            table: Some(table.full_name()),
        },
        remedy: format!("run `alter table pgqrs.{} reset ({settings})`", table.name),
    })
}

/// Many dead rows are only a finding if vacuum has not run for long, or can't remove them. Otherwise it is at work.
fn dead_rows(table: &TableHealth, is_held: bool) -> Option<Finding> {
    let times = |n: u64| table.vacuum_at.saturating_mul(n);
    let by_rows = severity(table.dead_rows, DEAD_ROWS.map(times))?;
    let since = table.last_vacuum.unwrap_or(Duration::MAX);
    let by_time = severity(since, LAST_VACUUM);
    let severity = match (by_time, is_held) {
        (_, true) => by_rows,
        (Some(by_time), false) => by_rows.min(by_time),
        (None, false) => return None,
    };
    let name = &table.name;
    Some(Finding {
        severity,
        kind: FindingKind::DeadRows(table.clone()),
        remedy: if is_held {
            format!("end what holds back vacuum, and run `vacuum (verbose) pgqrs.{name}`")
        } else {
            format!("run `vacuum (verbose) pgqrs.{name}`, which blocks no message")
        },
    })
}

fn schema(version: &SchemaVersion) -> Option<Finding> {
    let install = "as the schema's owner, call `pgqrs::admin(&store).install()`, or run `cargo xtask migrate --url …`";
    let (severity, remedy) = match version {
        SchemaVersion::UpToDate { .. } => return None,
        SchemaVersion::NotInstalled => (Severity::Critical, install),
        SchemaVersion::Older { .. } => (Severity::Warning, install),
        SchemaVersion::Newer { .. } => (
            Severity::Info,
            "upgrade pgqrs in this program when it suits you",
        ),
        SchemaVersion::Distributed { .. } => (Severity::Critical, DISTRIBUTED_REMEDY),
    };
    Some(Finding {
        severity,
        kind: FindingKind::Schema {
            version: version.clone(),
        },
        remedy: remedy.to_owned(),
    })
}

fn backlog(queue: &QueueHealth) -> Option<Finding> {
    let severity = severity(queue.stats.oldest_ready?, OLD)?;
    let name = &queue.stats.queue;
    let remedy = match (queue.consumers, queue.suspended_consumers) {
        _ if queue.is_paused => {
            format!("resume the queue with `pgqrs::admin(&store).resume_queue(\"{name}\")`: it is paused")
        }
        (0, 0) => format!(
            "start a consumer: none is registered for it; `pgqrs::admin(&store).workers(..)` lists workers, and `purge_queue(\"{name}\")` deletes the messages if nobody needs them"
        ),
        (0, _) => "resume its consumers with `pgqrs::admin(&store).resume_worker(id)`: all of them are suspended; `workers(..)` lists them".to_owned(),
        _ => format!(
            "look at the consumers' logs for failures, and at what handlers wait for; raise `concurrency`, or start more consumers; `pgqrs::admin(&store).messages(\"{name}\", ..)` shows the last errors"
        ),
    };
    Some(Finding {
        severity,
        kind: FindingKind::Backlog(queue.clone()),
        remedy,
    })
}

fn missed_heartbeats(stale: &StaleWorker) -> Finding {
    let worker = &stale.worker;
    let id = worker.id;
    let severity = if stale.others_run {
        Severity::Info
    } else {
        Severity::Warning
    };
    Finding {
        severity,
        remedy: format!(
            "look for its process on `{}`; if it has crashed, `pgqrs::admin(&store).release({id})` makes the messages that it holds ready at once, and `remove_worker({id})` removes its row, which otherwise happens a day after its last heartbeat",
            worker.hostname
        ),
        kind: FindingKind::MissedHeartbeats(stale.clone()),
    }
}

fn connections(found: ConnectionUse) -> Option<Finding> {
    let percent = found
        .used
        .saturating_mul(100)
        .checked_div(found.limit)
        .unwrap_or(100);
    Some(Finding {
        severity: severity(percent, CONNECTIONS)?,
        kind: FindingKind::ConnectionsShort(found),
        remedy: "see who has them with `select usename, application_name, state, count(*) from pg_stat_activity group by 1, 2, 3 order by 4 desc`; lower `max_connections` of the stores or pools that have most, put PgBouncer in front, or raise the server's `max_connections`".to_owned(),
    })
}

fn wraparound(transactions: u64) -> Option<Finding> {
    Some(Finding {
        severity: severity(transactions, UNFROZEN)?,
        kind: FindingKind::Wraparound { transactions },
        remedy: "end what holds back vacuum, and run `vacuum (freeze, verbose)` in this database, as a superuser".to_owned(),
    })
}

fn session_details_not_visible(role: &str) -> Finding {
    Finding {
        severity: Severity::Info,
        kind: FindingKind::NotVisible {
            what: HealthPart::SessionDetails,
            reason: None,
        },
        remedy: format!(
            "as a superuser, run `grant pg_read_all_stats to {}`",
            quoted(role)
        ),
    }
}

fn not_visible<T>(part: &Part<T>, what: HealthPart, role: &str) -> Option<Finding> {
    let (severity, reason, remedy) = match part {
        Part::Read(_) | Part::Absent => return None,
        Part::Denied if what == HealthPart::Sessions => (
            Severity::Info,
            None,
            format!(
                "as a superuser, run `grant select on pg_stat_activity, pg_stat_replication, pg_stat_progress_vacuum, pg_prepared_xacts, pg_replication_slots to {}`",
                quoted(role)
            ),
        ),
        Part::Denied => (
            Severity::Info,
            None,
            format!(
                "as the schema's owner, run what `pgqrs::Access::Operator.grants(\"{role}\")` returns, or `cargo xtask migrate grants --operator {role}` prints"
            ),
        ),
        Part::Failed(reason) => (
            Severity::Warning,
            Some(reason.clone()),
            "if something holds back vacuum, end that first; see who has locked the tables with `select l.pid, l.mode, l.relation::regclass, a.query from pg_locks l join pg_stat_activity a using (pid) join pg_class c on c.oid = l.relation where c.relnamespace = 'pgqrs'::regnamespace and l.granted`".to_owned(),
        ),
    };
    Some(Finding {
        severity,
        kind: FindingKind::NotVisible { what, reason },
        remedy,
    })
}

/// A role's name as an identifier in SQL.
fn quoted(role: &str) -> String {
    format!("\"{}\"", role.replace('"', "\"\""))
}

#[cfg(test)]
mod tests;
