//! Prometheus accepts the alerts and the queries of the dashboard, and the alerts fire when they should. Its `promtool`
//! says so; a machine that has none skips it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::{Command, Stdio},
};

use crate::root;

/// For files that live as long as a test.
fn target() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
}

/// Runs `promtool` on a file; `None` if there is none.
fn promtool(arguments: &[&str], file: &Path) -> Option<(bool, String)> {
    let ran = Command::new("promtool")
        .args(arguments)
        .arg(file)
        .stdin(Stdio::null())
        .output()
        .ok()?;
    let said = [ran.stdout, ran.stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
    Some((ran.status.success(), said.concat()))
}

/// CI has it.
fn skip() {
    let missing = "there is no promtool; it is in Debian's package `prometheus`";
    assert!(std::env::var_os("PGQRS_CI").is_none(), "{missing}");
    eprintln!("skipped: {missing}");
}

/// The queries of the dashboard, with values for Grafana's variables.
fn queries() -> Vec<String> {
    let text = fs::read_to_string(root().join("docs/grafana.json")).expect("it is there");
    let dashboard: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
    let panels = dashboard["panels"].as_array().expect("it has panels");
    let targets = panels.iter().flat_map(|panel| {
        let targets = panel["targets"].as_array();
        targets.expect("each panel has queries")
    });
    let queries = targets.map(|target| target["expr"].as_str().expect("a query"));
    let queries = queries.map(|query| {
        query
            .replace("$__rate_interval", "5m")
            .replace("$queue", ".*")
    });
    queries.collect()
}

#[test]
fn prometheus_accepts_the_alerts_and_the_queries_of_the_dashboard() {
    let alerts = root().join("docs/alerts.yml");
    let Some((accepted, said)) = promtool(&["check", "rules"], &alerts) else {
        return skip();
    };
    assert!(accepted && said.contains("7 rules"), "{said}");

    // As rules, since promtool checks those.
    let queries = queries();
    assert!(queries.len() >= 20, "only {}", queries.len());
    let rules: String = queries
        .iter()
        .enumerate()
        .map(|(at, query)| format!("      - record: query:{at}\n        expr: {query:?}\n"))
        .collect();
    let folder = target();
    let file = folder.join(format!("queries-{}.yml", std::process::id()));
    fs::write(
        &file,
        format!("groups:\n  - name: queries\n    rules:\n{rules}"),
    )
    .expect("written");
    let checked = promtool(&["check", "rules"], &file);
    fs::remove_file(&file).expect("removed");
    let (accepted, said) = checked.expect("it was there before");
    assert!(accepted, "{said}");
}

/// Series of an hour, one value a minute; the alert, and its labels if it fires at the end of the hour.
const CASES: [(&str, &[&str], Option<&str>); 15] = [
    (
        "PgqrsServerAway",
        &["pgqrs_server_away{db_client_connection_pool_name='db'} 1x60"],
        Some("db_client_connection_pool_name: db"),
    ),
    (
        "PgqrsServerAway",
        &["pgqrs_server_away{db_client_connection_pool_name='db'} 1x58 0 0"],
        None,
    ),
    (
        "PgqrsDeadLetters",
        &["pgqrs_message_dead_letters{messaging_destination_name='emails'} 0x50 1x10"],
        Some("messaging_destination_name: emails"),
    ),
    (
        "PgqrsDeadLetters",
        &["pgqrs_message_dead_letters{messaging_destination_name='emails'} 7x60"],
        None,
    ),
    (
        "PgqrsMessagesWait",
        &["pgqrs_queue_oldest_ready_age{messaging_destination_name='emails'} 0+60x60"],
        Some("messaging_destination_name: emails"),
    ),
    (
        "PgqrsMessagesWait",
        &["pgqrs_queue_oldest_ready_age{messaging_destination_name='emails'} 200x60"],
        None,
    ),
    (
        "PgqrsGroupsStopped",
        &["pgqrs_queue_groups_stopped{messaging_destination_name='emails'} 2x60"],
        Some("messaging_destination_name: emails"),
    ),
    (
        "PgqrsGroupsStopped",
        &["pgqrs_queue_groups_stopped{messaging_destination_name='emails'} 0x60"],
        None,
    ),
    (
        "PgqrsHandlersFail",
        &[
            "messaging_process_duration_count{messaging_destination_name='emails'} 0+7x60",
            "messaging_process_duration_count{messaging_destination_name='emails',error_type='HandlerError'} 0+2x60",
            "messaging_process_duration_count{messaging_destination_name='emails',error_type='HandlerPanic'} 0+1x60",
        ],
        Some("messaging_destination_name: emails"),
    ),
    (
        "PgqrsHandlersFail",
        &[
            "messaging_process_duration_count{messaging_destination_name='emails'} 0+9x60",
            "messaging_process_duration_count{messaging_destination_name='emails',error_type='HandlerError'} 0+1x60",
        ],
        None,
    ),
    (
        "PgqrsVacuumHeldBack",
        &["pgqrs_horizon_age{db_client_connection_pool_name='db'} 0+60x60"],
        Some("db_client_connection_pool_name: db"),
    ),
    (
        "PgqrsVacuumHeldBack",
        &[
            "pgqrs_horizon_age{db_client_connection_pool_name='db'} 5x60",
            "pgqrs_horizon_transactions{db_client_connection_pool_name='db'} 900000x60",
        ],
        None,
    ),
    (
        "PgqrsVacuumHeldBack",
        &[
            "pgqrs_horizon_age{db_client_connection_pool_name='db'} 0x60",
            "pgqrs_horizon_transactions{db_client_connection_pool_name='db'} 0+100000x60",
        ],
        Some("db_client_connection_pool_name: db"),
    ),
    (
        "PgqrsNotObserved",
        &["pgqrs_server_away{db_client_connection_pool_name='db'} 0x60"],
        Some(""),
    ),
    (
        "PgqrsNotObserved",
        &["pgqrs_observation_age{db_client_connection_pool_name='db'} 30x60"],
        None,
    ),
];

#[test]
fn alerts_fire_when_they_should() {
    let text = fs::read_to_string(root().join("docs/alerts.yml")).expect("it is there");
    let mut severities = BTreeMap::new();
    let mut alert = "";
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("- alert: ") {
            alert = name;
        }
        if let Some(severity) = line.strip_prefix("severity: ") {
            severities.insert(alert, severity);
        }
    }
    let in_cases: BTreeSet<_> = CASES.iter().map(|(alert, ..)| *alert).collect();
    assert!(in_cases.iter().eq(severities.keys()), "{in_cases:?}");
    let cases: String = CASES
        .iter()
        .map(|(alert, series, fires)| {
            let series: String = series
                .iter()
                .map(|series| {
                    let (name, values) = series.split_once("} ").expect("values");
                    format!("      - series: \"{name}}}\"\n        values: \"{values}\"\n")
                })
                .collect();
            let expected = fires.map_or(String::new(), |label| {
                let severity = severities[alert];
                format!("        exp_alerts:\n          - exp_labels:\n              severity: {severity}\n              {label}\n")
            });
            format!(
                "  - interval: 1m\n    input_series:\n{series}    alert_rule_test:\n      - eval_time: 1h\n        alertname: {alert}\n{expected}"
            )
        })
        .collect();
    let file = target().join(format!("alerts-{}.yml", std::process::id()));
    // Only the labels are compared, not the texts.
    let bare: String = text
        .lines()
        .filter(|line| {
            !["annotations:", "summary:", "description:"]
                .iter()
                .any(|text| line.trim().starts_with(text))
        })
        .map(|line| format!("{line}\n"))
        .collect();
    let stripped = target().join(format!("rules-{}.yml", std::process::id()));
    fs::write(&stripped, bare).expect("written");
    fs::write(
        &file,
        format!("rule_files:\n  - {}\ntests:\n{cases}", stripped.display()),
    )
    .expect("written");
    let tested = promtool(&["test", "rules"], &file);
    fs::remove_file(&file).expect("removed");
    fs::remove_file(&stripped).expect("removed");
    let Some((passed, said)) = tested else {
        return skip();
    };
    assert!(passed, "{said}");
}
