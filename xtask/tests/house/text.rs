//! The language of code and docs, and how long a file is.

use crate::{all_files, files};

/// What a reader from another project would not search for, nor understand at first reading; and what to write instead.
const WORDS: [(&str, &str); 11] = [
    ("patience", "the time-out or the time limit that it is"),
    (
        "linger",
        "the time-out that it is: elsewhere it is the wait to fill a batch",
    ),
    ("parcel", "`PendingSend`, or what it is"),
    ("board", "`InFlight`, or what it is"),
    ("lent", "`passed by reference`, or whose connection it is"),
    ("teller", "what notifies"),
    ("told", "`notified`, `reported`, `returned`"),
    ("whoever", "who it is: the caller, the next claim"),
    ("gives back", "`returns`"),
    ("mend", "`correct`, `repair`, or what to write instead"),
    ("mends", "`corrects`, `repairs`"),
];

const LONGEST: usize = 500;

/// The words of a text, in lower case, with a space before and after each. Names are split: `LAST_WORDS`, `StoreOptions`.
fn words(text: &str) -> String {
    let mut words = " ".to_owned();
    let mut was_lower = false;
    for letter in text.chars() {
        if !letter.is_alphabetic() {
            if !words.ends_with(' ') {
                words.push(' ');
            }
            was_lower = false;
            continue;
        }
        if letter.is_uppercase() && was_lower {
            words.push(' ');
        }
        was_lower = letter.is_lowercase();
        words.extend(letter.to_lowercase());
    }
    words + " "
}

#[test]
fn words_are_those_of_the_field() {
    assert_eq!(
        words("/// LAST_WORDS of `StoreOptions`.").trim(),
        "last words of store options"
    );
    let in_rust = [
        "src",
        "benches",
        "crates",
        "examples",
        "python/src",
        "tests",
        "xtask/src",
    ];
    let code = in_rust.into_iter().flat_map(|folder| files(folder, "rs"));
    let in_python = ["py", "pyi"];
    let code = code.chain(
        in_python
            .into_iter()
            .flat_map(|end| files("python/python", end)),
    );
    let mut found = Vec::new();
    for (path, text) in code.chain(all_files("md")) {
        let path = path.display().to_string();
        for (n, line) in text.lines().enumerate() {
            // Not in the names of tests, which stand in backticks.
            let is_code = |part: &usize| path.ends_with(".md") && part % 2 == 1;
            let parts = line.split('`').enumerate();
            let prose: String = parts
                .filter(|(part, _)| !is_code(part))
                .map(|(_, text)| text)
                .collect();
            let words = words(&prose);
            let foreign = WORDS
                .iter()
                .filter(|(word, _)| words.contains(&format!(" {word} ")));
            found.extend(
                foreign.map(|(word, instead)| format!("{path}:{}: `{word}`; say {instead}", n + 1)),
            );
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// Lines that somebody wrote: generated parts stand between `<!-- Made ..` and `<!-- End ..`.
fn written(text: &str) -> usize {
    let mut is_made = false;
    text.lines()
        .filter(|line| {
            is_made |= line.starts_with("<!-- Made ");
            let counts = !is_made;
            is_made &= !line.starts_with("<!-- End ");
            counts
        })
        .count()
}

#[test]
fn no_file_is_too_long_to_read_at_once() {
    assert_eq!(
        written("a\n<!-- Made by x -->\nb\n<!-- End of it -->\nc"),
        2
    );
    let mut counted = 0;
    for extension in ["md", "py", "pyi", "rs", "sql", "toml"] {
        for (path, text) in all_files(extension) {
            let lines = written(&text);
            assert!(
                lines <= LONGEST,
                "{} has {lines} lines, over the limit of {LONGEST}: split it by subject",
                path.display()
            );
            counted += 1;
        }
    }
    assert!(counted > 200, "only {counted} files");
}
