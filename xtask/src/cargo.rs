//! Running cargo on this workspace, from whatever folder xtask was called in.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context, Result, ensure};
use tokio::process::Command;

/// The checkout that xtask was called in: not the one that it was built in, if several share a target folder.
pub(crate) fn root() -> PathBuf {
    let built_in = || OsString::from(env!("CARGO_MANIFEST_DIR"));
    Path::new(&env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(built_in))
        .parent()
        .expect("xtask lies in the checkout")
        .to_owned()
}

/// Where cargo puts what it builds; the one place where xtask leaves files.
pub(crate) fn target() -> PathBuf {
    let target =
        env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    root().join(target)
}

/// A cargo that dies with us.
pub(crate) fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
    command
        .args(arguments)
        .current_dir(root())
        .stdin(Stdio::null())
        .kill_on_drop(true);
    // What cargo tells of the package that it runs, which is xtask: some build scripts would run again for
    // it, and with them half of the dependencies be built again.
    for (name, _) in env::vars_os() {
        let told = name.to_string_lossy();
        if told.starts_with("CARGO_PKG_") || told.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    command
}

/// Runs cargo with `DATABASE_URL` set, and shows what it prints.
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
