//! The examples run, and print what they say they print.

use std::{env, path::PathBuf, process::Stdio};

use sqlx::PgPool;
use tokio::process::Command;

use crate::support::{TestResult, url};

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
    let run = Command::new(compiled(example))
        .env("DATABASE_URL", url(pool))
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
