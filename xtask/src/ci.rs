//! Tests, and all other checks before a change lands.

use std::{process::Stdio, sync::LazyLock, time::Instant};

use anyhow::Result;
use clap::ValueEnum;
use tokio::process::Command;

use crate::{
    cargo, citus, drivers, matrix, prepare, python,
    server::{self, SUPPORTED},
};

pub(crate) async fn all(without_python: bool, url: &str) -> Result<()> {
    step("formatting");
    cargo::run(&["fmt", "--all", "--check"], url).await?;
    step("clippy");
    let clippy = ["clippy", "--all-targets", "--", "-D", "warnings"];
    cargo::run(&clippy, url).await?;
    step("features");
    // Each without those that other steps build with, in as few runs as there are implementations of TLS to choose from.
    for features in [
        "",
        "tls-native metrics",
        "tls-rustls-aws-lc opentelemetry",
        "schedules",
        "testing",
    ] {
        let check = [
            "clippy",
            "--package",
            "pgqrs",
            "--lib",
            "--no-default-features",
            "--features",
            features,
            "--",
            "-D",
            "warnings",
        ];
        cargo::run(&check, url).await?;
    }
    oldest_rust().await?;
    step("query cache");
    prepare::run(url, true).await?;
    // Each command of CONTRIBUTING.md runs once: here, or in xtask/tests/commands.rs. This one before the tests, since
    // it has to build by itself the programs that it starts.
    step("a short soak");
    cargo::run(&["xtask", "soak", "--faults", "50"], url).await?;
    step("tests");
    test(&[], url).await?;
    for access in [Access::Producer, Access::Consumer] {
        step(&format!("tests as the role of a {}", access.name()));
        test_as(access, &[], url).await?;
    }
    let installed = server::installed_major();
    let (oldest, newest) = (SUPPORTED[0], SUPPORTED[SUPPORTED.len() - 1]);
    let others: Vec<u32> = [oldest, newest]
        .into_iter()
        .filter(|major| Some(*major) != installed)
        .collect();
    step(&format!("integration tests on PostgreSQL {others:?}"));
    matrix::run(&others, &[]).await?;
    step("some integration tests on Citus");
    citus::test_if_there().await?;
    step("examples with other drivers");
    drivers::run(url).await?;
    step("the example of a service, with its tests");
    drivers::test_shop().await?;
    step("documentation");
    let doc = ["doc", "--no-deps", "--document-private-items"];
    let doc_public = ["doc", "--package", "pgqrs", "--no-deps"];
    let as_on_docs_rs = [&doc_public[..], &["--features", "schedules,testing"]].concat();
    for arguments in [&doc[..], &doc_public[..], &as_on_docs_rs[..]] {
        let mut command = cargo::command(arguments);
        cargo::finish(command.env("RUSTDOCFLAGS", "-D warnings"), arguments).await?;
    }
    if without_python {
        step("the Python package: left out, as requested");
    } else {
        python::test(&[], url, true).await?;
    }
    step("a short benchmark");
    // Optimising it and its dependencies takes minutes.
    let bench = ["xtask", "bench", "--quick", "--unoptimised", "enqueue"];
    cargo::run(&bench, url).await?;
    step("all of it holds");
    Ok(())
}

/// Whether the crate compiles with the oldest Rust version in its manifest. Clippy only notices functions that are too
/// new.
async fn oldest_rust() -> Result<()> {
    let oldest = env!("CARGO_PKG_RUST_VERSION");
    let toolchain = format!("{oldest}.0");
    let rustup = |arguments: &[&str]| {
        let mut command = Command::new("rustup");
        command
            .args(["run", &toolchain])
            .args(arguments)
            .current_dir(cargo::root())
            // Set by the toolchain that runs xtask.
            .env_remove("CARGO")
            .env_remove("RUSTC")
            .env_remove("RUSTUP_TOOLCHAIN");
        command
    };
    let mut version = rustup(&["rustc", "--version"]);
    let version = version.stdout(Stdio::null()).stderr(Stdio::null());
    if !version.status().await.is_ok_and(|status| status.success()) {
        step(&format!(
            "Rust {oldest}: left out, since it isn't installed (`rustup toolchain install {toolchain} --profile minimal`)"
        ));
        return Ok(());
    }
    step(&format!("Rust {oldest}"));
    let check = ["cargo", "check", "--package", "pgqrs", "--all-features"];
    let target = cargo::target().join("oldest");
    let mut command = rustup(&check);
    cargo::finish(command.env("CARGO_TARGET_DIR", target), &check).await
}

