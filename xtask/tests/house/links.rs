//! Links by name, to docs.rs and to the guide, and mentions of files in texts.

use std::fs;

use crate::{
    all_files,
    pages::{has_heading, prose},
    root,
};

/// A line without its code.
fn without_code(line: &str) -> String {
    line.split('`').step_by(2).collect::<Vec<_>>().join("`")
}

/// What follows each `[text][` on a line, up to the `]`.
fn names_used(line: &str) -> Vec<String> {
    let line = without_code(line);
    let rests = line.match_indices("][").map(|(at, _)| &line[at + 2..]);
    rests
        .filter_map(|rest| rest.split_once(']'))
        .map(|(name, _)| name.to_owned())
        .collect()
}

/// A link whose name isn't defined is shown as text, with its brackets.
#[test]
fn links_by_name_are_defined_and_what_is_defined_is_used() {
    let mut links = 0;
    for (path, page) in all_files("md") {
        let is_definition = |line: &&str| line.starts_with('[') && line.contains("]: ");
        let (definitions, lines): (Vec<_>, Vec<_>) = prose(&page).partition(is_definition);
        let defined: Vec<_> = definitions
            .iter()
            .filter_map(|line| line[1..].split_once("]: "))
            .map(|(name, _)| name)
            .collect();
        let used: Vec<_> = lines.iter().flat_map(|line| names_used(line)).collect();
        links += used.len();
        for name in &used {
            assert!(
                defined.contains(&name.as_str()),
                "{}: [{name}] isn't defined",
                path.display()
            );
        }
        let text = lines.join("\n");
        for name in defined {
            assert!(
                used.iter().any(|one| one == name) || text.contains(&format!("[{name}]")),
                "{}: no link is [{name}]",
                path.display()
            );
        }
    }
    assert!(links > 200, "only {links} links");
}

/// The texts that link to docs.rs, or into the guide.
fn texts() -> Vec<(String, String)> {
    let files = all_files("md").into_iter().chain(all_files("rs"));
    files
        .map(|(path, text)| (path.display().to_string(), text))
        .filter(|(path, _)| !path.starts_with("xtask/tests/"))
        .collect()
}

/// What follows a prefix in a text, up to the end of the link.
fn after<'text>(text: &'text str, prefix: &'text str) -> impl Iterator<Item = &'text str> {
    text.match_indices(prefix).map(move |(at, _)| {
        let rest = &text[at + prefix.len()..];
        let end = rest.find(|letter: char| letter.is_whitespace() || ")>]`\"".contains(letter));
        rest[..end.unwrap_or(rest.len())].trim_end_matches(['.', ','])
    })
}

/// docs.rs shows the files of the crate's package, and no others. A folder with a manifest is a package of its own.
#[test]
fn links_to_files_on_docs_rs_are_in_the_package() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("it is there");
    let mut links = 0;
    for (page, text) in texts() {
        for path in after(&text, "https://docs.rs/crate/pgqrs/latest/source/") {
            links += 1;
            let path = path.trim_end_matches('/');
            assert!(root().join(path).exists(), "{page}: {path} isn't there");
            let is_packed = {
                let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
                let end = name.rsplit_once('.').map_or(name, |(_, end)| end);
                let mut above = path.match_indices('/').map(|(at, _)| &path[..at]);
                let is_apart = |folder: &str| root().join(folder).join("Cargo.toml").exists();
                assert!(
                    !above.clone().any(is_apart),
                    "{page}: {path} is in another package"
                );
                manifest.contains(&format!("\"/{path}\""))
                    || manifest.contains(&format!("\"/{folder}/*.{end}\""))
                    || manifest.contains(&format!("\"/{path}/"))
                    || above.any(|folder| manifest.contains(&format!("\"/{folder}/**")))
            };
            assert!(is_packed, "{page}: {path} isn't in the crate's package");
        }
    }
    assert!(links > 20, "only {links} links");
}

/// rustdoc looks at what an item's path leads to, and not at the heading behind it, nor at pages on docs.rs.
#[test]
fn links_into_the_guide_lead_to_pages_and_headings_that_exist() {
    let guide = fs::read_to_string(root().join("src/guide.rs")).expect("it is there");
    let page_of = |module: &str| {
        let (before, _) = guide.split_once(&format!("pub mod {module} "))?;
        let mut included = before.rsplit("include_str!(\"../");
        let path = included.find_map(|rest| Some(rest.split_once(".md\")")?.0))?;
        fs::read_to_string(root().join(format!("{path}.md"))).ok()
    };
    let mut links = 0;
    for (page, text) in texts() {
        let on_docs_rs = after(&text, "https://docs.rs/pgqrs/latest/pgqrs/guide/");
        let in_the_crate = after(&text, "crate::guide::");
        for target in on_docs_rs.chain(in_the_crate) {
            links += 1;
            let (module, anchored) = target.split_once('#').unwrap_or((target, ""));
            let linked = page_of(module.trim_end_matches('/'));
            let linked = linked.unwrap_or_else(|| panic!("{page}: there is no guide {module}"));
            assert!(
                anchored.is_empty() || has_heading(&linked, anchored),
                "{page}: {target} has no such heading"
            );
        }
    }
    assert!(links > 50, "only {links} links");
}

/// Pages move. A comment, a message or a changelog that names one by its path has to follow.
#[test]
fn pages_that_texts_name_exist() {
    let mut mentions = 0;
    let others = ["toml", "yml", "py"].into_iter().flat_map(all_files);
    let others = others.map(|(path, text)| (path.display().to_string(), text));
    for (page, text) in texts().into_iter().chain(others) {
        for (at, _) in text.match_indices("docs/") {
            let path = text[at..]
                .split(|letter: char| !(letter.is_ascii_alphanumeric() || "/._-".contains(letter)));
            let path = path.into_iter().next().unwrap_or_default();
            let path = path.trim_end_matches('.');
            let is_ours = !text[..at].ends_with(|letter: char| letter.is_alphanumeric());
            if is_ours && path.ends_with(".md") {
                mentions += 1;
                assert!(root().join(path).exists(), "{page}: {path} isn't there");
            }
        }
    }
    assert!(mentions > 20, "only {mentions} mentions");
}
