//! The rules of the house, which keep the way from the public API to the SQL short. ARCHITECTURE.md says
//! why.

#[path = "house/imports.rs"]
mod imports;
#[path = "house/sql.rs"]
mod sql;
#[path = "../../benches/once/statement.rs"]
mod statement;
#[path = "house/text.rs"]
mod text;

use std::{
    fs,
    path::{Path, PathBuf},
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask lies in the checkout")
        .to_owned()
}

/// The files below a folder, with their text.
fn files(folder: &str, extension: &str) -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("the folder is there") {
            let path = entry.expect("it can be read").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|found| found == extension) {
                let text = fs::read_to_string(&path).expect("it is text");
                files.push((path.strip_prefix(root()).expect("below").to_owned(), text));
            }
        }
    }
    assert!(!files.is_empty(), "no .{extension} below {folder}");
    files
}

fn without_comments(text: &str) -> String {
    text.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// The module that a file is: `postgres::queues` for src/postgres/queues.rs.
fn module(path: &Path) -> String {
    let inside = path.strip_prefix("src").expect("below src");
    let module = inside
        .with_extension("")
        .to_string_lossy()
        .replace('/', "::");
    module.strip_suffix("::mod").unwrap_or(&module).to_owned()
}

#[test]
fn sql_stands_only_under_src_postgres_and_each_statement_is_checked() {
    for (path, text) in files("src", "rs") {
        let code = without_comments(&text);
        let in_postgres = path.starts_with("src/postgres");
        for macro_name in ["query!", "query_as!", "query_scalar!", "query_file"] {
            assert!(
                in_postgres || !code.contains(macro_name),
                "{}: a statement",
                path.display()
            );
        }
        for unchecked in [
            "sqlx::query(",
            "query_as(",
            "query_scalar(",
            "raw_sql",
            "AssertSqlSafe",
            "QueryBuilder",
        ] {
            assert!(
                !code.contains(unchecked),
                "{}: `{unchecked}` is SQL that nothing checks",
                path.display()
            );
        }
    }
}

#[test]
fn names_of_opentelemetry_stand_only_in_telemetry() {
    for (path, text) in files("src", "rs") {
        let spelled = without_comments(&text).contains("messaging.");
        assert!(
            !spelled || module(&path) == "telemetry",
            "{}",
            path.display()
        );
    }
}

/// Only the database's clock is used: a client's clock may be an hour off.
#[test]
fn the_library_never_asks_its_own_clock() {
    for (path, text) in files("src", "rs") {
        let text = without_comments(&text);
        for clock in ["Utc::now", "Local::now", "SystemTime"] {
            assert!(!text.contains(clock), "{}: {clock}", path.display());
        }
    }
}

#[test]
fn every_module_says_what_it_is() {
    for folder in ["src", "tests", "examples", "python", "xtask"] {
        for (path, text) in files(folder, "rs") {
            let documented = text.starts_with("//!") || text.starts_with("#![doc = include_str!");
            assert!(documented, "{} doesn't begin with //!", path.display());
        }
    }
}

#[test]
fn xtask_never_depends_on_the_library() {
    let manifest = fs::read_to_string(root().join("xtask/Cargo.toml")).expect("it is there");
    assert!(
        !manifest.contains("pgqrs"),
        "xtask must run while the library doesn't compile"
    );
}

#[test]
fn every_migration_says_why_and_can_be_undone() {
    let migrations = files("migrations", "sql");
    for (path, text) in &migrations {
        assert!(
            text.starts_with("-- Why: "),
            "{} doesn't begin with its reason",
            path.display()
        );
        let name = path.to_string_lossy();
        let other = match name.strip_suffix(".up.sql") {
            Some(stem) => format!("{stem}.down.sql"),
            None => name.replace(".down.sql", ".up.sql"),
        };
        assert!(
            migrations
                .iter()
                .any(|(path, _)| *path == Path::new(&other)),
            "{name} without {other}"
        );
    }
}

/// All that comes after a statement that waits for a table's lock waits behind it: sends, claims, settlements.
#[test]
fn every_migration_of_tables_in_use_bounds_its_waits_for_locks() {
    for (path, text) in files("migrations", "sql") {
        let is_first = path.ends_with("0001_create_the_queue.up.sql");
        assert!(
            is_first || text.contains("\nset local lock_timeout = '"),
            "{} doesn't `set local lock_timeout`",
            path.display()
        );
    }
}

/// The tests that `docs/reliability.md` names: `module::test` of the integration tests or the models, where the module may
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
    let path = "docs/reliability.md";
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

/// The lines of a Markdown page outside of its code blocks.
fn prose(page: &str) -> impl Iterator<Item = &str> {
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
    let mut pages: Vec<_> = [
        "README.md",
        "CONTRIBUTING.md",
        "ARCHITECTURE.md",
        "CHANGELOG.md",
    ]
    .map(|page| root().join(page))
    .to_vec();
    pages.push(root().join("python/README.md"));
    pages.extend(
        files("docs", "md")
            .into_iter()
            .map(|(path, _)| root().join(path)),
    );
    let mut links = 0;
    for page in pages {
        let text = fs::read_to_string(&page).expect("it is there");
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
                let mut headings = prose(&of).filter(|line| line.starts_with('#'));
                assert!(
                    headings.any(|heading| anchor(heading) == anchored),
                    "{}: {target} has no such heading",
                    page.display()
                );
            }
        }
    }
    assert!(links > 50, "only {links} links");
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

