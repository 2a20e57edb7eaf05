//! Pages for users and developers: their links, and their code.

use std::fs;

use crate::{all_files, root};

/// The lines of a Markdown page outside of its code blocks.
pub(crate) fn prose(page: &str) -> impl Iterator<Item = &str> {
    let mut in_code = false;
    page.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        in_code ^= is_fence;
        !in_code && !is_fence
    })
}

/// What a heading is linked by.
fn anchor(heading: &str) -> String {
    heading
        .trim_start_matches('#')
        .trim()
        .to_lowercase()
        .chars()
        .filter(|letter| letter.is_alphanumeric() || matches!(letter, ' ' | '-' | '_'))
        .map(|letter| if letter == ' ' { '-' } else { letter })
        .collect()
}

/// Whether a page has a heading with this anchor.
pub(crate) fn has_heading(page: &str, anchored: &str) -> bool {
    let mut headings = prose(page).filter(|line| line.starts_with('#'));
    headings.any(|heading| anchor(heading) == anchored)
}

/// The targets of `[text](target)` and `[name]: target`.
fn targets(page: &str) -> Vec<String> {
    let mut targets = Vec::new();
    for line in prose(page) {
        for (at, _) in line.match_indices("](") {
            let target = &line[at + 2..];
            targets.extend(target.split_once(')').map(|(target, _)| target.to_owned()));
        }
        if let Some((name, target)) = line.split_once("]: ")
            && name.starts_with('[')
        {
            targets.push(target.to_owned());
        }
    }
    targets
}

#[test]
fn links_lead_to_files_and_headings_that_exist() {
    let mut links = 0;
    for (page, text) in all_files("md") {
        let page = root().join(page);
        for target in targets(&text) {
            if target.contains("://") {
                continue;
            }
            links += 1;
            let (path, anchored) = target.split_once('#').unwrap_or((&target, ""));
            let file = if path.is_empty() {
                page.clone()
            } else {
                page.parent().expect("a folder").join(path)
            };
            assert!(file.exists(), "{}: {target} leads nowhere", page.display());
            if !anchored.is_empty() {
                let of = fs::read_to_string(&file).expect("it is text");
                assert!(
                    has_heading(&of, anchored),
                    "{}: {target} has no such heading",
                    page.display()
                );
            }
        }
    }
    assert!(links > 50, "only {links} links");
}

/// PyPI shows the page without the files beside it.
#[test]
fn links_of_the_python_readme_work_on_pypi_too() {
    let page = fs::read_to_string(root().join("python/README.md")).expect("it is there");
    let targets = targets(&page);
    for target in &targets {
        assert!(
            target.starts_with("https://") || target.starts_with('#'),
            "{target} leads nowhere on PyPI"
        );
    }
    assert!(!targets.is_empty(), "no links");
}

#[test]
fn links_of_the_readme_work_on_docs_rs_too() {
    let readme = fs::read_to_string(root().join("README.md")).expect("it is there");
    let lib = fs::read_to_string(root().join("src/lib.rs")).expect("it is there");
    for line in prose(&readme) {
        if let Some((name, target)) = line.split_once("]: ")
            && name.starts_with('[')
            && !target.contains("://")
        {
            assert!(
                lib.contains(&format!("//! {name}]: ")),
                "src/lib.rs doesn't say where {name}] leads to on docs.rs"
            );
        }
        let relative = line
            .split("](")
            .skip(1)
            .find(|target| !(target.starts_with("http") || target.starts_with('#')));
        assert_eq!(
            relative, None,
            "README.md: name this link, and define it at the end"
        );
    }
}

/// They would be shown on a repository's page.
#[test]
fn code_of_the_readme_hides_no_lines() {
    for page in ["README.md", "python/README.md"] {
        let text = fs::read_to_string(root().join(page)).expect("it is there");
        let hidden = text
            .split("```rust")
            .skip(1)
            .filter_map(|block| block.split("```").next())
            .flat_map(str::lines)
            .find(|line| line.starts_with("# ") || *line == "#");
        assert_eq!(hidden, None, "{page}");
    }
}

/// A count in a sentence is wrong after the next change. Those of a dated measurement name their figures otherwise.
#[test]
fn no_page_counts_what_changes() {
    let words = [
        "statements",
        "tests",
        "files",
        "modules",
        "variants",
        "dependencies",
        "examples",
    ];
    for page in [
        "README.md",
        "CONTRIBUTING.md",
        "ARCHITECTURE.md",
        "RELEASING.md",
    ] {
        let text = fs::read_to_string(root().join(page)).expect("it is there");
        let words_of: Vec<&str> = text.split_whitespace().collect();
        for pair in words_of.windows(2) {
            let is_count = pair[0].chars().all(|letter| letter.is_ascii_digit());
            let of = pair[1].trim_matches(|letter: char| !letter.is_alphabetic());
            assert!(
                !(is_count && words.contains(&of)),
                "{page}: `{} {of}`",
                pair[0]
            );
        }
    }
}
