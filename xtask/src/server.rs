//! The servers of this checkout, under `target/`: one that keeps running, and those of single commands.

use anyhow::{Context, Result, ensure};
use local_postgres::{Home, Server};
pub(crate) use local_postgres::{Purpose, SUPPORTED};
use sqlx::{Connection, PgConnection};

use crate::cargo;

/// Runs a function with a server's URL: that of `db start` if it is running and no major version is requested,
/// otherwise that of a new server.
pub(crate) async fn with(
    major: Option<u32>,
    work: impl AsyncFnOnce(&str) -> Result<()>,
) -> Result<()> {
    home()?.with(major, work).await
}

/// Runs a function with the URL of a new server, which is removed afterwards in any case, also on Ctrl-C. Its major
/// version defaults to the installed one.
pub(crate) async fn with_new(
    purpose: Purpose,
    major: Option<u32>,
    work: impl AsyncFnOnce(&str) -> Result<()>,
) -> Result<()> {
    let work = async |server: Server<'_>| work(server.url).await;
    home()?.with_new(purpose, major, work).await
}

/// The server's version, such as `15.18`.
pub(crate) async fn version(url: &str) -> Result<String> {
    let mut connection = PgConnection::connect(url).await?;
    let version: String = sqlx::query_scalar("show server_version")
        .fetch_one(&mut connection)
        .await?;
    connection.close().await?;
    // Debian appends its package's version.
    Ok(version.split(' ').next().unwrap_or(&version).to_owned())
}

/// The major version that is installed on this machine.
pub(crate) fn installed_major() -> Option<u32> {
    home().ok()?.installed_major()
}

pub(crate) async fn start_for_development() -> Result<String> {
    home()?.start_for_development().await
}

pub(crate) async fn stop_for_development() -> Result<()> {
    ensure!(
        home()?.stop_for_development()?,
        "no server for development is running"
    );
    Ok(())
}

pub(crate) async fn url_for_development() -> Result<String> {
    home()?
        .url_for_development()
        .context("no server for development is running: `cargo xtask db start`")
}

pub(crate) fn home() -> Result<Home> {
    Home::new(&cargo::target().join("postgres"))
}
