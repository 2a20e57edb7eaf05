//! The Python package as it is released, and as a newcomer meets it: wheels that run on other machines than this one, and
//! an empty virtual environment in which one of them is tried.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context, Result, ensure};

use crate::{
    cargo,
    python::{Interpreter, Venv, command, extra, finish, step},
};

/// What a wheel needs from the system: a glibc from 2014, which is the oldest one that Rust supports.
const GLIBC: &str = "manylinux_2_17";

/// The architectures that wheels for Linux are built for.
const ARCHITECTURES: [&str; 2] = ["x86_64", "aarch64"];

/// Builds the wheels and the source distribution that are uploaded, checks them, and tries the one of this machine.
pub(crate) async fn release(only: &[String], url: &str) -> Result<()> {
    let venv = Venv::ready().await?;
    let out = cargo::target().join("python").join("dist");
    let _ = fs::remove_dir_all(&out);
    if !cfg!(target_os = "linux") {
        step("wheel for this machine");
        let mut build = venv.command("maturin");
        build.args(["build", "--quiet", "--release", "--locked", "--out"]);
        finish(build.arg(&out).env("CARGO_TARGET_DIR", cargo::target())).await?;
    } else {
        let architectures: Vec<&str> = ARCHITECTURES
            .into_iter()
            .filter(|architecture| only.is_empty() || only.iter().any(|one| one == architecture))
            .collect();
        ensure!(
            !architectures.is_empty(),
            "wheels are built for {}",
            ARCHITECTURES.join(" and ")
        );
        for architecture in &architectures {
            needs_target(architecture).await?;
        }
        step("a linker for older systems");
        venv.pip(&extra("release")?).await?;
        for architecture in architectures {
            step(&format!("wheel for {architecture}"));
            build_for(&venv, architecture, &out).await?;
        }
    }
    step("source distribution");
    let mut sdist = venv.command("maturin");
    finish(sdist.args(["sdist", "--out"]).arg(&out)).await?;
    step("packages");
    let packages = files(&out)?;
    let mut twine = venv.command("twine");
    finish(twine.args(["check", "--strict"]).args(&packages)).await?;
    for wheel in packages.iter().filter(|path| is_wheel(path)) {
        finish(venv.command("abi3audit").arg("--strict").arg(wheel)).await?;
    }
    let is_of_this = |path: &&PathBuf| {
        is_wheel(path)
            && (!cfg!(target_os = "linux") || path.to_string_lossy().contains(env::consts::ARCH))
    };
    if let Some(wheel) = packages.iter().find(is_of_this) {
        tried_all(wheel, url).await?;
    }
    for package in packages {
        let size = fs::metadata(&package)?.len();
        println!("{} ({} KiB)", package.display(), size / 1024);
    }
    Ok(())
}

/// Zig links against the glibc that is asked for, on any machine; and maturin refuses a wheel that needs a newer one.
async fn build_for(venv: &Venv, architecture: &str, out: &Path) -> Result<()> {
    let mut build = venv.command("maturin");
    build
        .args(["build", "--quiet", "--release", "--locked", "--zig"])
        .args(["--compatibility", GLIBC, "--auditwheel", "check"])
        .args(["--target", &format!("{architecture}-unknown-linux-gnu")])
        .arg("--out")
        .arg(out)
        .env("CARGO_TARGET_DIR", cargo::target());
    finish(&mut build).await?;
    let wheels = files(out)?;
    let built = wheels
        .iter()
        .find(|path| is_wheel(path) && path.to_string_lossy().contains(architecture))
        .with_context(|| format!("maturin has left no wheel for {architecture}"))?;
    // By another program than the one that has built it.
    let shown = venv.command("auditwheel").arg("show").arg(built).output();
    let shown = shown.await.context("auditwheel doesn't start")?;
    let shown = String::from_utf8_lossy(&shown.stdout).replace('\n', " ");
    ensure!(
        shown.contains(&format!("platform tag: \"{GLIBC}_{architecture}\"")),
        "the wheel is not for {GLIBC}: {shown}"
    );
    Ok(())
}

/// Fails if the installed Rust has no standard library for an architecture.
async fn needs_target(architecture: &str) -> Result<()> {
    let target = format!("{architecture}-unknown-linux-gnu");
    let output = command("rustc")
        .args(["--print", "target-libdir", "--target", &target])
        .output()
        .await
        .context("rustc doesn't start")?;
    let library = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    ensure!(
        Path::new(&library).is_dir(),
        "this Rust can't build for {architecture}: `rustup target add {target}`, or `cargo xtask wheels --only {}`",
        env::consts::ARCH
    );
    Ok(())
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        found.push(entry?.path());
    }
    found.sort();
    Ok(found)
}

