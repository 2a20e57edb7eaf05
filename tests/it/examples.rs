//! The examples run, and print what they say they print.

use std::{collections::BTreeSet, env, net::TcpListener, path::PathBuf, process::Stdio};

use sqlx::{AssertSqlSafe, PgPool};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::Command,
};

use crate::support::{TestResult, until, url};

/// A compiled example, or a process of `tests/process/`. Cargo builds them with the tests, if it is asked for all targets.
pub(crate) fn compiled(example: &str) -> PathBuf {
    let test = env::current_exe().expect("the test knows where it is");
    let profile = test.ancestors().nth(2).expect("…/deps/it");
    let path = profile.join("examples").join(example);
    assert!(
        path.exists(),
        "there is no {}; `cargo build --examples` makes it",
        path.display()
    );
    path
}

/// As in a fresh checkout, if only the tests were built.
#[test]
#[should_panic(expected = "no_such_process; `cargo build --examples` makes it")]
fn a_program_that_was_not_built_is_named_with_what_builds_it() {
    compiled("no_such_process");
}

async fn prints_its_output(pool: &PgPool, example: &str, source: &str) -> TestResult {
    prints_with("DATABASE_URL", &url(pool), example, source).await
}

async fn prints_with(variable: &str, value: &str, example: &str, source: &str) -> TestResult {
    let run = Command::new(compiled(example))
        .env(variable, value)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await?;
    assert!(
        run.status.success(),
        "{}",
        String::from_utf8_lossy(&run.stderr)
    );
    let (in_any_order, promised) = source
        .split_once("// Output:\n")
        .map(|(_, promised)| (false, promised))
        .or_else(|| Some((true, source.split_once("// Output, in any order:\n")?.1)))
        .expect("the example says what it prints");
    let mut promised: Vec<_> = promised
        .lines()
        .map(|line| line.trim_start_matches("// "))
        .collect();
    let printed = String::from_utf8_lossy(&run.stdout);
    let mut printed: Vec<_> = printed.lines().collect();
    if in_any_order {
        printed.sort_unstable();
        promised.sort_unstable();
    }
    assert_eq!(printed, promised);
    Ok(())
}

#[sqlx::test(migrations = false)]
async fn managed_producer(pool: PgPool) -> TestResult {
    prints_its_output(
        &pool,
        "managed_producer",
        include_str!("../../examples/managed_producer.rs"),
    )
    .await
}

#[sqlx::test(migrations = false)]
async fn worker(pool: PgPool) -> TestResult {
    prints_its_output(&pool, "worker", include_str!("../../examples/worker.rs")).await
}

#[sqlx::test(migrations = false)]
async fn transactional_handler(pool: PgPool) -> TestResult {
    let source = include_str!("../../examples/transactional_handler.rs");
    prints_its_output(&pool, "transactional_handler", source).await
}

#[sqlx::test(migrations = false)]
async fn tower(pool: PgPool) -> TestResult {
    prints_its_output(&pool, "tower", include_str!("../../examples/tower.rs")).await
}

#[sqlx::test(migrations = false)]
async fn schedules(pool: PgPool) -> TestResult {
    let source = include_str!("../../examples/schedules.rs");
    prints_its_output(&pool, "schedules", source).await
}

#[sqlx::test(migrations = false)]
async fn groups(pool: PgPool) -> TestResult {
    prints_its_output(&pool, "groups", include_str!("../../examples/groups.rs")).await
}

/// Three databases: the test's own, and two beside it.
#[sqlx::test(migrations = false)]
async fn several_databases(pool: PgPool) -> TestResult {
    // A test's own database has a name of the maximum length.
    let others = ["b", "c"].map(|name| format!("place_{name}_{}", std::process::id()));
    let mut urls = vec![url(&pool)];
    for other in &others {
        let create = AssertSqlSafe(format!("create database {other:?}"));
        sqlx::query(create).execute(&pool).await?;
        let mut url: url::Url = url(&pool).parse()?;
        url.set_path(other);
        urls.push(url.to_string());
    }
    let source = include_str!("../../examples/several_databases.rs");
    let printed = prints_with(
        "DATABASE_URLS",
        &urls.join(" "),
        "several_databases",
        source,
    )
    .await;
    for other in &others {
        let drop = AssertSqlSafe(format!("drop database {other:?} with (force)"));
        sqlx::query(drop).execute(&pool).await?;
    }
    printed
}

#[sqlx::test(migrations = false)]
async fn payload_evolution(pool: PgPool) -> TestResult {
    let source = include_str!("../../examples/payload_evolution.rs");
    prints_its_output(&pool, "payload_evolution", source).await
}

