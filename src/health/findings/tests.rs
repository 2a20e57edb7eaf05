//! Which facts are findings, at both sides of each threshold.

use chrono::DateTime;

use super::*;
use crate::{
    admin::rows::{QueueStats, WorkerInfo},
    count::Count,
    health::{Health, Horizon, ServerFacts},
    lifecycle::{WorkerId, WorkerKind, WorkerStatus},
    queue::QueueName,
};

const SECOND: Duration = Duration::from_secs(1);

/// A database that nothing is to be done about.
fn healthy() -> Facts {
    Facts {
        now: DateTime::UNIX_EPOCH,
        server: ServerFacts {
            database: "shop".to_owned(),
            role: "web".to_owned(),
            version: "17.2".to_owned(),
            sees_sessions: true,
            autovacuum: true,
            unfrozen_transactions: 1_000,
        },
        horizon: Part::Read(Horizon::default()),
        connections: Part::Read(ConnectionUse {
            used: 10,
            limit: 97,
        }),
        tables: vec![table()],
        schema: Part::Read(SchemaVersion::UpToDate {
            installed: 1,
            on_citus: false,
        }),
        queues: Part::Read(vec![queue(SECOND)]),
        workers: Part::Read(Vec::new()),
    }
}

fn held_by(holders: Vec<HorizonHolder>) -> Part<Horizon> {
    Part::Read(Horizon { holders })
}

fn table() -> TableHealth {
    TableHealth {
        name: "messages".to_owned(),
        toast: false,
        live_rows: 100,
        inserted: 0,
        deleted: 0,
        dead_rows: 500,
        vacuum_at: 1_000,
        last_vacuum: Some(SECOND),
        last_analyze: Some(SECOND),
        autovacuum: true,
    }
}

fn queue(oldest_ready: Duration) -> QueueHealth {
    QueueHealth {
        stats: QueueStats {
            queue: QueueName::new("emails").expect("a name"),
            ready: Count::new(10_000, true),
            delayed: Count::new(12, false),
            parked: Count::new(0, false),
            leased: Count::new(8, true),
            dead: Count::new(3, false),
            oldest_ready: Some(oldest_ready),
            stopped_groups: Count::new(0, false),
        },
        consumers: 4,
        suspended_consumers: 0,
        settled: 0,
        settled_at: None,
        is_paused: false,
    }
}

fn session(held_for: Option<Duration>, transactions: u64) -> HorizonHolder {
    HorizonHolder {
        source: HorizonSource::Session {
            pid: 4711,
            role: Some("report".to_owned()),
            application: "metabase".to_owned(),
            state: Some("idle in transaction".to_owned()),
            query: Some("select * from orders".to_owned()),
        },
        transactions,
        held_for,
        only_catalogs: false,
    }
}

/// The severity and the kind of each finding, after a change of the healthy facts.
fn found(change: impl FnOnce(&mut Facts)) -> Vec<(Severity, &'static str)> {
    let mut facts = healthy();
    change(&mut facts);
    let findings = find(&facts);
    findings
        .iter()
        .map(|finding| (finding.severity, finding.kind.as_str()))
        .collect()
}

/// Checks what two values just below a threshold and just at it are.
#[track_caller]
fn steps<T>(kind: &'static str, values: [T; 4], change: impl Fn(&mut Facts, T)) {
    let expected = [
        None,
        Some(Severity::Warning),
        Some(Severity::Warning),
        Some(Severity::Critical),
    ];
    for (n, (value, expected)) in values.into_iter().zip(expected).enumerate() {
        let found = found(|facts| change(facts, value));
        let expected: Vec<_> = expected
            .map(|severity| (severity, kind))
            .into_iter()
            .collect();
        assert_eq!(found, expected, "value {n}");
    }
}

const OLD_TIMES: [Duration; 4] = [
    Duration::from_secs(299),
    Duration::from_secs(300),
    Duration::from_secs(3_599),
    HOUR,
];

#[test]
fn a_healthy_database_has_no_findings() {
    assert_eq!(found(|_| ()), []);
}

#[test]
fn an_old_snapshot_is_a_finding_by_its_time_or_by_its_transactions() {
    steps("horizon_held", OLD_TIMES, |facts, time| {
        facts.horizon = held_by(vec![session(Some(time), 12)]);
    });
    let transactions = [999_999, 1_000_000, 9_999_999, 10_000_000];
    steps("horizon_held", transactions, |facts, transactions| {
        facts.horizon = held_by(vec![session(None, transactions)]);
    });
    // What holds back only the catalogs is never more than a warning.
    let slot = |facts: &mut Facts| {
        let source = HorizonSource::ReplicationSlot {
            name: "debezium".to_owned(),
            active_pid: None,
        };
        facts.horizon = held_by(vec![HorizonHolder {
            source,
            only_catalogs: true,
            ..session(None, 20_000_000)
        }]);
    };
    assert_eq!(found(slot), [(Severity::Warning, "horizon_held")]);
}

