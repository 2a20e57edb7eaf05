//! Runs cargo on this workspace, from whatever folder xtask was called in.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::Stdio,
    thread::available_parallelism,
};

use anyhow::{Context, Result, ensure};
use tokio::process::Command;

/// How many tests run at once.
const TEST_THREADS: &str = "NEXTEST_TEST_THREADS";

/// The checkout in which xtask was called, which may not be the one in which it was built if several share a target
/// folder.
pub(crate) fn root() -> PathBuf {
    let built_in = || OsString::from(env!("CARGO_MANIFEST_DIR"));
    Path::new(&env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(built_in))
        .parent()
        .expect("xtask lies in the checkout")
        .to_owned()
}

/// cargo's target folder, the only one into which xtask writes files.
pub(crate) fn target() -> PathBuf {
    let target =
        env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    root().join(target)
}

/// A cargo process that is killed when xtask ends.
pub(crate) fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
    command
        .args(arguments)
        .current_dir(root())
        .stdin(Stdio::null())
        .kill_on_drop(true);
    if env::var_os(TEST_THREADS).is_none() {
        // Most of the time tests wait for the server: a quarter less time than with one for each processor.
        let processors = available_parallelism().map_or(1, usize::from);
        command.env(TEST_THREADS, (2 * processors).to_string());
    }
    // The variables that cargo sets for the package that it runs, which is xtask: some build scripts would run again
    // because of them, and half of the dependencies would be rebuilt.
    for (name, _) in env::vars_os() {
        let variable = name.to_string_lossy();
        if variable.starts_with("CARGO_PKG_") || variable.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    command
}

/// Runs cargo with `DATABASE_URL` set, and prints its output.
pub(crate) async fn run(arguments: &[&str], database_url: &str) -> Result<()> {
    finish(
        command(arguments).env("DATABASE_URL", database_url),
        arguments,
    )
    .await
}

pub(crate) async fn finish(command: &mut Command, arguments: &[&str]) -> Result<()> {
    let status = command.status().await.context("cargo doesn't start")?;
    ensure!(
        status.success(),
        "`cargo {}` failed ({status})",
        arguments.join(" ")
    );
    Ok(())
}