#[sqlx::test(migrations = false)]
async fn rolling_deploy(pool: PgPool) -> TestResult {
    let source = include_str!("../../examples/rolling_deploy.rs");
    prints_its_output(&pool, "rolling_deploy", source).await
}

#[sqlx::test(migrations = false)]
async fn health_prints_a_report_and_fails_if_something_is_critical(pool: PgPool) -> TestResult {
    let run = async || {
        let mut command = Command::new(compiled("health"));
        command.env("DATABASE_URL", url(&pool)).kill_on_drop(true);
        command.output().await
    };
    let bare = run().await?;
    let report = String::from_utf8_lossy(&bare.stdout);
    assert!(
        report.contains("\nCRITICAL  pgqrs is not installed"),
        "{report}"
    );
    assert_eq!(bare.status.code(), Some(1), "{bare:?}");
    pgqrs::MIGRATOR.run(&pool).await?;
    let installed = run().await?;
    let report = String::from_utf8_lossy(&installed.stdout);
    assert!(report.contains("\nOK        nothing to act on"), "{report}");
    assert!(installed.status.success(), "{installed:?}");
    Ok(())
}

#[sqlx::test(migrations = false)]
async fn service(pool: PgPool) -> TestResult {
    prints_its_output(&pool, "service", include_str!("../../examples/service.rs")).await
}

/// A page, as Prometheus fetches it.
async fn page(port: u16) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    Ok(answer)
}

/// The value of a series with these labels, and maybe others.
fn series(page: &str, name: &str, labels: &[&str]) -> Option<f64> {
    let mut lines = page.lines().filter(|line| {
        let rest = line.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with('{')) && labels.iter().all(|l| line.contains(l))
    });
    let (_, value) = lines.next()?.rsplit_once(' ')?;
    value.parse().ok()
}

#[sqlx::test(migrations = false)]
async fn observed_worker_serves_the_metrics_of_the_alerts_and_prints_a_log_and_traces(
    pool: PgPool,
) -> TestResult {
    let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
    let worker = Command::new(compiled("observed_worker"))
        .env("DATABASE_URL", url(&pool))
        .env("METRICS_ADDRESS", format!("127.0.0.1:{port}"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let emails = "messaging_destination_name=\"emails\"";
    let ready = "pgqrs_message_state=\"ready\"";
    let failed = "error_type=\"HandlerError\"";
    let mut shown = String::new();
    until("the page has all of it", async || {
        shown = page(port).await.unwrap_or_default();
        let value = |name: &str, labels: &[&str]| series(&shown, name, labels);
        value("pgqrs_message_dead_letters", &[emails]) == Some(2.0)
            && value("pgqrs_message_retries", &[emails]) == Some(1.0)
            && value("messaging_process_duration_count", &[emails, failed]) == Some(2.0)
            && value("pgqrs_message_wait_duration_bucket", &[emails, "+Inf"]) == Some(4.0)
            && value("pgqrs_queue_messages", &[emails, ready]).is_some()
    })
    .await;
    // Each metric of the alerts has this name there.
    let alerts = include_str!("../../docs/alerts.yml");
    let words = alerts.split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_'));
    let metrics: BTreeSet<_> = words
        .filter(|word| word.starts_with("pgqrs_") || word.starts_with("messaging_process"))
        .collect();
    assert!(metrics.len() >= 5, "{metrics:?}");
    for metric in metrics {
        assert!(series(&shown, metric, &[]).is_some(), "{metric}: {shown}");
    }

    let id = worker.id().ok_or("it runs")?.to_string();
    assert!(Command::new("kill").arg(&id).status().await?.success());
    let ended = worker.wait_with_output().await?;
    let log = String::from_utf8_lossy(&ended.stderr);
    let traces = String::from_utf8_lossy(&ended.stdout);
    assert!(ended.status.success(), "{log}");
    for line in [
        " INFO pgqrs: consumer started queue=\"emails\"",
        " WARN pgqrs: attempt failed queue=\"emails\"",
        "ERROR pgqrs: message moved to the dead letters queue=\"emails\"",
        " INFO pgqrs: consumer stopped queue=\"emails\"",
    ] {
        assert!(log.contains(line), "no {line:?} in\n{log}");
    }
    for span in ["send", "receive", "process", "ack", "nack"] {
        let name = format!("Name         : {span} emails\n");
        assert!(traces.contains(&name), "no {name:?} in\n{traces}");
    }
    Ok(())
}