/// Prints what is next, and how long the steps before it took.
fn step(what: &str) {
    static STARTED: LazyLock<Instant> = LazyLock::new(Instant::now);
    eprintln!("\n== {:>4} s: {what}", STARTED.elapsed().as_secs());
}

pub(crate) async fn test(arguments: &[String], url: &str) -> Result<()> {
    let mut command = if has_nextest().await {
        // Without `--workspace`, since the Python package needs Python.
        vec!["nextest", "run"]
    } else {
        vec!["test", "--lib", "--bins", "--tests", "--examples"]
    };
    command.extend(arguments.iter().map(String::as_str));
    build_examples().await?;
    cargo::run(&command, url).await?;
    if arguments.is_empty() {
        // Examples in the README and in the documentation, which nextest doesn't run.
        cargo::run(&["test", "--doc"], url).await?;
    }
    Ok(())
}

/// Roles whose test suite runs with no more than their privileges. An operator's is one test of `tests/it/grants.rs`.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Access {
    /// Sends
    Producer,
    /// Claims, settles; and sends what it receives
    Consumer,
}

impl Access {
    fn name(self) -> &'static str {
        match self {
            Self::Producer => "producer",
            Self::Consumer => "consumer",
        }
    }

    /// Parts of test names, for either test runner.
    fn tests(self) -> &'static [&'static str] {
        match self {
            Self::Producer => &["enqueue::", "sends::", "payload::", "import::"],
            Self::Consumer => &["dequeue::", "delivery::", "consumer::"],
        }
    }

    /// Those that also do something which the role can't.
    fn others(self) -> &'static [&'static str] {
        match self {
            // They claim, or create queues.
            Self::Producer => &[
                "enqueue::times::a_delay_counts_from_the_databases_now",
                "enqueue::times::a_delayed_message_is_delivered_after_its_time_and_not_before",
                "enqueue::in_the_callers_transaction_it_is_invisible_until_commit_and_gone_after_rollback",
                "enqueue::names_that_sql_would_trip_over_are_just_names",
                "import::after_an_error_the_same_chunk_is_sent_again",
                "payload::a_lone_surrogate_is_refused_or_kept_but_never_a_raw_sql_error",
                "payload::every_kind_of_value_comes_back_as_it_was_sent",
                "payload::json_that_others_would_rewrite_keeps_every_byte",
                "sends::sends_and_consumers_work_at_every_default_isolation_level",
                "sends::silence::what_a_vanished_client_was_about_to_claim_is_free_soon",
            ],
            // They configure queues, read or requeue archived or dead messages, or have a trigger that needs more
            // privileges.
            Self::Consumer => &[
                "consumer::leases::a_handler_that_is_cut_off_each_time_leaves_a_dead_letter_that_says_so",
                "consumer::crashes::a_message_that_kills_its_consumer_each_time_ends_as_a_dead_letter",
                "consumer::crashes::a_message_that_kills_its_process_each_time_ends_as_a_dead_letter",
                "consumer::outcomes::a_released_message_comes_again_at_once_and_no_attempt_is_used",
                "consumer::acknowledgements_share_statements",
                "consumer::waking::an_idle_consumer_is_woken_for_what_is_requeued",
                "consumer::outcomes::each_outcome_does_what_it_says",
                "consumer::outcomes::errors_and_panics_are_failed_attempts_and_end_as_dead_letters",
                "consumer::leases::what_a_handler_says_after_its_lease_was_lost_counts_for_nothing",
                "consumer::outcomes::what_does_not_decode_never_reaches_the_handler",
                "consumer::around::it_sees_the_handlers_own_error_and_decides_what_becomes_of_the_message",
                "consumer::chunks::a_full_chunk_is_handled_at_once_and_acknowledged_in_one_statement",
                "consumer::chunks::a_payload_that_does_not_decode_fails_alone",
                "consumer::chunks::what_is_settled_one_by_one_is_and_the_rest_fails_with_the_handler",
                "consumer::later::a_message_that_is_put_off_uses_no_attempt_and_counts_how_often",
                "consumer::undecodable::a_payload_that_does_not_decode_waits_for_a_minute_and_uses_no_attempt",
                "consumer::undecodable::it_becomes_a_dead_letter_an_hour_after_it_was_first_seen",
                "delivery::archive_keeps_the_message_as_it_was",
                "delivery::dead_letter_keeps_the_reason_whatever_attempts_are_left",
                "delivery::nack_with_its_attempts_used_up_is_a_dead_letter",
                "delivery::on_its_way_to_the_dead_letters_a_message_is_neither_lost_nor_doubled",
                "dequeue::what_waits_behind_messages_that_are_used_up_is_delivered_at_once",
                "dequeue::if_dead_lettering_fails_what_is_ready_is_delivered",
            ],
        }
    }
}