/// typed-builder writes no other doc for a setter, and those of private fields aren't shown.
#[test]
fn each_setter_of_a_builder_has_a_doc() {
    let mut setters = 0;
    for (path, text) in files("src", "rs") {
        for item in syn::parse_file(&text).expect("it is Rust").items {
            let syn::Item::Struct(item) = item else {
                continue;
            };
            let shown = |attribute: &syn::Attribute| quote::quote!(#attribute).to_string();
            if !item
                .attrs
                .iter()
                .any(|derive| shown(derive).contains("TypedBuilder"))
            {
                continue;
            }
            for field in &item.fields {
                let name = field.ident.as_ref().expect("it has a name");
                let documented =
                    field.attrs.iter().map(shown).any(|builder| {
                        builder.contains("setter (") && builder.contains("doc = \"")
                    });
                assert!(
                    documented,
                    "{}: `{name}` has no `setter(doc = \"…\")`",
                    path.display()
                );
                setters += 1;
            }
        }
    }
    assert!(setters > 15, "only {setters} setters");
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
    for page in ["README.md", "CONTRIBUTING.md", "ARCHITECTURE.md"] {
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

/// The benchmark takes the statement from the library's source, and makes the one without the row from it.
#[test]
fn the_benchmark_of_the_writers_row_measures_the_librarys_own_statement() {
    let insert = "insert into pgqrs.messages";
    let bench = fs::read_to_string(root().join("benches/once.rs")).expect("it is there");
    assert!(!bench.contains(insert), "benches/once.rs has a copy");
    let with_row = statement::of("write_alike").expect("`write_alike` has one statement");
    assert!(with_row.contains(insert), "{with_row}");
    let without_row = statement::without_row(with_row).expect("it updates its writer's row");
    assert!(!without_row.contains("pgqrs.writers"), "{without_row}");
    let names = |text: &str| {
        let text =
            without_comments(text).replace("update pgqrs.writers w set sequence = $2", "select");
        let text = text
            .replace("w.token = $1 and w.sequence < $2 and", "")
            .replace("returning", "");
        let mut words: Vec<_> = text.split_whitespace().map(str::to_owned).collect();
        words.sort();
        words
    };
    assert_eq!(names(with_row), names(&without_row), "nothing else differs");
}

/// A longer page is hard to read. Those that are made by a command may be longer.
#[test]
fn pages_that_are_written_by_hand_are_short() {
    const MADE: [&str; 2] = ["docs/benchmarks.md", "docs/compile-errors.md"];
    for (path, text) in files("docs", "md") {
        let lines = text.lines().count();
        assert!(
            lines <= 500 || MADE.iter().any(|made| path == Path::new(made)),
            "{} has {lines} lines",
            path.display()
        );
    }
}
