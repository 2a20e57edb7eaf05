//! The integration tests on each supported major version of PostgreSQL.

use std::{process::Stdio, time::Instant};

use anyhow::{Context, Result, ensure};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    process::Command,
};

use crate::{
    cargo, ci,
    server::{self, Purpose, SUPPORTED},
};

/// Runs them on these versions, or on all supported ones if none is named. A failure doesn't skip the remaining
/// versions.
pub(crate) async fn run(majors: &[u32], arguments: &[String]) -> Result<()> {
    let majors = if majors.is_empty() {
        &SUPPORTED
    } else {
        majors
    };
    ci::build_tests().await?;
    let mut table = Vec::new();
    // Two at once: the tests of one leave a processor idle for a third of the time.
    for pair in majors.chunks(2) {
        eprintln!("\n== PostgreSQL {pair:?}");
        let mut runs = pair.iter().map(|major| on(*major, arguments));
        match (runs.next(), runs.next()) {
            (Some(first), Some(second)) => {
                table.extend(<[Row; 2]>::from(tokio::join!(first, second)))
            }
            (Some(last), _) => table.push(last.await),
            _ => {}
        }
    }
    println!("\n| PostgreSQL | result | tests | time |\n|---|---|---|---|");
    for row in &table {
        println!(
            "| {} | {} | {} | {} s |",
            row.version,
            if row.passed { "passed" } else { "FAILED" },
            row.summary,
            row.seconds
        );
    }
    let failed = table.iter().filter(|row| !row.passed).count();
    ensure!(
        failed == 0,
        "the tests failed on {failed} of {} versions",
        table.len()
    );
    Ok(())
}

struct Row {
    version: String,
    passed: bool,
    /// The summary line of the test runner, or the error that kept it from running.
    summary: String,
    seconds: u64,
}

async fn on(major: u32, arguments: &[String]) -> Row {
    let started = Instant::now();
    let mut row = Row {
        version: major.to_string(),
        passed: false,
        summary: String::new(),
        seconds: 0,
    };
    let outcome = server::with_new(Purpose::Tests, Some(major), async |url| {
        row.version = server::version(url).await?;
        (row.passed, row.summary) = test(arguments, url).await?;
        Ok(())
    })
    .await;
    if let Err(error) = outcome {
        row.summary = format!("{error:#}").replace('\n', " ");
    }
    row.seconds = started.elapsed().as_secs();
    row
}

/// Runs the integration tests, all of them even if some fail.
async fn test(arguments: &[String], url: &str) -> Result<(bool, String)> {
    let mut command = if ci::has_nextest().await {
        cargo::command(&["nextest", "run", "--no-fail-fast", "--test", "it"])
    } else {
        cargo::command(&["test", "--no-fail-fast", "--test", "it"])
    };
    command
        .args(arguments)
        .env("DATABASE_URL", url)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    finish(&mut command).await
}

/// Prints the test runner's output, and returns whether it succeeded, and its summary.
async fn finish(command: &mut Command) -> Result<(bool, String)> {
    let mut runner = command.spawn().context("cargo doesn't start")?;
    let printed = runner.stdout.take().context("stdout is piped")?;
    let reported = runner.stderr.take().context("stderr is piped")?;
    let (printed, reported) = tokio::try_join!(summary(printed), summary(reported))?;
    let status = runner.wait().await?;
    Ok((status.success(), reported.or(printed).unwrap_or_default()))
}

/// The last summary line, as printed by `cargo nextest` or `cargo test`.
async fn summary(output: impl AsyncRead + Unpin) -> Result<Option<String>> {
    let mut lines = BufReader::new(output).lines();
    let mut summary = None;
    while let Some(line) = lines.next_line().await? {
        eprintln!("{line}");
        let counts = line
            .split_once(" run: ")
            .filter(|_| line.contains("Summary ["));
        if let Some((_, counts)) = counts.or_else(|| line.split_once("test result: ")) {
            summary = Some(counts.to_owned());
        }
    }
    Ok(summary)
}
