//! What doesn't compile, and what the compiler says to it. Each file in a folder under `tests/ui/` is a
//! common mistake, and its correction; beside it stands the compiler's answer, which is
//! reviewed like documentation. `docs/compile-errors.md` is made of them.
//!
//! To accept new answers: `TRYBUILD=overwrite cargo xtask test mistakes`, then read them.

mod any_toolchain;
mod misuse;
mod page;

use std::{env, fs, path::Path, process::Command};

use crate::misuse::Misuse;

/// Answers are compared on this toolchain only: another one words its own part differently.
const TOOLCHAIN: &str = "rustc 1.95.";

/// Whether answers are being written, and the page made of them, so that there is nothing to compare.
fn accepting() -> bool {
    env::var_os("TRYBUILD").is_some_and(|value| value == "overwrite")
}

/// Whether this is the toolchain whose answers are compared.
fn is_compared() -> bool {
    let version = Command::new("rustc")
        .arg("--version")
        .output()
        .expect("rustc starts");
    String::from_utf8_lossy(&version.stdout).starts_with(TOOLCHAIN)
}

#[test]
fn mistakes_do_not_compile_and_the_compiler_says_why() {
    if !is_compared() {
        eprintln!("skipped: the answers are those of {TOOLCHAIN}x, and this is another one");
        return;
    }
    // It compares when it is dropped.
    drop_after(trybuild::TestCases::new(), |cases| {
        cases.compile_fail("tests/ui/*/*.rs");
    });
    if accepting() {
        page::write();
    }
}

fn drop_after<T>(value: T, work: impl FnOnce(&T)) {
    work(&value);
}

#[test]
fn mistakes_do_not_compile_on_any_toolchain_and_their_corrections_do() {
    if accepting() {
        return;
    }
    any_toolchain::check(&misuse::all(), is_compared());
}

#[test]
fn mistakes_are_explained_on_the_page() {
    if !accepting() {
        page::compare();
    }
}

/// Our own sentence, or the reason why there can be none.
#[test]
fn mistakes_are_reported_in_our_words_or_a_reason_is_stated() {
    if accepting() {
        return;
    }
    for misuse in misuse::all() {
        let said = misuse.message();
        let reason = misuse.rustcs_own_words.as_deref();
        match (is_ours(said), reason) {
            (true, Some(_)) => panic!("{}: `{said}` is ours, not rustc's own", misuse.path()),
            (false, None) => panic!(
                "{}: `{said}` is rustc's own: word it through `#[diagnostic::on_unimplemented]`, or say why \
                 that can't be: `//! rustc's own words: …`",
                misuse.path()
            ),
            _ => {}
        }
    }
}

/// Whether the compiler's first line comes from a `message = "…"`, a `panic!("…")` or the like in `src/`.
fn is_ours(said: &str) -> bool {
    let mut folders = vec![misuse::root().join("src")];
    let mut sources = String::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("the folder is there") {
            let path = entry.expect("it can be read").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let text = fs::read_to_string(&path).expect("it is text");
                sources += text.split("#[cfg(test)]\nmod ").next().unwrap_or(&text);
            }
        }
    }
    let said = said.strip_prefix("evaluation panicked: ").unwrap_or(said);
    // Those of cron expressions are made of patterns, which a `const fn` fills in.
    [
        "message = \"",
        "panic!(\"",
        "compile_error!(\"",
        "=> \"",
        "=> {\n                \"",
    ]
    .into_iter()
    .flat_map(|opening| sources.split(opening).skip(1))
    .filter_map(|rest| rest.split('"').next())
    // One that is filled in as a whole says nothing.
    .filter(|pattern| !(pattern.starts_with('{') && pattern.find('}') == Some(pattern.len() - 1)))
    .any(|pattern| fits(pattern, said))
}

/// Whether a text is a pattern whose `{…}` were filled in.
fn fits(pattern: &str, text: &str) -> bool {
    let mut pieces = pattern.split('{').enumerate().map(|(place, piece)| {
        let (_, literal) = piece.split_once('}').unwrap_or(("", piece));
        if place == 0 { piece } else { literal }
    });
    let Some(mut rest) = pieces.next().and_then(|first| text.strip_prefix(first)) else {
        return false;
    };
    for piece in pieces {
        let Some(at) = rest.find(piece) else {
            return false;
        };
        rest = &rest[at + piece.len()..];
    }
    rest.is_empty() || pattern.ends_with('}')
}

#[test]
fn a_filled_in_pattern_is_distinguished_from_another() {
    assert!(fits(
        "this enqueue has no target",
        "this enqueue has no target"
    ));
    assert!(!fits("this enqueue", "this enqueue has no target"));
    assert!(fits(
        "queue `{Self}` does not carry `{P}`",
        "queue `Queue<A>` does not carry `B`"
    ));
    assert!(!fits(
        "queue `{Self}` does not carry `{P}`",
        "mismatched types"
    ));
}

/// The front page shows what the compiler really says.
#[test]
fn mistakes_in_the_readme_are_answered_as_the_compiler_does() {
    let readme = fs::read_to_string(misuse::root().join("README.md")).expect("it is there");
    let shown: Vec<&str> = readme
        .split("```text\n")
        .skip(1)
        .filter_map(|block| block.split("```").next())
        .filter(|block| block.starts_with("error"))
        .collect();
    assert!(!shown.is_empty(), "README.md shows no compiler's message");
    let misuses = misuse::all();
    for block in shown {
        let is_a_beginning = |misuse: &Misuse| misuse.answer.starts_with(block);
        assert!(
            misuses.iter().any(is_a_beginning),
            "README.md shows what is no beginning of a file under tests/ui:\n{block}"
        );
    }
}

/// A file that is no misuse, or an answer without one, would be compared with nothing.
#[test]
fn mistakes_and_answers_come_in_pairs() {
    if accepting() {
        return;
    }
    for entry in fs::read_dir(misuse::root().join("tests/ui")).expect("it is there") {
        let folder = entry.expect("it can be read").path();
        if !folder.is_dir() {
            continue;
        }
        assert!(
            misuse::GROUPS
                .iter()
                .any(|(name, _)| folder.ends_with(name)),
            "{} is no group of tests/ui/misuse.rs",
            folder.display()
        );
        for entry in fs::read_dir(&folder).expect("it is there") {
            let file = entry.expect("it can be read").path();
            let other = match file.extension().and_then(|extension| extension.to_str()) {
                Some("rs") => file.with_extension("stderr"),
                Some("stderr") => file.with_extension("rs"),
                _ => panic!("{} doesn't belong here", file.display()),
            };
            assert!(Path::new(&other).exists(), "{} is missing", other.display());
        }
    }
}
