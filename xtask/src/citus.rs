//! Citus: the integration suite on a coordinator, the tests that start clusters of their own, and the servers of the
//! benchmark.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use local_postgres::Server;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

use crate::{
    cargo, ci,
    server::{self, Purpose},
};

/// The only major version for which there is a build of Citus beside the checkout.
const MAJOR: u32 = 15;

/// What makes the commands below run, if there is none.
fn remedy() -> String {
    format!(
        "there is no Citus: install it for the PostgreSQL that `initdb` belongs to, or set PGQRS_CITUS to the folder of \
         the binaries of a PostgreSQL that has it; a build for PostgreSQL {MAJOR} is also looked for in ../shared/engines"
    )
}

/// Runs the integration tests on a server on which each test's database has the extension.
pub(crate) async fn test(arguments: &[String]) -> Result<()> {
    let bin = binaries()?.with_context(remedy)?;
    ci::build_tests().await?;
    let home = server::home()?.with_binaries(bin.clone());
    let tests = async |server: local_postgres::Server<'_>| {
        prepare(server.url).await?;
        let mut command = vec!["nextest", "run", "--no-fail-fast", "--test", "it"];
        if !ci::has_nextest().await {
            command = vec!["test", "--no-fail-fast", "--test", "it"];
        }
        command.extend(arguments.iter().map(String::as_str));
        let mut run = cargo::command(&command);
        run.env("DATABASE_URL", server.url).env("PGQRS_CITUS", &bin);
        cargo::finish(&mut run, &command).await
    };
    home.with_new(Purpose::TestsOnCitus, None, tests).await
}

/// What CI runs of them: each kind of statement.
const IN_CI: [&str; 8] = [
    "citus::",
    "enqueue::",
    "dequeue::",
    "delivery::",
    "install::",
    "store::",
    "groups::",
    "schedules::",
];

/// Some of them in CI, where a machine without Citus leaves them out.
pub(crate) async fn test_if_there() -> Result<()> {
    if binaries()?.is_none() {
        eprintln!("left out: there is no Citus on this machine");
        return Ok(());
    }
    let mut arguments = vec!["--".to_owned()];
    arguments.extend(IN_CI.map(str::to_owned));
    unless_of_another_version(test(&arguments).await)
}

/// A build of Citus for another minor version of the server is as good as none.
fn unless_of_another_version(outcome: Result<()>) -> Result<()> {
    match outcome {
        Err(error) if format!("{error:#}").contains("could not load library") => {
            eprintln!("left out: {error:#}");
            Ok(())
        }
        outcome => outcome,
    }
}

/// The servers of the benchmark, all of the same binaries.
pub(crate) struct Servers<'a> {
    /// The URL of a server without the extension.
    pub(crate) plain: &'a str,
    /// The URLs of a cluster's nodes, the coordinator first.
    pub(crate) nodes: [String; 3],
}