fn is_wheel(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "whl")
}

/// What the README's code and Django's project import, and what runs their tests.
const NEWCOMERS: [&str; 9] = [
    "asyncpg",
    "django",
    "fastapi",
    "httpx",
    "psycopg",
    "pytest",
    "pytest-asyncio",
    "sqlalchemy",
    "uvicorn",
];

/// What a newcomer does first.
const README: &str = "tests/newcomer.py";
/// What needs the latest Django.
const NEWEST_DJANGO: &str = "tests/test_django.py::test_tasks_of_django_6_and_their_results";
/// All of the README and of what it links to. `cargo xtask python` runs these with the same wheel.
const MORE_TESTS: [&str; 4] = [
    "tests/test_django.py",
    "tests/test_fastapi.py",
    "tests/test_readme.py",
    "tests/test_testing.py",
];

/// As [`tried`], with all tests of the README, and of what it links to.
pub(crate) async fn tried_all(wheel: &Path, url: &str) -> Result<()> {
    let wheel = fs::canonicalize(wheel).with_context(|| wheel.display().to_string())?;
    tried(&wheel, &MORE_TESTS, url).await
}

/// Installs a wheel into an empty virtual environment, of the newest Python that is found, and follows the README there.
pub(crate) async fn tried(wheel: &Path, more: &[&str], url: &str) -> Result<()> {
    step("a newcomer's environment");
    let python = newest().await?;
    let mut tests = vec![README];
    if python.is_at_least(12) {
        tests.push(NEWEST_DJANGO);
    } else {
        step(&format!(
            "Django 6: left out, since it needs Python 3.12 or later, and there is only {}; PGQRS_NEWEST_PYTHON can name one",
            python.version
        ));
    }
    let venv = Venv(cargo::target().join("python").join("newcomer"));
    let mut create = command(&python.program);
    create.args(["-m", "venv", "--clear"]).arg(&venv.0);
    finish(&mut create).await?;
    let dependencies = extra("test")?;
    let mut wanted: Vec<String> = dependencies
        .into_iter()
        .filter(|dependency| {
            let end = dependency.find(['[', '>', '<', '=']);
            NEWCOMERS.contains(&&dependency[..end.unwrap_or(dependency.len())])
        })
        .collect();
    wanted.push(wheel.display().to_string());
    venv.pip(&wanted).await?;
    let mut pytest = venv.command("pytest");
    pytest
        .args(["-p", "no:cacheprovider"])
        .args(tests)
        .args(more);
    finish(pytest.env("PGQRS_TEST_URL", url)).await
}

/// The newest Python that is found: the one that `PGQRS_NEWEST_PYTHON` names, one on the `PATH`, or one of pyenv's;
/// defaults to the one that the package is built with.
async fn newest() -> Result<Interpreter> {
    if let Ok(program) = env::var("PGQRS_NEWEST_PYTHON") {
        return Interpreter::at(&program).await.with_context(|| {
            format!("PGQRS_NEWEST_PYTHON: `{program}` is no Python, or has no `venv`")
        });
    }
    let mut programs: Vec<String> = (12..20)
        .rev()
        .map(|minor| format!("python3.{minor}"))
        .collect();
    if let Some(root) = env::var_os("PYENV_ROOT") {
        let versions = Path::new(&root).join("versions");
        let found = files(&versions).unwrap_or_default();
        let of_each = found.iter().map(|version| version.join("bin/python"));
        programs.extend(of_each.map(|program| program.display().to_string()));
    }
    let mut newest: Option<Interpreter> = None;
    for program in programs {
        let Some(found) = Interpreter::at(&program).await else {
            continue;
        };
        let is_newer = newest
            .as_ref()
            .is_none_or(|newest| found.numbers() > newest.numbers());
        if is_newer && found.has_venv().await {
            newest = Some(found);
        }
    }
    match newest {
        Some(newest) if newest.is_at_least(12) => Ok(newest),
        _ => Interpreter::default().await,
    }
}

impl Interpreter {
    async fn has_venv(&self) -> bool {
        command(&self.program)
            .args(["-c", "import ensurepip, venv"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .await
            .is_ok_and(|status| status.success())
    }

    /// Whether it is Python 3 with this minor version, or a later one.
    fn is_at_least(&self, minor: u32) -> bool {
        self.numbers() >= vec![3, minor]
    }
}
