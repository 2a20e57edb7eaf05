//! Whatever the toolchain: a misuse fails with the error that its file names, and its correction compiles. All of
//! them are programs of one generated package, so it is one run of cargo, which shares what is compiled
//! already. (rustdoc looks at the codes of `compile_fail,E…` on nightly only.)

use std::{collections::BTreeMap, env, fmt::Write, fs, path::Path, process::Command};

use serde_json::Value;

use crate::misuse::{Misuse, root};

/// What the compiler says of a program: the code and the first line of each error.
type Errors = Vec<(Option<String>, String)>;

/// `compared`: the misuses are compiled elsewhere, and fail with the answers beside them; only the corrections are
/// compiled here.
pub(crate) fn check(misuses: &[Misuse], compared: bool) {
    let mut errors = compile(misuses, !compared);
    if compared {
        errors.extend(
            misuses
                .iter()
                .map(|misuse| (wrong(misuse), answered(misuse))),
        );
    }
    let mut problems = String::new();
    for misuse in misuses {
        let (path, expected) = (misuse.path(), &misuse.code);
        let found = errors.get(&wrong(misuse)).map_or(&[][..], Vec::as_slice);
        if found.is_empty() {
            let _ = writeln!(problems, "{path} compiles");
        } else if found.iter().any(|(code, _)| code != expected) {
            let _ = writeln!(
                problems,
                "{path} names {expected:?}, and the compiler says {found:?}"
            );
        } else if misuse.rustcs_own_words.is_none() && found[0].1 != misuse.message() {
            let _ = writeln!(problems, "{path}: our words have become {:?}", found[0].1);
        }
        if let Some(found) = errors.get(&right(misuse)) {
            let _ = writeln!(
                problems,
                "the correction in {path} doesn't compile: {found:?}"
            );
        }
    }
    assert!(problems.is_empty(), "\n{problems}");
}

fn wrong(misuse: &Misuse) -> String {
    format!("wrong-{}-{}", misuse.group, misuse.name)
}

fn right(misuse: &Misuse) -> String {
    format!("right-{}-{}", misuse.group, misuse.name)
}

/// The errors in the compiler's answer, which doesn't name a lint by its code.
fn answered(misuse: &Misuse) -> Errors {
    let errors = misuse.answer.lines().filter_map(|line| {
        let (error, message) = line.strip_prefix("error")?.split_once(": ")?;
        let code = error
            .strip_prefix('[')
            .and_then(|code| code.strip_suffix(']'));
        let lint = misuse.code.as_deref().filter(|code| !code.starts_with('E'));
        Some((code.or(lint).map(str::to_owned), message.to_owned()))
    });
    errors.collect()
}

/// The errors in each program of the package; a program without any isn't there.
fn compile(misuses: &[Misuse], with_wrong: bool) -> BTreeMap<String, Errors> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let package = target.join("misuses");
    fs::create_dir_all(&package).expect("written");
    let ours = fs::read_to_string(root().join("Cargo.toml")).expect("it is there");
    let mut manifest = format!(
        "[package]\nname = \"misuses\"\nversion = \"0.0.0\"\nedition = \"2024\"\npublish = false\n\n\
         [workspace]\n\n{}\n{}\n[dependencies]\npgqrs = {{ path = {:?}, features = [\"schedules\"] }}\n",
        section(&ours, "[workspace.dependencies]"),
        section(&ours, "[profile.dev.package.\"*\"]"),
        root(),
    );
    for dependency in ["chrono", "serde", "serde_json", "sqlx", "tokio"] {
        let _ = writeln!(manifest, "{dependency}.workspace = true");
    }
    for misuse in misuses {
        let corrected = package.join(right(misuse)).with_extension("rs");
        write_if_changed(&corrected, &misuse.corrected);
        let mut programs = vec![(right(misuse), corrected)];
        if with_wrong {
            programs.push((wrong(misuse), root().join(misuse.path())));
        }
        for (name, path) in programs {
            let _ = write!(manifest, "\n[[bin]]\nname = {name:?}\npath = {path:?}\n");
        }
    }
    write_if_changed(&package.join("Cargo.toml"), &manifest);
    // The versions that the crate is tested with.
    fs::copy(root().join("Cargo.lock"), package.join("Cargo.lock")).expect("copied");

    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // Those of this package, because of which some build scripts would run again, and what depends on them be compiled
    // again.
    for (variable, _) in env::vars_os() {
        let name = variable.to_string_lossy();
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
            cargo.env_remove(&variable);
        }
    }
    let output = cargo
        .args([
            "check",
            "--bins",
            "--keep-going",
            "--offline",
            "--message-format",
            "json",
        ])
        .arg("--target-dir")
        .arg(target.parent().expect("it lies below the target folder"))
        .current_dir(&package)
        .env_remove("DATABASE_URL")
        .output()
        .expect("cargo starts");
    let messages = String::from_utf8_lossy(&output.stdout);
    let mut errors = BTreeMap::<String, Errors>::new();
    let mut compiled = 0;
    for line in messages.lines() {
        let message: Value = serde_json::from_str(line).expect("cargo writes JSON");
        let of_the_package = message["package_id"]
            .as_str()
            .is_some_and(|id| id.contains("misuses"));
        compiled += usize::from(of_the_package && message["reason"] == "compiler-artifact");
        let diagnostic = &message["message"];
        let said = diagnostic["message"].as_str().unwrap_or_default();
        if !of_the_package || diagnostic["level"] != "error" || said.starts_with("aborting") {
            continue;
        }
        let program = message["target"]["name"]
            .as_str()
            .expect("a name")
            .to_owned();
        let code = diagnostic["code"]["code"].as_str().map(str::to_owned);
        errors
            .entry(program)
            .or_default()
            .push((code, said.to_owned()));
    }
    assert_eq!(
        compiled + errors.len(),
        if with_wrong { 2 } else { 1 } * misuses.len(),
        "not every program was compiled:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    errors
}

/// A section of a manifest, with its heading.
fn section<'a>(manifest: &'a str, heading: &str) -> &'a str {
    let at = manifest
        .find(heading)
        .expect("the manifest has that section");
    let section = &manifest[at..];
    let end = section.find("\n[").map_or(section.len(), |end| end + 1);
    &section[..end]
}

/// Cargo compiles anew what was touched.
fn write_if_changed(path: &Path, text: &str) {
    if fs::read_to_string(path).is_ok_and(|found| found == text) {
        return;
    }
    fs::write(path, text).expect("written");
}