#[test]
fn dead_rows_are_a_finding_if_vacuum_has_not_run_or_cannot_remove_them() {
    let with = |dead_rows, last_vacuum, held: Option<Duration>| {
        found(|facts| {
            facts.tables = vec![TableHealth {
                dead_rows,
                last_vacuum,
                ..table()
            }];
            facts.horizon = held_by(held.into_iter().map(|t| session(Some(t), 1)).collect());
        })
    };
    let warning = (Severity::Warning, "dead_rows");
    let critical = (Severity::Critical, "dead_rows");
    let minutes = |minutes: u64| Some(Duration::from_secs(minutes * 60));
    // Vacuum keeps up, or there is little to do.
    assert_eq!(with(1_000_000, minutes(9), None), []);
    assert_eq!(with(9_999, None, None), []);
    assert_eq!(with(10_000, minutes(10), None), [warning]);
    assert_eq!(with(10_000, None, None), [warning]);
    assert_eq!(with(100_000, minutes(59), None), [warning]);
    assert_eq!(with(100_000, minutes(60), None), [critical]);
    assert_eq!(with(100_000, None, None), [critical]);
    // Vacuum has just run, and could not remove them.
    let held = (Severity::Warning, "horizon_held");
    assert_eq!(with(9_999, minutes(0), minutes(5)), [held]);
    assert_eq!(with(10_000, minutes(0), minutes(5)), [held, warning]);
    assert_eq!(with(100_000, minutes(0), minutes(5)), [critical, held]);
}

#[test]
fn autovacuum_that_is_off_is_worse_with_dead_rows() {
    let off = |dead_rows| {
        found(|facts| {
            facts.tables = vec![TableHealth {
                dead_rows,
                autovacuum: false,
                ..table()
            }];
        })
    };
    assert_eq!(off(9_999), [(Severity::Warning, "autovacuum_off")]);
    assert_eq!(off(10_000), [(Severity::Critical, "autovacuum_off")]);
    assert_eq!(
        found(|facts| facts.server.autovacuum = false),
        [(Severity::Warning, "autovacuum_off")]
    );
}

#[test]
fn messages_that_wait_for_long_are_a_finding() {
    steps("backlog", OLD_TIMES, |facts, time| {
        facts.queues = Part::Read(vec![queue(time)]);
    });
}

#[test]
fn the_remedy_of_a_backlog_depends_on_its_consumers() {
    let remedy = |consumers, suspended_consumers| {
        let queue = QueueHealth {
            consumers,
            suspended_consumers,
            ..queue(HOUR)
        };
        backlog(&queue).expect("it is old").remedy
    };
    assert!(remedy(0, 0).contains("start a consumer"));
    assert!(remedy(0, 2).contains("resume_worker"));
    assert!(remedy(1, 2).contains("concurrency"));
    let paused = QueueHealth {
        is_paused: true,
        ..queue(HOUR)
    };
    let remedy = backlog(&paused).expect("it is old").remedy;
    assert!(remedy.contains("resume_queue(\"emails\")"));
    assert!(paused.to_string().ends_with("the queue is paused"));
}

fn stale(others_run: bool) -> StaleWorker {
    StaleWorker {
        worker: WorkerInfo {
            id: WorkerId::from(7),
            kind: WorkerKind::Consumer,
            queue: QueueName::new("emails").expect("a name"),
            hostname: "web-1".to_owned(),
            port: 3000,
            status: WorkerStatus::Ready,
            started_at: DateTime::UNIX_EPOCH,
            heartbeat_at: DateTime::UNIX_EPOCH,
            settled: 0,
            stale: true,
        },
        last_heartbeat: HOUR,
        others_run,
    }
}

#[test]
fn a_worker_without_heartbeats_is_worse_if_no_other_runs() {
    let found = |others_run| found(|facts| facts.workers = Part::Read(vec![stale(others_run)]));
    assert_eq!(found(true), [(Severity::Info, "missed_heartbeats")]);
    assert_eq!(found(false), [(Severity::Warning, "missed_heartbeats")]);
}

