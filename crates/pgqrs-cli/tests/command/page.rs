//! docs/guide/command.md: its examples are run, one after the other, in a new database.

use std::{env, path::Path};

use sqlx::PgPool;
use tokio::process::Command;

use crate::support::{Run, TestResult, pgqrs, url};

fn page() -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/guide/command.md");
    std::fs::read_to_string(page).expect("the page is there")
}

/// A command of the page, and what the page says that it prints.
struct Example {
    command: String,
    expected: Vec<String>,
}

fn examples(page: &str) -> Vec<Example> {
    let mut examples: Vec<Example> = Vec::new();
    let mut in_console = false;
    for line in page.lines() {
        if line.starts_with("```") {
            in_console = line == "```console";
        } else if in_console {
            match line.strip_prefix("$ ") {
                Some(command) => examples.push(Example {
                    command: command.to_owned(),
                    expected: Vec::new(),
                }),
                None => {
                    let last = examples.last_mut().expect("a command comes first");
                    last.expected.push(line.to_owned());
                }
            }
        }
    }
    examples
}

/// Whether a line is as expected; `…` stands for any text.
fn is_like(line: &str, expected: &str) -> bool {
    let parts: Vec<&str> = expected.split('…').collect();
    let (first, last) = (parts[0], parts[parts.len() - 1]);
    if parts.len() == 1 {
        return line == expected;
    }
    let Some(mut rest) = line
        .strip_prefix(first)
        .and_then(|rest| rest.strip_suffix(last))
    else {
        return false;
    };
    for part in &parts[1..parts.len() - 1] {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    true
}

#[test]
fn a_gap_of_an_example_stands_for_any_text_and_nothing_else() {
    for (line, expected, is) in [
        (
            "sent message 7 to queue `a`",
            "sent message … to queue `a`",
            true,
        ),
        (
            "sent message 7 to queue `b`",
            "sent message … to queue `a`",
            false,
        ),
        ("sent 5 in 2 s", "sent 5…", true),
        ("a 1 b 2 c", "a … b … c", true),
        ("a 1 d 2 c", "a … b … c", false),
        ("exact", "exact", true),
        ("exactly", "exact", false),
    ] {
        assert_eq!(is_like(line, expected), is, "{line} and {expected}");
    }
}

#[sqlx::test(migrations = false)]
async fn what_the_page_shows_is_what_the_command_prints(pool: PgPool) -> TestResult {
    let folder = Path::new(env!("CARGO_BIN_EXE_pgqrs"))
        .parent()
        .expect("a folder");
    let path = format!("{}:{}", folder.display(), env::var("PATH")?);
    let examples = examples(&page());
    assert!(examples.len() > 25, "only {} examples", examples.len());
    for Example { command, expected } in examples {
        let output = Command::new("sh")
            .args(["-c", &format!("{{ {command}; }} 2>&1")])
            .env("PATH", &path)
            .env("DATABASE_URL", url(&pool))
            .stdin(std::process::Stdio::null())
            .output()
            .await?;
        let printed = String::from_utf8(output.stdout)?;
        let lines: Vec<&str> = printed.lines().collect();
        let alike = lines.len() == expected.len()
            && lines
                .iter()
                .zip(&expected)
                .all(|(line, expected)| is_like(line, expected));
        assert!(
            alike,
            "$ {command}\nprints\n{printed}\nand not\n{}",
            expected.join("\n")
        );
    }
    Ok(())
}

#[tokio::test]
async fn the_page_and_the_help_list_the_same_exit_codes() {
    let output = pgqrs(&["--help"]).output().await.expect("it was built");
    let help = Run::from(output).done();
    let (_, help) = help.split_once("Exit codes:").expect("they are there");
    let page = page();
    let (_, page) = page
        .split_once("| code | meaning |\n|---|---|\n")
        .expect("a table");
    let rows: Vec<String> = page
        .lines()
        .take_while(|line| line.starts_with('|'))
        .map(|line| {
            let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
            format!("{} {}", cells[0], cells[1])
        })
        .collect();
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(words(help), words(&rows.join(" ")));
}
