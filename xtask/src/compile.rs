//! What the types cost an application that compiles against them: a generated one with a hundred enqueues to twenty
//! queues, against the same one with a table of its own and plain `sqlx::query!`.

use std::{
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use sqlx::{Connection, Executor, PgConnection};

use crate::cargo;

const QUEUES: usize = 20;
const CALLS: usize = 100;
const ROUNDS: usize = 5;
/// Maximum ratio of our compile time to the plain application's.
const LIMIT: f64 = 1.3;

/// The applications, in the order in which they are measured.
const BOTH: [&str; 2] = ["ours", "plain"];

pub(crate) async fn run(url: &str) -> Result<()> {
    let folder = cargo::target().join("compile-time");
    let mut connection = PgConnection::connect(url).await?;
    connection.execute(TABLE).await?;
    connection.close().await?;
    generate(&folder)?;

    eprintln!("compiling what both depend on; that takes minutes the first time");
    for application in BOTH {
        check(&folder, application, Some(url)).await?;
    }

    // Without a database from here on, as on most machines.
    let (mut clean, mut touched) = ([vec![], vec![]], [vec![], vec![]]);
    for round in 1..=ROUNDS {
        for (at, application) in BOTH.into_iter().enumerate() {
            forget(&folder, application).await?;
            clean[at].push(check(&folder, application, None).await?);
            touch(&folder.join(application), round)?;
            touched[at].push(check(&folder, application, None).await?);
        }
        let last = |times: &[Vec<Duration>; 2]| {
            let [ours, plain] = times
                .each_ref()
                .map(|times| times[times.len() - 1].as_secs_f64());
            format!("{ours:.2} s against {plain:.2} s")
        };
        eprintln!(
            "round {round} of {ROUNDS}: clean {}, one line changed {}",
            last(&clean),
            last(&touched)
        );
    }

    println!(
        "`cargo check` of {CALLS} calls and {QUEUES} queues, without dependencies; medians of {ROUNDS}"
    );
    let mut within = true;
    for (what, times) in [("clean", clean), ("one line changed", touched)] {
        let [ours, plain] = times.map(median);
        let ratio = ours / plain;
        within &= ratio <= LIMIT;
        println!("{what:<18} ours {ours:.2} s, plain {plain:.2} s: {ratio:.2} (at most {LIMIT})");
    }
    println!("noisy: measure on a quiet machine, and look at the ratio");
    ensure!(within, "more than {LIMIT} times as long as plain `query!`");
    Ok(())
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64()
}

/// Compiles the application itself, and returns the time that it took.
async fn check(folder: &Path, application: &str, url: Option<&str>) -> Result<Duration> {
    let arguments = ["check", "--quiet", "--package", application];
    let mut command = cargo::command(&arguments);
    command.current_dir(folder).env_remove("CARGO_TARGET_DIR");
    match url {
        Some(url) => command
            .env("DATABASE_URL", url)
            .env("SQLX_OFFLINE_DIR", statements(folder)?),
        None => command
            .env_remove("DATABASE_URL")
            .env("SQLX_OFFLINE", "true")
            .env("SQLX_OFFLINE_DIR", statements(folder)?),
    };
    let started = Instant::now();
    cargo::finish(&mut command, &arguments).await?;
    Ok(started.elapsed())
}

/// The query cache of the plain application's statements.
fn statements(folder: &Path) -> Result<PathBuf> {
    let statements = folder.join("statements");
    fs::create_dir_all(&statements)?;
    Ok(statements)
}

/// Deletes the application's own build output, and nothing else.
async fn forget(folder: &Path, application: &str) -> Result<()> {
    let arguments = ["clean", "--quiet", "--package", application];
    let mut command = cargo::command(&arguments);
    command
        .current_dir(folder)
        .env_remove("CARGO_TARGET_DIR")
        .stderr(Stdio::null());
    cargo::finish(&mut command, &arguments).await
}

/// Changes one line, as in an edit by a developer.
fn touch(application: &Path, round: usize) -> Result<()> {
    let file = application.join("src/lib.rs");
    let source = fs::read_to_string(&file)?;
    let at = source
        .find("/* changes */")
        .context("the line that changes is gone")?;
    let end = at + source[at..].find('\n').context("a line has an end")?;
    let changed = format!("{}/* changes */ {round}{}", &source[..at], &source[end..]);
    fs::write(&file, changed)?;
    Ok(())
}

const TABLE: &str = "
    create table messages (
        id bigint generated always as identity primary key,
        queue text not null,
        priority smallint not null default 2,
        visible_at timestamptz not null default now(),
        payload json not null
    )";

fn generate(folder: &Path) -> Result<()> {
    let root = cargo::root();
    let ours = fs::read_to_string(root.join("Cargo.toml"))?;
    let section = |heading: &str| -> Result<String> {
        let at = ours
            .find(heading)
            .with_context(|| format!("Cargo.toml has no {heading}"))?;
        let section = &ours[at..];
        let end = section[1..]
            .find("\n[")
            .map_or(section.len(), |end| end + 2);
        Ok(section[..end].to_owned())
    };
    let workspace = format!(
        "[workspace]\nmembers = {BOTH:?}\nresolver = \"3\"\n\n{}\n{}",
        section("[workspace.dependencies]")?,
        section("[profile.dev.package.\"*\"]")?,
    );
    fs::create_dir_all(folder)?;
    fs::write(folder.join("Cargo.toml"), workspace)?;
    // The same versions that the crate is tested with.
    fs::copy(root.join("Cargo.lock"), folder.join("Cargo.lock"))?;
    for application in BOTH {
        let source = folder.join(application).join("src");
        fs::create_dir_all(&source)?;
        let library = match application {
            "ours" => format!("pgqrs.path = {root:?}\n"),
            _ => "serde_json.workspace = true\n".to_owned(),
        };
        let manifest = format!(
            "[package]\nname = {application:?}\nversion = \"0.0.0\"\nedition = \"2024\"\npublish = false\n\n\
             [dependencies]\nserde.workspace = true\nsqlx.workspace = true\n{library}"
        );
        fs::write(source.with_file_name("Cargo.toml"), manifest)?;
        let mut code = String::from("use serde::{Deserialize, Serialize};\n");
        for queue in 0..QUEUES {
            write!(
                code,
                "\n#[derive(Serialize, Deserialize)]\npub struct Task{queue} {{\n    pub id: i64,\n    pub name: String,\n    pub tags: Vec<String>,\n}}\n"
            )?;
            if application == "ours" {
                write!(
                    code,
                    "\nconst QUEUE_{queue}: pgqrs::Queue<Task{queue}> = pgqrs::Queue::new(\"queue{queue}\");\n"
                )?;
            }
        }
        for call in 0..CALLS {
            let queue = call % QUEUES;
            let call = match application {
                "ours" => with_pgqrs(call, queue),
                _ => with_statements(call, queue),
            };
            write!(code, "\n{call}")?;
        }
        code += "\npub fn touched() -> u64 {\n    /* changes */ 0\n}\n";
        fs::write(source.join("lib.rs"), code)?;
    }
    Ok(())
}

/// Four kinds of enqueue in turn: plain, delayed, a batch, and urgent in a transaction.
fn with_pgqrs(call: usize, queue: usize) -> String {
    let (takes, on, how) = match call % 4 {
        0 => ("&", "store: &pgqrs::Store", ".message(payload)"),
        1 => ("&", "store: &pgqrs::Store", ".message(payload).delay(300)"),
        2 => ("&[]", "store: &pgqrs::Store", ".messages(payload)"),
        _ => (
            "&",
            "store: &mut sqlx::Transaction<'_, sqlx::Postgres>",
            ".message(payload).priority(pgqrs::Priority::Urgent)",
        ),
    };
    let payload = payload(takes, queue);
    format!(
        "pub async fn call_{call}({on}, payload: {payload}) -> pgqrs::Result<pgqrs::Enqueued> {{\n    \
             pgqrs::enqueue(){how}.to(QUEUE_{queue}).execute(store).await\n}}\n"
    )
}

/// The same four, hand-written.
fn with_statements(call: usize, queue: usize) -> String {
    let json = "let payload = serde_json::to_value(payload).map_err(|error| sqlx::Error::Encode(error.into()))?;";
    let jsons = "let payload: Vec<_> = payload.iter().map(serde_json::to_value).collect::<Result<_, _>>()\n        \
                 .map_err(|error| sqlx::Error::Encode(error.into()))?;";
    let (takes, on, json, statement, arguments, last) = match call % 4 {
        0 => (
            "&",
            "pool: &sqlx::PgPool",
            json,
            "insert into messages (queue, payload) values ($1, $2) returning id",
            "payload",
            "pool",
        ),
        1 => (
            "&",
            "pool: &sqlx::PgPool",
            json,
            "insert into messages (queue, payload, visible_at) values ($1, $2, now() + make_interval(secs => $3)) returning id",
            "payload, 300.0",
            "pool",
        ),
        2 => (
            "&[]",
            "pool: &sqlx::PgPool",
            jsons,
            "insert into messages (queue, payload) select $1, payload from unnest($2::json[]) as payload returning id",
            "&payload",
            "pool",
        ),
        _ => (
            "&",
            "tx: &mut sqlx::Transaction<'_, sqlx::Postgres>",
            json,
            "insert into messages (queue, payload, priority) values ($1, $2, 0) returning id",
            "payload",
            "&mut **tx",
        ),
    };
    let payload = payload(takes, queue);
    format!(
        "pub async fn call_{call}({on}, payload: {payload}) -> sqlx::Result<Vec<i64>> {{\n    {json}\n    \
             sqlx::query_scalar!(\"{statement}\", \"queue{queue}\", {arguments}).fetch_all({last}).await\n}}\n"
    )
}

fn payload(takes: &str, queue: usize) -> String {
    match takes {
        "&[]" => format!("&[Task{queue}]"),
        _ => format!("&Task{queue}"),
    }
}
