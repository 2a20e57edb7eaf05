//! `soak --adversary`: the tests under `tests/it/adversary/`, one at a time, several times and at a larger scale; then
//! a table of what was tried and the results.

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use crate::{cargo, ci};

/// The module of the tests.
const MODULE: &str = "adversary::";

pub(crate) async fn run(scale: u32, rounds: u32, url: &str) -> Result<()> {
    ci::build_tests().await?;
    let tests = tests(url).await?;
    ensure!(!tests.is_empty(), "there are no tests in `{MODULE}`");
    let mut tried = Vec::new();
    for (n, test) in tests.iter().enumerate() {
        eprint!("{} of {}: {test} ", n + 1, tests.len());
        let one = attempt(test, scale, rounds, url).await?;
        eprintln!("{}, {} s", one.outcome(), one.took.as_secs());
        tried.push(one);
    }
    print!("{}", table(&tried, scale, rounds));
    let failed: Vec<_> = tried.iter().filter(|one| one.failure.is_some()).collect();
    for one in &failed {
        let output = one.failure.as_deref().unwrap_or_default();
        println!("\n== {}\n{output}", one.test);
    }
    ensure!(failed.is_empty(), "{} tests failed", failed.len());
    Ok(())
}

/// The names of the tests.
async fn tests(url: &str) -> Result<Vec<String>> {
    let list = [
        "test", "--test", "it", MODULE, "--", "--list", "--format", "terse",
    ];
    let output = cargo::command(&list)
        .env("DATABASE_URL", url)
        .stderr(Stdio::inherit())
        .output()
        .await
        .context("cargo doesn't start")?;
    ensure!(output.status.success(), "the tests can't be listed");
    let listed = String::from_utf8(output.stdout)?;
    let names = listed
        .lines()
        .filter_map(|line| line.strip_suffix(": test"));
    Ok(names.map(str::to_owned).collect())
}

/// The result of one test.
struct Tried {
    test: String,
    /// What the last run has printed about it.
    details: Option<String>,
    passed: u32,
    rounds: u32,
    /// The output of the first run that failed.
    failure: Option<String>,
    took: Duration,
}

impl Tried {
    fn outcome(&self) -> String {
        match &self.failure {
            None => format!("holds, {} times", self.passed),
            Some(_) => format!(
                "FAILED {} of {} times",
                self.rounds - self.passed,
                self.rounds
            ),
        }
    }

    /// The test's name is a sentence.
    fn sentence(&self) -> String {
        let name = self.test.rsplit("::").next().unwrap_or(&self.test);
        let sentence = name.replace('_', " ");
        match &self.details {
            Some(details) => format!("{sentence} ({details})"),
            None => sentence,
        }
    }
}

async fn attempt(test: &str, scale: u32, rounds: u32, url: &str) -> Result<Tried> {
    let run = ["test", "--test", "it", test, "--", "--exact", "--nocapture"];
    let started = Instant::now();
    let mut tried = Tried {
        test: test.to_owned(),
        details: None,
        passed: 0,
        rounds,
        failure: None,
        took: Duration::ZERO,
    };
    for _ in 0..rounds {
        let output = cargo::command(&run)
            .env("DATABASE_URL", url)
            .env("PGQRS_ADVERSARY", scale.to_string())
            .output()
            .await
            .context("cargo doesn't start")?;
        let printed = String::from_utf8_lossy(&output.stdout);
        if output.status.success() {
            tried.passed += 1;
        } else {
            let errors = String::from_utf8_lossy(&output.stderr);
            tried.failure.get_or_insert(format!("{printed}\n{errors}"));
        }
        let details = printed.lines().find_map(|line| line.split_once("tried: "));
        if let Some((_, details)) = details {
            tried.details = Some(details.to_owned());
        }
    }
    tried.took = started.elapsed() / rounds.max(1);
    Ok(tried)
}

fn table(tried: &[Tried], scale: u32, rounds: u32) -> String {
    let mut table = format!(
        "\n{} tests, {rounds} times each, at {scale} times the usual scale\n\n\
         | what was tried | outcome | seconds each |\n|---|---|---|\n",
        tried.len()
    );
    for one in tried {
        let seconds = one.took.as_secs_f64();
        table += &format!(
            "| {} | {} | {seconds:.1} |\n",
            one.sentence(),
            one.outcome()
        );
    }
    table
}
