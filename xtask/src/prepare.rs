//! The query cache: PostgreSQL's description of each statement of the crate, as files under `.sqlx`. sqlx's own command
//! line tool would take minutes to install, and empties the cache before it fails.

use std::{collections::BTreeMap, fs, path::Path, process};

use anyhow::{Context, Result, bail};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

use crate::{
    cargo,
    migrate::{self, Direction},
};

pub(crate) async fn run(url: &str, check: bool) -> Result<()> {
    // A name that was never used makes build.rs run again, and the compiler expand every statement again.
    let name = format!("pgqrs_prepare_{}", process::id());
    let (server, _) = url
        .rsplit_once('/')
        .context("a database URL ends in a database's name")?;
    let mut connection = PgConnection::connect(url).await?;
    connection
        .execute(AssertSqlSafe(format!("create database {name}")))
        .await?;
    let outcome = compare(&format!("{server}/{name}"), check).await;
    connection
        .execute(AssertSqlSafe(format!("drop database {name} with (force)")))
        .await?;
    connection.close().await?;
    outcome
}

async fn compare(url: &str, check: bool) -> Result<()> {
    migrate::migrate(url, &migrate::migrator().await?, Direction::Up(None)).await?;
    let (fresh, cache) = (
        cargo::target().join("sqlx-prepare"),
        cargo::root().join(".sqlx"),
    );
    let _ = fs::remove_dir_all(&fresh);
    fs::create_dir_all(&fresh)?;
    fs::create_dir_all(&cache)?;
    let arguments = [
        "check",
        "--quiet",
        "--package",
        "pgqrs",
        "--lib",
        // Which have statements of their own.
        "--features",
        "schedules,testing",
    ];
    let mut command = cargo::command(&arguments);
    cargo::finish(
        command
            .env("PGQRS_PREPARE_URL", url)
            .env("SQLX_OFFLINE_DIR", &fresh),
        &arguments,
    )
    .await?;

    let (new, old) = (read(&fresh)?, read(&cache)?);
    if new.is_empty() {
        bail!("the compiler expanded no statement: nothing to compare");
    }
    if new == old {
        println!(".sqlx is up to date: {} statements", new.len());
        return Ok(());
    }
    for (name, text) in &new {
        match old.get(name) {
            None => println!("+ {name}  {}", statement(text)),
            Some(was) if was != text => println!("~ {name}  {}", statement(text)),
            Some(_) => {}
        }
    }
    for (name, text) in old.iter().filter(|(name, _)| !new.contains_key(*name)) {
        println!("- {name}  {}", statement(text));
    }
    if check {
        bail!(".sqlx is stale: run `cargo xtask prepare` and commit what it changes");
    }
    for name in old.keys().filter(|name| !new.contains_key(*name)) {
        fs::remove_file(cache.join(name))?;
    }
    for (name, text) in &new {
        fs::write(cache.join(name), text)?;
    }
    println!(".sqlx is refreshed: {} statements", new.len());
    Ok(())
}

fn read(folder: &Path) -> Result<BTreeMap<String, String>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("query-") {
            files.insert(name, fs::read_to_string(entry.path())?);
        }
    }
    Ok(files)
}

/// The beginning of the statement of a cache file, on one line.
fn statement(text: &str) -> String {
    let query = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("\"query\": \""))
        .unwrap_or("");
    query
        .replace("\\n", " ")
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .chars()
        .take(70)
        .collect()
}