/// Runs a function with servers for the benchmark. If there is no usable Citus, prints why, and doesn't run it.
pub(crate) async fn bench(work: impl AsyncFnOnce(Servers<'_>) -> Result<()>) -> Result<()> {
    let Some(bin) = binaries()? else {
        eprintln!("left out: {}", remedy());
        return Ok(());
    };
    let home = server::home()?.with_binaries(bin);
    let node = Purpose::BenchmarksOnCitus;
    let purposes = [Purpose::Benchmarks, node, node, node];
    let with_servers = async |[plain, nodes @ ..]: [Server<'_>; 4]| {
        let nodes = join(nodes.map(|node| node.url)).await?;
        let plain = plain.url;
        work(Servers { plain, nodes }).await
    };
    unless_of_another_version(home.with_several(purposes, None, with_servers).await)
}

/// Makes a cluster of three servers, and returns their URLs. Its nodes log in at each other by the coordinator's
/// password, which they are given for that.
async fn join(nodes: [&str; 3]) -> Result<[String; 3]> {
    let (password, _) = address(nodes[0])?;
    let mut ports = [0; 3];
    for (port, node) in ports.iter_mut().zip(nodes) {
        let mut direct = PgConnection::connect(node).await?;
        let prepare = format!(
            "create extension citus;
             alter role postgres password '{password}';
             insert into pg_dist_authinfo values (0, 'postgres', 'password={password}')"
        );
        let prepare = sqlx::raw_sql(AssertSqlSafe(prepare));
        prepare.execute(&mut direct).await?;
        direct.close().await?;
        (_, *port) = address(node)?;
    }
    let urls =
        ports.map(|port| format!("postgres://postgres:{password}@127.0.0.1:{port}/postgres"));
    let mut direct = PgConnection::connect(&urls[0]).await?;
    for (n, port) in ports.into_iter().enumerate() {
        let function = match n {
            0 => "citus_set_coordinator_host",
            _ => "citus_add_node",
        };
        let add = format!("select {function}('127.0.0.1', {port})");
        direct.execute(AssertSqlSafe(add)).await?;
    }
    direct.close().await?;
    Ok(urls)
}

/// The password and the port of a server that `local_postgres` has started.
fn address(url: &str) -> Result<(&str, u16)> {
    let parts = || {
        let (_, login) = url.split_once("//postgres:")?;
        let (password, place) = login.split_once('@')?;
        let (_, port) = place.strip_suffix("/postgres")?.split_once(':')?;
        Some((password, port.parse().ok()?))
    };
    parts().context("a URL with a password and a port")
}

/// The tests' databases are copies of this one.
async fn prepare(url: &str) -> Result<()> {
    let (server, _) = url.rsplit_once('/').context("a URL with a database")?;
    let mut template = PgConnection::connect(&format!("{server}/template1")).await?;
    template.execute("create extension citus").await?;
    Ok(template.close().await?)
}

/// The folder of a PostgreSQL's binaries that has Citus: the one that is named, the installed one if it has, or a copy
/// of it with the build beside the checkout.
fn binaries() -> Result<Option<PathBuf>> {
    if let Some(named) = env::var_os("PGQRS_CITUS") {
        return Ok(Some(named.into()));
    }
    let home = server::home()?;
    if let Some(bin) = home.installed(None)
        && has_citus(&bin)
    {
        return Ok(Some(bin));
    }
    let Some(archive) = archive() else {
        return Ok(None);
    };
    let Some(bin) = home.installed(Some(MAJOR)) else {
        return Ok(None);
    };
    copy(&bin, &archive, &home.folder().join("citus")).map(Some)
}

fn has_citus(bin: &Path) -> bool {
    // As of Debian, and of most other builds.
    let debian = format!("../../../../share/postgresql/{MAJOR}");
    let shares = [debian.as_str(), "../share/postgresql", "../share"];
    let control = |share: &str| bin.join(share).join("extension/citus.control");
    shares.into_iter().any(|share| control(share).exists())
}

/// The newest build of Citus beside the checkout: an archive whose paths are those of Debian.
fn archive() -> Option<PathBuf> {
    let beside = cargo::root().join("../shared/engines");
    let files = fs::read_dir(beside).ok()?.flatten();
    let archives = files.map(|file| file.path()).filter(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("citus-") && name.ends_with(".tar.gz")
    });
    archives.max()
}

/// Copies the PostgreSQL, which finds its files relative to its binaries, and unpacks the archive over it.
fn copy(bin: &Path, archive: &Path, to: &Path) -> Result<PathBuf> {
    let version = format!("usr/lib/postgresql/{MAJOR}");
    let share = format!("usr/share/postgresql/{MAJOR}");
    let root = bin
        .to_str()
        .and_then(|bin| bin.strip_suffix(&format!("{version}/bin")))
        .context("PostgreSQL isn't where Debian has it: Citus can't be unpacked over it")?;
    let copied = to.join(&version).join("bin");
    // Made anew each time: the server may have been upgraded meanwhile.
    let _ = fs::remove_dir_all(to);
    for folder in [&version, &share] {
        let (from, into) = (Path::new(root).join(folder), to.join(folder));
        fs::create_dir_all(into.parent().context("it has one")?)?;
        run(Command::new("cp").arg("-RL").args([from, into]))?;
    }
    run(Command::new("tar")
        .arg("-xzf")
        .arg(archive)
        .arg("-C")
        .arg(to))?;
    Ok(copied)
}

fn run(command: &mut Command) -> Result<()> {
    let output = command
        .output()
        .with_context(|| format!("{} doesn't start", command.get_program().display()))?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
