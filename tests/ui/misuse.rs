//! A file of a misuse, taken apart: its heading and what explains it, the wrong code, and the right code.
//! For the page that is made of them, and for what compiles them. The right code stands in the same file
//! as a comment, in place of the wrong code above it:
//!
//! ```text
//!     // Wrong:
//!     pgqrs::enqueue().to("tasks").execute(&store).await?;
//!     // Right:
//!     // pgqrs::enqueue().message(&"hello").to("tasks").execute(&store).await?;
//! ```

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Folders under `tests/ui/`, and what they are called, in the order of the page.
pub(crate) const GROUPS: [(&str, &str); 8] = [
    ("enqueue", "Enqueueing"),
    ("queue", "Queues with a type"),
    ("dequeue", "Dequeueing"),
    ("delivery", "Settling"),
    ("worker", "Producers and consumers"),
    ("handler", "Handlers"),
    ("schedule", "Schedules"),
    ("sealed", "Types that only pgqrs can implement"),
];

pub(crate) struct Misuse {
    pub(crate) group: &'static str,
    pub(crate) name: String,
    pub(crate) heading: String,
    pub(crate) why: String,
    /// `E0277`, a lint's name, or none.
    pub(crate) code: Option<String>,
    pub(crate) rustcs_own_words: Option<String>,
    /// What a reader of the page is shown: without the heading, the correction and `main`.
    pub(crate) wrong: String,
    /// What is written in place of the wrong lines.
    pub(crate) correction: String,
    /// The whole program, corrected.
    pub(crate) corrected: String,
    /// What the compiler says, on the toolchain that is compared.
    pub(crate) answer: String,
}

impl Misuse {
    pub(crate) fn path(&self) -> String {
        format!("tests/ui/{}/{}.rs", self.group, self.name)
    }

    /// The compiler's first line, without `error[…]: `.
    pub(crate) fn message(&self) -> &str {
        let first = self.answer.lines().next().unwrap_or_default();
        first.split_once(": ").map_or(first, |(_, message)| message)
    }
}

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All of them, in the order of the page.
pub(crate) fn all() -> Vec<Misuse> {
    let mut misuses = Vec::new();
    for (group, _) in GROUPS {
        let folder = fs::read_dir(root().join("tests/ui").join(group)).expect("it is there");
        let mut files: Vec<PathBuf> = folder
            .map(|entry| entry.expect("it can be read").path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
            .collect();
        files.sort();
        misuses.extend(files.iter().map(|file| read(group, file)));
    }
    assert!(misuses.len() >= 30, "only {} misuses", misuses.len());
    let mut headings: Vec<_> = misuses.iter().map(|misuse| &misuse.heading).collect();
    headings.sort();
    let again = headings.windows(2).find(|pair| pair[0] == pair[1]);
    assert!(
        again.is_none(),
        "two misuses are called {:?}",
        again.map(|pair| pair[0])
    );
    misuses
}

fn read(group: &'static str, file: &Path) -> Misuse {
    let name = file
        .file_stem()
        .expect("a name")
        .to_string_lossy()
        .into_owned();
    let source = fs::read_to_string(file).expect("it is text");
    let answer = fs::read_to_string(file.with_extension("stderr")).unwrap_or_default();
    let header: Vec<&str> = source
        .lines()
        .map_while(|line| line.strip_prefix("//!"))
        .map(str::trim)
        .collect();
    let mut paragraphs = header.split(|line| line.is_empty());
    let shape = "it begins with `//! <heading>`, `//! <why>`, and `//! Fails with: <code>`, a blank `//!` apart";
    let mut paragraph = || {
        let lines = paragraphs
            .next()
            .unwrap_or_else(|| panic!("{}: {shape}", file.display()));
        lines.join(" ")
    };
    let (heading, why, fate) = (paragraph(), paragraph(), paragraph());
    let fate = fate
        .strip_prefix("Fails with: ")
        .unwrap_or_else(|| panic!("{}: {shape}", file.display()));
    let (code, rustcs_own_words) = match fate.split_once(" rustc's own words: ") {
        Some((code, words)) => (code, Some(words.to_owned())),
        None => (fate, None),
    };
    let code = (code != "no code").then(|| code.to_owned());

    let body: Vec<&str> = source.lines().skip(header.len()).collect();
    let (mut wrong, mut correction, mut corrected) = (Vec::new(), Vec::new(), Vec::new());
    let mut part = Part::Both;
    for line in body {
        let code = line.trim_start();
        let indent = &line[..line.len() - code.len()];
        part = match (part, code) {
            (_, "// Wrong:") => Part::Wrong,
            (_, "// Right:") => Part::Right,
            (Part::Right, code) if !code.starts_with("//") => Part::Both,
            (part, _) => part,
        };
        match part {
            _ if matches!(code, "// Wrong:" | "// Right:") => {}
            Part::Both => {
                wrong.push(line.to_owned());
                corrected.push(line.to_owned());
            }
            Part::Wrong => wrong.push(line.to_owned()),
            Part::Right => {
                let code = code.trim_start_matches("//");
                let line = format!("{indent}{}", code.strip_prefix(' ').unwrap_or(code));
                corrected.push(line.clone());
                correction.push(line);
            }
        }
    }
    assert!(!correction.is_empty(), "{}: no `// Right:`", file.display());
    Misuse {
        group,
        name,
        heading,
        why,
        code,
        rustcs_own_words,
        wrong: shown(&wrong),
        correction: shown(&correction),
        corrected: corrected.join("\n") + "\n",
        answer,
    }
}

#[derive(Clone, Copy)]
enum Part {
    Both,
    Wrong,
    Right,
}

/// Without an indentation that all lines have, and without an empty `main`.
fn shown(lines: &[String]) -> String {
    let indent = lines
        .iter()
        .filter(|line| !line.is_empty())
        .map(|line| line.len() - line.trim_start().len())
        .min()
        .unwrap_or_default();
    let lines: Vec<&str> = lines
        .iter()
        .filter(|line| *line != "fn main() {}")
        .map(|line| line.get(indent..).unwrap_or_default())
        .collect();
    lines.join("\n").trim().to_owned()
}
