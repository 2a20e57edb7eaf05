//! The language of code and docs, and how long a file is.

use std::fs;

use crate::{files, root};

/// What a reader from another project would not search for, nor understand at first reading; and what to write instead.
const WORDS: [(&str, &str); 9] = [
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
];

const LONGEST: usize = 500;

/// Pages for users and developers.
fn pages() -> Vec<(String, String)> {
    let mut pages: Vec<_> = [
        "README.md",
        "CONTRIBUTING.md",
        "ARCHITECTURE.md",
        "CHANGELOG.md",
        "python/README.md",
    ]
    .map(|page| {
        let text = fs::read_to_string(root().join(page)).expect("it is there");
        (page.to_owned(), text)
    })
    .to_vec();
    let docs = files("docs", "md").into_iter();
    pages.extend(docs.map(|(path, text)| (path.display().to_string(), text)));
    pages
}

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
    let code = ["src", "python/src", "examples"]
        .into_iter()
        .flat_map(|folder| files(folder, "rs"))
        .map(|(path, text)| (path.display().to_string(), text));
    let mut found = Vec::new();
    for (path, text) in code.chain(pages()) {
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
    for (path, text) in files("src", "rs") {
        let lines = text.lines().count();
        assert!(
            lines <= LONGEST,
            "{} has {lines} lines, over the limit of {LONGEST}: split it by subject",
            path.display()
        );
    }
    for (path, text) in pages() {
        let lines = written(&text);
        assert!(
            lines <= LONGEST,
            "{path} has {lines} lines, over the limit of {LONGEST}: split it by subject"
        );
    }
}
