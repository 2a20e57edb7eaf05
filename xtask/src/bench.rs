//! The benchmarks of the library and of its peers, each against a new PostgreSQL with fsync on.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result, ensure};
use clap::{Args, Subcommand};

use crate::{
    ServerVersion, cargo, citus, compile, python,
    server::{self, Purpose},
};

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Measure what compiling against the crate costs, beside an application with plain `query!`
    Compile,
    /// Measure many single sends from Python, beside asyncpg
    Python {
        /// Smaller and fewer rounds
        #[arg(long)]
        quick: bool,
    },
}

#[derive(Args)]
pub(crate) struct Run {
    /// The subjects
    subjects: Vec<String>,
    /// Smaller and fewer rounds: about a minute
    #[arg(long)]
    quick: bool,
    /// As the tests are built: checks that it runs, not how fast
    #[arg(long)]
    unoptimised: bool,
    /// Copy the results in target/bench into docs/benchmarks.md, and measure only the named subjects
    #[arg(long)]
    accept: bool,
    #[command(flatten)]
    server: ServerVersion,
}

const PEERS: &str = "peers";
/// The subject that has servers of its own.
const CITUS: &str = "citus";
/// The subject that measures the library also as it is without its features.
const TELEMETRY: &str = "telemetry";

impl Command {
    pub(crate) async fn run(self) -> Result<()> {
        match self {
            Self::Compile => {
                server::with_new(Purpose::Tests, None, async |url| compile::run(url).await).await
            }
            Self::Python { quick } => python::bench(quick).await,
        }
    }
}

impl Run {
    pub(crate) async fn run(self) -> Result<()> {
        let Self {
            subjects,
            quick,
            unoptimised,
            accept,
            server: ServerVersion { postgres },
        } = self;
        let is_named = |name: &str| subjects.iter().any(|subject| subject == name);
        let (with_peers, with_citus) = (is_named(PEERS), is_named(CITUS));
        let own: Vec<&str> = subjects
            .iter()
            .map(String::as_str)
            .filter(|subject| ![PEERS, CITUS].contains(subject))
            .collect();
        let program = Program { quick, unoptimised };
        if !own.is_empty() || !(with_peers || with_citus || accept) {
            if own.is_empty() || own.contains(&TELEMETRY) {
                plain().await?;
            }
            let (build, run) = program.commands(&own);
            measure(&build, &run, postgres).await?;
        }
        if with_citus {
            ensure!(
                postgres.is_none(),
                "`citus` is measured on the PostgreSQL that has it, which PGQRS_CITUS names"
            );
            on_citus(program).await?;
        }
        if with_peers {
            peers(quick, postgres).await?;
        }
        if accept {
            publish()?;
        }
        Ok(())
    }
}

/// The output folder of the benchmarks.
fn output() -> PathBuf {
    cargo::target().join("bench")
}

/// The program of all subjects but the peers.
struct Program {
    quick: bool,
    unoptimised: bool,
}

impl Program {
    /// The arguments of cargo to build it, and to run it.
    fn commands<'a>(&self, subjects: &[&'a str]) -> (Vec<&'a str>, Vec<&'a str>) {
        let profile = if self.unoptimised { "dev" } else { "bench" };
        let bench = ["bench", "--bench", "bench", "--profile", profile];
        let mut run = [&bench[..], &["--"]].concat();
        run.extend(subjects);
        run.extend(self.quick.then_some("--quick"));
        ([&bench[..], &["--no-run"]].concat(), run)
    }
}

async fn measure(build: &[&str], run: &[&str], major: Option<u32>) -> Result<()> {
    finish_build(build).await?;
    server::with_new(Purpose::Benchmarks, major, async |url| {
        cargo::finish(&mut measuring(run, url), run).await
    })
    .await
}

/// Beside a PostgreSQL of the same version without the extension.
async fn on_citus(program: Program) -> Result<()> {
    let (build, run) = program.commands(&[CITUS]);
    citus::bench(async |servers| {
        finish_build(&build).await?;
        let mut command = measuring(&run, servers.plain);
        command.env("PGQRS_BENCH_CITUS", servers.nodes.join(" "));
        cargo::finish(&mut command, &run).await
    })
    .await
}

/// Nothing else should be running during the measurement, least of all a compiler.
async fn finish_build(build: &[&str]) -> Result<()> {
    let mut command = cargo::command(build);
    command.env("CARGO_TARGET_DIR", cargo::target());
    cargo::finish(&mut command, build).await
}

fn measuring(run: &[&str], url: &str) -> tokio::process::Command {
    let mut command = cargo::command(run);
    command
        .env("DATABASE_URL", url)
        .env("CARGO_TARGET_DIR", cargo::target())
        .env("PGQRS_BENCH_PLAIN", cargo::target().join("plain/plain"))
        .env("PGQRS_BENCH_OUTPUT", output());
    command
}

/// Builds the package that uses the library without its features for telemetry. It has a lock file of its own, as the
/// peers have.
async fn plain() -> Result<()> {
    let manifest = cargo::root().join("benches/plain/Cargo.toml");
    let manifest = manifest.to_str().context("a path that isn't UTF-8")?;
    let build = [
        "build",
        "--manifest-path",
        manifest,
        "--profile",
        "plain",
        "--locked",
    ];
    let mut command = cargo::command(&build);
    command.env("CARGO_TARGET_DIR", cargo::target());
    cargo::finish(&mut command, &build).await
}

/// A package outside of the workspace, with a lock file of its own, built into the same target folder.
async fn peers(quick: bool, major: Option<u32>) -> Result<()> {
    let manifest = cargo::root().join("benches/peers/Cargo.toml");
    let manifest = manifest.to_str().context("a path that isn't UTF-8")?;
    let common = [
        "--manifest-path",
        manifest,
        "--profile",
        "peers",
        "--locked",
    ];
    let mut build = vec!["build"];
    build.extend(common);
    let mut run = vec!["run"];
    run.extend(common);
    run.push("--");
    run.extend(quick.then_some("--quick"));
    measure(&build, &run, major).await
}

/// Copies the table and the chart of the last runs into the documentation.
fn publish() -> Result<()> {
    const BEGIN: &str = "<!-- Made by `cargo xtask bench --accept`; don't edit. -->\n";
    const END: &str = "<!-- End of what was made. -->";
    let output = output();
    let results = fs::read_to_string(output.join("results.md"))
        .context("nothing was measured yet: `cargo xtask bench`")?;
    let page = cargo::root().join("docs/benchmarks.md");
    let text = fs::read_to_string(&page)?;
    let marks = "docs/benchmarks.md has lost its marks";
    let (before, rest) = text.split_once(BEGIN).context(marks)?;
    let (_, after) = rest.split_once(END).context(marks)?;
    let made = format!(
        "\n## The chart\n\n![each ratio beside what it aims at](benchmarks.svg)\n\n## The figures\n\n{results}\n"
    );
    fs::write(&page, format!("{before}{BEGIN}{made}{END}{after}"))?;
    fs::copy(
        output.join("chart.svg"),
        cargo::root().join("docs/benchmarks.svg"),
    )?;
    Ok(())
}
