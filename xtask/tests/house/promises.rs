//! The promises of `docs/guide/reliability.md`, each with its tests.

use std::{fs, path::PathBuf};

use crate::root;

/// The tests that `docs/guide/reliability.md` names: `module::test` of the integration tests or the models, where the module may
/// be in another one; or the path of a file and a test in it, as in `src/retry.rs::jitter_only_shortens`.
fn named_tests(text: &str) -> Vec<(String, String)> {
    let quoted = text.split('`').skip(1).step_by(2);
    let names = quoted.filter_map(|name| name.rsplit_once("::"));
    let is_name = |name: &str, marks: &str| {
        name.chars().all(|letter| {
            letter.is_ascii_lowercase() || letter.is_ascii_digit() || marks.contains(letter)
        })
    };
    let names = names.filter(|(module, test)| is_name(module, "_:/.") && is_name(test, "_"));
    names
        .map(|(module, test)| (module.to_owned(), test.to_owned()))
        .collect()
}

/// The files that a named test can be in.
fn files_of(module: &str) -> Vec<PathBuf> {
    if let Some(stem) = module.strip_suffix(".rs") {
        // Or its unit tests in a file of their own.
        return [module, &format!("{stem}/tests.rs")]
            .map(|file| root().join(file))
            .into();
    }
    if module.ends_with(".py") {
        return vec![root().join(module)];
    }
    let module = module.replace("::", "/");
    ["it", "models"]
        .map(|folder| root().join(format!("tests/{folder}/{module}.rs")))
        .into()
}

/// Whether a file has this test: a function with an attribute that makes it one, or one that pytest collects.
fn has_test(text: &str, test: &str) -> bool {
    let (in_rust, in_python) = (format!("fn {test}("), format!("def {test}("));
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    lines.iter().enumerate().any(|(n, line)| {
        let above = lines[..n].iter().rev();
        let mut attributes =
            above.take_while(|line| line.starts_with("#[") || line.starts_with("//"));
        line.contains(&in_rust)
            && attributes.any(|line| line.starts_with("#[") && line.contains("test"))
            || line.contains(&in_python) && test.starts_with("test_")
    })
}

#[test]
fn each_promise_of_reliability_names_tests_that_exist() {
    let path = "docs/guide/reliability.md";
    let text = fs::read_to_string(root().join(path)).expect("it is there");
    let (tables, _) = text.split_once("## Housekeeping").expect("it is there");
    let is_head = |line: &str| {
        ["| promise |", "| what |", "|---"]
            .iter()
            .any(|head| line.starts_with(head))
    };
    let promises = tables
        .lines()
        .filter(|line| line.starts_with('|') && !is_head(line));
    for line in promises {
        assert!(!named_tests(line).is_empty(), "without a test: {line}");
    }
    let named = named_tests(&text);
    for (module, test) in &named {
        let mut texts = files_of(module)
            .into_iter()
            .filter_map(|file| fs::read_to_string(file).ok());
        assert!(
            texts.any(|text| has_test(&text, test)),
            "{path} names `{module}::{test}`, which isn't there"
        );
    }
    assert!(named.len() > 120, "only {} tests are named", named.len());
}