#[test]
fn a_schema_of_another_version_is_a_finding() {
    let schema = |version| found(|facts| facts.schema = Part::Read(version));
    let (installed, compiled) = (1, 2);
    assert_eq!(
        schema(SchemaVersion::NotInstalled),
        [(Severity::Critical, "schema")]
    );
    assert_eq!(
        schema(SchemaVersion::Older {
            installed,
            compiled
        }),
        [(Severity::Warning, "schema")]
    );
    assert_eq!(
        schema(SchemaVersion::Newer {
            installed,
            compiled
        }),
        [(Severity::Info, "schema")]
    );
    assert_eq!(
        schema(SchemaVersion::Distributed {
            installed,
            tables: vec!["messages".to_owned()]
        }),
        [(Severity::Critical, "schema")]
    );
}

#[test]
fn connections_that_are_nearly_used_up_are_a_finding() {
    let limit = 100;
    steps("connections_short", [79, 80, 94, 95], |facts, used| {
        facts.connections = Part::Read(ConnectionUse { used, limit });
    });
    // A server that reserves all of them.
    let none = ConnectionUse { used: 0, limit: 0 };
    assert_eq!(
        found(|facts| facts.connections = Part::Read(none)),
        [(Severity::Critical, "connections_short")]
    );
}

#[test]
fn a_database_that_is_not_frozen_is_a_finding() {
    let transactions = [499_999_999, 500_000_000, 1_499_999_999, 1_500_000_000];
    steps("wraparound", transactions, |facts, transactions| {
        facts.server.unfrozen_transactions = transactions;
    });
}

#[test]
fn what_cannot_be_seen_is_said() {
    let not_visible = |severity| vec![(severity, "not_visible")];
    assert_eq!(
        found(|facts| facts.server.sees_sessions = false),
        not_visible(Severity::Info)
    );
    assert_eq!(
        found(|facts| facts.queues = Part::Denied),
        not_visible(Severity::Info)
    );
    assert_eq!(
        found(|facts| facts.workers = Part::Failed("a lock".to_owned())),
        not_visible(Severity::Warning)
    );
    // There are none, and the schema is a finding by itself.
    assert_eq!(found(|facts| facts.queues = Part::Absent), []);
}

#[test]
fn identifiers_in_remedies_are_quoted() {
    let prepared = HorizonSource::PreparedTransaction {
        gid: "it's".to_owned(),
        role: "web".to_owned(),
    };
    assert!(release_remedy(&prepared).contains("rollback prepared 'it''s'"));
    assert!(
        session_details_not_visible("a\"b")
            .remedy
            .contains(r#"to "a""b""#)
    );
}

#[test]
fn a_program_reads_the_kind_and_its_data_as_json() {
    let mut facts = healthy();
    facts.horizon = held_by(vec![session(Some(HOUR), 12)]);
    let health = serde_json::to_value(Health::from(facts)).expect("it serialises");
    let finding = &health["findings"][0];
    assert_eq!(finding["severity"], "critical");
    assert_eq!(finding["kind"], "horizon_held");
    assert_eq!(finding["source"], "session");
    assert_eq!(finding["pid"], 4711);
    assert_eq!(health["queues"][0]["stats"]["ready"]["at_least"], true);
}

/// As the operator reads it.
#[test]
fn the_report_puts_the_worst_first_and_names_what_to_do() {
    let mut facts = healthy();
    facts.horizon = held_by(vec![session(Some(Duration::from_secs(8_040)), 1_204_331)]);
    facts.queues = Part::Read(vec![queue(Duration::from_secs(400))]);
    facts.tables = vec![TableHealth {
        dead_rows: 3_301_220,
        last_vacuum: Some(Duration::from_secs(40)),
        ..table()
    }];
    facts.workers = Part::Read(vec![stale(true)]);
    facts.now = DateTime::from_timestamp(1_795_662_764, 0).expect("a time");
    let health = Health::from(facts);
    assert_eq!(health.severity(), Some(Severity::Critical));
    let report = health.to_string();
    let page = include_str!("../../../docs/guide/health.md");
    assert!(
        page.contains(&format!("```text\n{report}\n```")),
        "docs/guide/health.md has another report than\n{report}"
    );
}

#[test]
fn no_remedy_ends_a_session_whose_state_is_not_visible() {
    let mut facts = healthy();
    let mut holder = session(Some(HOUR), 12);
    let HorizonSource::Session { state, role, .. } = &mut holder.source else {
        unreachable!("it is a session");
    };
    (*state, *role) = (None, None);
    facts.horizon = held_by(vec![holder]);
    let health = Health::from(facts);
    let remedy = &health.findings[0].remedy;
    assert!(
        remedy.starts_with("its state isn't visible to this role"),
        "{remedy}"
    );
    assert!(!remedy.contains("alter role"), "{remedy}");
}
