//! Tests, and all else that must hold before a change lands.

use std::{process::Stdio, time::Instant};

use anyhow::Result;

use crate::{
    cargo, drivers, matrix, prepare, python,
    server::{self, SUPPORTED},
};

pub(crate) async fn all(without_python: bool, url: &str) -> Result<()> {
    let started = Instant::now();
    step("formatting");
    cargo::run(&["fmt", "--all", "--check"], url).await?;
    step("clippy");
    let clippy = [
        "clippy",
        "--all-targets",
        "--all-features",
        "--",
        "-D",
        "warnings",
    ];
    cargo::run(&clippy, url).await?;
    step("TLS features");
    // The default is what all else is built with.
    for features in ["", "tls-native", "tls-rustls-aws-lc"] {
        let check = [
            "check",
            "--package",
            "pgqrs",
            "--lib",
            "--no-default-features",
            "--features",
            features,
        ];
        cargo::run(&check, url).await?;
    }
    step("query cache");
    prepare::run(url, true).await?;
    // Each command of CONTRIBUTING.md runs once: here, or in xtask/tests/commands.rs. This one ahead of the tests, since it
    // has to build by itself what it starts.
    step("a short soak");
    cargo::run(&["xtask", "soak", "--faults", "50"], url).await?;
    step("tests");
    test(&[], url).await?;
    let installed = server::installed_major();
    let (oldest, newest) = (SUPPORTED[0], SUPPORTED[SUPPORTED.len() - 1]);
    let others: Vec<u32> = [oldest, newest]
        .into_iter()
        .filter(|major| Some(*major) != installed)
        .collect();
    step(&format!("integration tests on PostgreSQL {others:?}"));
    matrix::run(&others, &[]).await?;
    step("examples with other drivers");
    drivers::run(url).await?;
    step("documentation");
    let doc = ["doc", "--no-deps", "--document-private-items"];
    let doc_public = ["doc", "--package", "pgqrs", "--no-deps"];
    for arguments in [&doc[..], &doc_public[..]] {
        let mut command = cargo::command(arguments);
        cargo::finish(command.env("RUSTDOCFLAGS", "-D warnings"), arguments).await?;
    }
    if without_python {
        step("the Python package: left out, as was asked for");
    } else {
        python::test(&[], url).await?;
    }
    step("a short benchmark");
    // Whether it runs, and not how fast: optimising it and its dependencies takes minutes.
    let bench = ["xtask", "bench", "--quick", "enqueue"];
    let mut command = cargo::command(&bench);
    command.env("CARGO_PROFILE_BENCH_OPT_LEVEL", "0");
    cargo::finish(&mut command, &bench).await?;
    step(&format!(
        "all of it holds, after {} s",
        started.elapsed().as_secs()
    ));
    Ok(())
}

fn step(what: &str) {
    eprintln!("\n== {what}");
}

pub(crate) async fn test(arguments: &[String], url: &str) -> Result<()> {
    let mut command = if has_nextest().await {
        // Without `--workspace`: the Python package is not for those who have no Python.
        vec!["nextest", "run"]
    } else {
        vec!["test", "--lib", "--bins", "--tests", "--examples"]
    };
    command.extend(arguments.iter().map(String::as_str));
    build_examples(url).await?;
    cargo::run(&command, url).await?;
    if arguments.is_empty() {
        // The examples in the README and in the documentation, which nextest doesn't run.
        cargo::run(&["test", "--doc"], url).await?;
    }
    Ok(())
}

/// The examples, and the processes that tests start and kill. `cargo test --examples` would build the tests that are in
/// them, and not the programs; `cargo test --test it`, neither.
async fn build_examples(url: &str) -> Result<()> {
    cargo::run(&["build", "--examples"], url).await
}

/// The integration tests, and what they start.
pub(crate) async fn build_tests(url: &str) -> Result<()> {
    build_examples(url).await?;
    cargo::run(&["test", "--test", "it", "--no-run"], url).await
}

pub(crate) async fn has_nextest() -> bool {
    cargo::command(&["nextest", "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .await
        .is_ok_and(|status| status.success())
}

/// The test of faults alone, with what it prints.
pub(crate) async fn soak(faults: u64, seed: Option<u64>, url: &str) -> Result<()> {
    let test = "faults::whatever_breaks_what_is_acknowledged_is_stored_once_and_handled";
    build_tests(url).await?;
    let arguments = ["test", "--test", "it", test, "--", "--nocapture"];
    let mut command = cargo::command(&arguments);
    command
        .env("DATABASE_URL", url)
        .env("PGQRS_FAULTS", faults.to_string());
    if let Some(seed) = seed {
        command.env("PGQRS_SEED", seed.to_string());
    }
    cargo::finish(&mut command, &arguments).await
}
