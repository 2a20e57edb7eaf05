//! The tests on Citus: the integration suite on a coordinator, and the tests that start clusters of their own.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use sqlx::{Connection, Executor, PgConnection};

use crate::{
    cargo, ci,
    server::{self, Purpose},
};

/// The only major version for which there is a build of Citus beside the checkout.
const MAJOR: u32 = 15;

/// Runs the integration tests on a server on which each test's database has the extension.
pub(crate) async fn test(arguments: &[String]) -> Result<()> {
    let bin = binaries()?.with_context(|| {
        format!(
            "there is no Citus: install it for the PostgreSQL that `initdb` belongs to, or set PGQRS_CITUS to the \
             folder of the binaries of a PostgreSQL that has it; a build for PostgreSQL {MAJOR} is also looked for in \
             ../shared/engines"
        )
    })?;
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
    match test(&arguments).await {
        // Built for another minor version.
        Err(error) if format!("{error:#}").contains("could not load library") => {
            eprintln!("left out: {error:#}");
            Ok(())
        }
        outcome => outcome,
    }
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
