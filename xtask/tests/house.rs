//! The rules of the house, which keep the way from the public API to the SQL short. ARCHITECTURE.md says
//! why.

#[path = "house/calls.rs"]
mod calls;
#[path = "house/guide.rs"]
mod guide;
#[path = "house/imports.rs"]
mod imports;
#[path = "house/links.rs"]
mod links;
#[path = "house/options.rs"]
mod options;
#[path = "house/pages.rs"]
mod pages;
#[path = "house/prometheus.rs"]
mod prometheus;
#[path = "house/promises.rs"]
mod promises;
#[path = "house/sql.rs"]
mod sql;
#[path = "../../benches/once/statement.rs"]
mod statement;
#[path = "house/telemetry.rs"]
mod telemetry;
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
    let mut found = Vec::new();
    collect(&root().join(folder), extension, &mut found);
    assert!(!found.is_empty(), "no .{extension} below {folder}");
    found
}

/// The files of the whole checkout with this extension.
fn all_files(extension: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    collect(&root(), extension, &mut found);
    found
}

/// Collects the file if it has this extension, and the files below the folder, except for what tools have made.
fn collect(path: &Path, extension: &str, found: &mut Vec<(PathBuf, String)>) {
    if path.is_dir() {
        for entry in fs::read_dir(path).expect("the folder is there") {
            let entry = entry.expect("it can be read");
            let name = entry.file_name().to_string_lossy().into_owned();
            if !(name.starts_with(['.', '_']) && entry.path().is_dir() || name == "target") {
                collect(&entry.path(), extension, found);
            }
        }
    } else if path.extension().is_some_and(|is| is == extension) {
        let text = fs::read_to_string(path).expect("it is text");
        found.push((path.strip_prefix(root()).expect("below").to_owned(), text));
    }
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
            !spelled || module(&path).starts_with("telemetry"),
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
    for folder in ["src", "tests", "examples", "crates", "python", "xtask"] {
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
