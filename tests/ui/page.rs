//! `docs/compile-errors.md`: each misuse with its code, the compiler's answer and the correction. For readers that
//! look up a message, and don't know the types behind it.

use std::{fmt::Write, fs, path::PathBuf};

use crate::misuse::{self, GROUPS, Misuse};

fn file() -> PathBuf {
    misuse::root().join("docs/compile-errors.md")
}

pub(crate) fn write() {
    fs::write(file(), page(&misuse::all())).expect("it can be written");
}

pub(crate) fn compare() {
    let written = fs::read_to_string(file()).unwrap_or_default();
    let page = page(&misuse::all());
    let differ = written
        .lines()
        .zip(page.lines())
        .position(|(written, made)| written != made);
    let differ = differ.unwrap_or_else(|| written.lines().count().min(page.lines().count()));
    assert!(
        written == page,
        "docs/compile-errors.md is not what the files under tests/ui say, from line {} on: {:?}. To make it \
         anew: `TRYBUILD=overwrite cargo xtask test mistakes`",
        differ + 1,
        page.lines().nth(differ).unwrap_or_default(),
    );
}

const OPENING: &str = "\
<!-- Made of the files under tests/ui by `TRYBUILD=overwrite cargo xtask test mistakes`. -->

# What doesn't compile, and what to write instead

Many mistakes in the use of pgqrs don't compile. This page has each of them, with the compiler's message
and the corrected code. To look up a message, search this page for its first line.

The first line says what is wrong. What to write instead is beside the `^^^`, or below, after `note:` or
`help:`. Notes that only point into pgqrs's own source are left out here.

";

fn page(misuses: &[Misuse]) -> String {
    let mut page = OPENING.to_owned();
    page += "| mistake | the compiler says | message by |\n|---|---|---|\n";
    for misuse in misuses {
        let (heading, link) = (&misuse.heading, anchor(&misuse.heading));
        let message = misuse.message().replace('|', "\\|");
        let words = match misuse.rustcs_own_words {
            Some(_) => "rustc",
            None => "pgqrs",
        };
        let _ = writeln!(page, "| [{heading}](#{link}) | {message} | {words} |");
    }
    page += "\nIf a message is rustc's own, a sentence below it says how to read it.\n";
    for (group, title) in GROUPS {
        let _ = write!(page, "\n## {title}\n");
        for misuse in misuses.iter().filter(|misuse| misuse.group == group) {
            entry(&mut page, misuse);
        }
    }
    page
}

fn entry(page: &mut String, misuse: &Misuse) {
    let Misuse {
        heading,
        why,
        wrong,
        correction,
        ..
    } = misuse;
    let said = shortened(&misuse.answer);
    let _ = write!(
        page,
        "\n### {heading}\n\n{why}\n\n```rust,ignore\n{wrong}\n```\n\nThe compiler says:\n\n```text\n{said}\n```\n\n"
    );
    if let Some(reason) = &misuse.rustcs_own_words {
        let _ = write!(page, "This message is rustc's own: {reason}\n\n");
    }
    let _ = write!(page, "Instead:\n\n```rust,ignore\n{correction}\n```\n");
}

/// As GitHub makes it from a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter_map(|letter| match letter {
        ' ' => Some('-'),
        '-' | '_' => Some(letter),
        letter if letter.is_alphanumeric() => Some(letter.to_ascii_lowercase()),
        _ => None,
    });
    kept.collect()
}

/// Beginnings of notes without use for a reader: which line of pgqrs has a bound, and which types fulfil it.
const LEFT_OUT: [&str; 12] = [
    "note: required by",
    "note: required for",
    "note: method defined here",
    "note: the lint level is defined here",
    "note: inside `",
    "note: constructor is not visible here",
    "note: `#[deny(",
    "note: the trait bound `",
    "help: the trait `",
    "help: the following",
    "help: use `let _ = ...`",
    "note: `",
];

/// The first of the compiler's errors, without the parts that point into pgqrs.
fn shortened(answer: &str) -> String {
    let first = answer.split("\n\n").next().unwrap_or_default();
    let mut keep = true;
    let mut lines: Vec<&str> = Vec::new();
    for line in first.lines() {
        let part = line.trim_start().trim_start_matches("= ");
        let begins_at_the_margin = line.starts_with("note: ") || line.starts_with("help: ");
        let begins_a_part = begins_at_the_margin || line.trim_start().starts_with("= ");
        if begins_a_part {
            keep = !LEFT_OUT.iter().any(|beginning| part.starts_with(beginning));
        }
        if keep {
            lines.push(line);
        }
    }
    // A gutter that nothing follows.
    while lines.last().is_some_and(|line| line.trim() == "|") {
        lines.pop();
    }
    lines.join("\n")
}