/// Runs the tests of what a role does, as that role.
pub(crate) async fn test_as(access: Access, arguments: &[String], url: &str) -> Result<()> {
    let mut command = if has_nextest().await {
        vec!["nextest", "run", "--test"]
    } else {
        vec!["test", "--test"]
    };
    command.extend(["it", "--"]);
    if arguments.is_empty() {
        command.extend(access.tests());
        let others = access.others().iter().flat_map(|other| ["--skip", *other]);
        command.extend(others);
    }
    command.extend(arguments.iter().map(String::as_str));
    build_examples().await?;
    let mut tests = cargo::command(&command);
    tests
        .env("DATABASE_URL", url)
        .env("PGQRS_TEST_ACCESS", access.name());
    cargo::finish(&mut tests, &command).await
}

/// Builds the examples, and the processes that tests start and kill. `cargo test --examples` would build the tests in
/// them instead of the programs, and `cargo test --test it` neither.
async fn build_examples() -> Result<()> {
    let examples = ["build", "--examples"];
    cargo::finish(&mut cargo::command(&examples), &examples).await
}

/// Builds the integration tests and the programs that they start.
pub(crate) async fn build_tests() -> Result<()> {
    build_examples().await?;
    let tests = ["test", "--test", "it", "--no-run"];
    cargo::finish(&mut cargo::command(&tests), &tests).await
}

pub(crate) async fn has_nextest() -> bool {
    cargo::command(&["nextest", "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .await
        .is_ok_and(|status| status.success())
}

/// What a soak does again and again, and how often.
pub(crate) enum Soak {
    Faults(u64),
    FailOvers(u64),
}

/// Runs the tests of faults, or of fail-overs, alone, and prints their output.
pub(crate) async fn soak(soak: Soak, seed: Option<u64>, url: &str) -> Result<()> {
    let (test, variable, many) = match soak {
        Soak::Faults(many) => (
            "faults::whatever_breaks_what_is_acknowledged_is_stored_once_and_handled",
            "PGQRS_FAULTS",
            many,
        ),
        Soak::FailOvers(many) => ("faults::fail_overs::", "PGQRS_FAILOVERS", many),
    };
    build_tests().await?;
    let alone = ["--nocapture", "--test-threads", "1"];
    let arguments = [&["test", "--test", "it", test, "--"], &alone[..]].concat();
    let mut command = cargo::command(&arguments);
    command
        .env("DATABASE_URL", url)
        .env(variable, many.to_string());
    if let Some(seed) = seed {
        command.env("PGQRS_SEED", seed.to_string());
    }
    cargo::finish(&mut command, &arguments).await
}
