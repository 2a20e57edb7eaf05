//! Examples that are projects of their own, outside of the workspace: enqueues and acknowledgements in transactions of
//! other drivers, which pgqrs doesn't need, and a service with its tests.

use std::{fs, process};

use anyhow::{Context, Result, ensure};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

use crate::cargo;

const EXAMPLES: [&str; 3] = ["tokio_postgres", "diesel_async", "sqlx_0_8"];

/// Runs them, and compares their output with their `// Output:`.
pub(crate) async fn run(url: &str) -> Result<()> {
    let (server, _) = url
        .rsplit_once('/')
        .context("a database URL ends in a database's name")?;
    let name = format!("pgqrs_drivers_{}", process::id());
    let mut connection = PgConnection::connect(url).await?;
    connection
        .execute(AssertSqlSafe(format!("create database {name}")))
        .await?;
    let outcome = compare(&format!("{server}/{name}")).await;
    connection
        .execute(AssertSqlSafe(format!("drop database {name} with (force)")))
        .await?;
    connection.close().await?;
    outcome
}

/// Runs the tests of the service, as its developers do: they need no server.
pub(crate) async fn test_shop() -> Result<()> {
    let arguments = ["test", "--quiet", "--locked"];
    let mut command = cargo::command(&arguments);
    command
        .current_dir(cargo::root().join("examples/shop"))
        // Half of the dependencies are there already.
        .env("CARGO_TARGET_DIR", cargo::target())
        .env_remove("DATABASE_URL");
    cargo::finish(&mut command, &arguments).await
}

async fn compare(url: &str) -> Result<()> {
    let folder = cargo::root().join("examples/drivers");
    for example in EXAMPLES {
        let source = folder.join(format!("src/bin/{example}.rs"));
        let source = fs::read_to_string(&source).with_context(|| source.display().to_string())?;
        let (_, expected) = source
            .split_once("// Output:\n")
            .with_context(|| format!("{example} doesn't say what it prints"))?;
        let expected: Vec<_> = expected
            .lines()
            .map(|line| line.trim_start_matches("// "))
            .collect();
        let arguments = ["run", "--quiet", "--locked", "--bin", example];
        let output = cargo::command(&arguments)
            .current_dir(&folder)
            .env("CARGO_TARGET_DIR", cargo::target())
            .env("DATABASE_URL", url)
            .stderr(process::Stdio::inherit())
            .output()
            .await
            .context("cargo doesn't start")?;
        ensure!(
            output.status.success(),
            "{example} failed: {}",
            output.status
        );
        let printed = String::from_utf8_lossy(&output.stdout);
        let printed: Vec<_> = printed.lines().collect();
        ensure!(
            printed == expected,
            "{example} printed {printed:#?}, not {expected:#?}"
        );
    }
    Ok(())
}
