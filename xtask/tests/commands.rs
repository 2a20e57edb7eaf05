//! The commands themselves: what they print, and that they leave nothing behind, however they end.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

fn xtask(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    // From any folder of the checkout.
    let inside = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    command
        .args(arguments)
        .current_dir(inside)
        .env_remove("DATABASE_URL")
        .stdin(Stdio::null());
    command
}

fn output(arguments: &[&str]) -> Output {
    xtask(arguments).output().expect("xtask starts")
}

fn stdout(output: &Output) -> String {
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn quickstart_prints_what_it_did() {
    let printed = stdout(&output(&["quickstart"]));
    for expected in [
        "enqueued message 1\n",
        "enqueued a batch: 2 and 3\n",
        "for in five minutes\n",
        "in a transaction, and rolled it back\n",
        r#"consumed message 1: {"task":"send_email","to":"user@example.com"}"#,
        r#"consumed message 3: {"user_id":2}"#,
        "left in the queue: 0 ready, 2 for later\n",
    ] {
        assert!(printed.contains(expected), "no {expected:?} in:\n{printed}");
    }
}

/// A target folder of its own, and so a server of its own, whatever else runs.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).expect("written");
        Self(folder)
    }

    fn clusters(&self) -> Vec<PathBuf> {
        let folder = fs::read_dir(self.0.join("postgres"))
            .into_iter()
            .flatten()
            .flatten();
        folder.map(|entry| entry.path()).collect()
    }

    /// The URL of the server that a command has started, once it is up.
    fn url(&self, command: &mut Child) -> String {
        let started = Instant::now();
        loop {
            let url = self
                .clusters()
                .iter()
                .find_map(|cluster| fs::read_to_string(cluster.join("url")).ok());
            if let Some(url) = url.filter(|url| !url.is_empty()) {
                return url;
            }
            assert!(
                command.try_wait().expect("it can be asked").is_none(),
                "it ended before its server was up"
            );
            assert!(
                started.elapsed() < Duration::from_secs(180),
                "no server came up"
            );
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

async fn reachable(url: &str) -> bool {
    match PgConnection::connect(url).await {
        Ok(connection) => connection.close().await.is_ok(),
        Err(_) => false,
    }
}

#[tokio::test]
async fn ctrl_c_stops_the_server_and_removes_it() {
    for signal in ["-INT", "-TERM"] {
        let scratch = Scratch::new(&format!("interrupted{signal}"));
        // It compiles the crate from nothing, in a folder of its own: long enough to be interrupted.
        let mut command = xtask(&["prepare", "--check"])
            .env("CARGO_TARGET_DIR", &scratch.0)
            .stderr(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("xtask starts");
        let url = scratch.url(&mut command);
        assert!(reachable(&url).await);
        let killed = Command::new("kill")
            .args([signal, &command.id().to_string()])
            .status();
        assert!(killed.expect("kill starts").success());
        let status = command.wait().expect("it ends");
        assert!(!status.success());
        assert!(!reachable(&url).await, "the server still runs");
        assert!(
            scratch.clusters().is_empty(),
            "{:?} is left",
            scratch.clusters()
        );
    }
}

#[test]
fn a_failing_command_leaves_no_server_behind() {
    let scratch = Scratch::new("failing");
    let output = xtask(&["test"])
        // A cargo that fails at once.
        .env("CARGO", "false")
        .env("CARGO_TARGET_DIR", &scratch.0)
        .output()
        .expect("xtask starts");
    assert!(!output.status.success());
    assert!(
        scratch.clusters().is_empty(),
        "{:?} is left",
        scratch.clusters()
    );
}

#[test]
fn a_program_that_cannot_be_started_is_named() {
    let scratch = Scratch::new("unstartable");
    let output = xtask(&["test"])
        .env("CARGO", "/no/such/cargo")
        .env("CARGO_TARGET_DIR", &scratch.0)
        .output()
        .expect("xtask starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(said.contains("cargo doesn't start"), "{said}");
}

#[tokio::test]
async fn what_a_killed_command_left_is_swept_by_the_next() {
    let scratch = Scratch::new("killed");
    let mut command = xtask(&["prepare", "--check"])
        .env("CARGO_TARGET_DIR", &scratch.0)
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("xtask starts");
    let url = scratch.url(&mut command);
    command.kill().expect("it is there");
    command.wait().expect("it ends");
    assert!(
        reachable(&url).await,
        "nothing was left, so nothing can be swept"
    );
    let next = xtask(&["test"])
        .env("CARGO", "false")
        .env("CARGO_TARGET_DIR", &scratch.0)
        .output();
    assert!(!next.expect("xtask starts").status.success());
    assert!(!reachable(&url).await, "the server still runs");
    assert!(
        scratch.clusters().is_empty(),
        "{:?} is left",
        scratch.clusters()
    );
}

#[tokio::test]
async fn the_server_for_development_starts_once_and_stops() {
    let scratch = Scratch::new("development");
    let run = |arguments: &[&str]| {
        xtask(arguments)
            .env("CARGO_TARGET_DIR", &scratch.0)
            .output()
            .expect("xtask starts")
    };
    assert!(!run(&["db", "url"]).status.success());
    let url = stdout(&run(&["db", "start"]));
    assert!(reachable(url.trim()).await);
    assert_eq!(stdout(&run(&["db", "start"])), url);
    assert_eq!(stdout(&run(&["db", "url"])), url);
    stdout(&run(&["db", "stop"]));
    assert!(!reachable(url.trim()).await);
    assert!(!run(&["db", "stop"]).status.success());
}

/// A database that is gone when it is dropped from here; by name, since tests run at once.
async fn with_database(name: &str, work: impl AsyncFnOnce(&str)) {
    let server = env::var("DATABASE_URL").expect("`cargo xtask test` sets it");
    let mut connection = PgConnection::connect(&server)
        .await
        .expect("the tests' server runs");
    let drop = format!("drop database if exists {name} with (force)");
    connection
        .execute(AssertSqlSafe(drop.clone()))
        .await
        .expect("dropped");
    connection
        .execute(AssertSqlSafe(format!("create database {name}")))
        .await
        .expect("created");
    let (server, _) = server.rsplit_once('/').expect("a URL with a database");
    work(&format!("{server}/{name}")).await;
    connection
        .execute(AssertSqlSafe(drop))
        .await
        .expect("dropped");
}

#[tokio::test]
async fn migrate_goes_up_and_down_and_prints_its_state() {
    with_database("xtask_migrate", async |url| {
        let migrate = |arguments: &[&str]| {
            stdout(&output(
                &[&["migrate"], arguments, &["--url", url]].concat(),
            ))
        };
        assert!(migrate(&["status"]).contains("pending"));
        assert!(migrate(&[]).contains("applied"));
        let status = migrate(&["status"]);
        assert!(
            status.contains("applied") && !status.contains("pending"),
            "{status}"
        );
        assert!(migrate(&["up"]).starts_with("0 applied"));
        assert!(migrate(&["down", "--to", "0"]).contains("reverted"));
        assert!(!migrate(&["status"]).contains("applied"));
        assert!(migrate(&["up", "--to", "1"]).starts_with("1 applied"));
    })
    .await;
}

#[tokio::test]
async fn migrate_takes_database_url_and_says_so_if_there_is_none() {
    let refused = output(&["migrate"]);
    assert!(!refused.status.success());
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(
        said.contains("--url") && said.contains("DATABASE_URL"),
        "{said}"
    );
    with_database("xtask_migrate_env", async |url| {
        stdout(
            &xtask(&["migrate"])
                .env("DATABASE_URL", url)
                .output()
                .expect("xtask starts"),
        );
    })
    .await;
}

#[tokio::test]
async fn the_printed_script_does_what_migrate_does() {
    with_database("xtask_migrate_sql", async |url| {
        let script = stdout(&output(&["migrate", "sql"]));
        let mut connection = PgConnection::connect(url).await.expect("connected");
        connection
            .execute(AssertSqlSafe(script))
            .await
            .expect("the script runs");
        connection.close().await.expect("closed");
        let status = stdout(&output(&["migrate", "status", "--url", url]));
        assert!(
            status.contains("applied")
                && !status.contains("CHANGED")
                && !status.contains("pending"),
            "{status}"
        );
        assert!(stdout(&output(&["migrate", "--url", url])).starts_with("0 applied"));
    })
    .await;
}

#[test]
fn grants_are_printed_for_each_role_that_is_named() {
    let printed = stdout(&output(&[
        "migrate",
        "grants",
        "--producer",
        "web",
        "--producer",
        "we\"ird",
        "--consumer",
        "worker",
    ]));
    for expected in [
        "grant insert on pgqrs.messages to \"web\";\n",
        "grant insert on pgqrs.messages to \"we\"\"ird\";\n",
        "grant insert on pgqrs.archive, pgqrs.dead_letters to \"worker\";\n",
    ] {
        assert!(printed.contains(expected), "no {expected:?} in:\n{printed}");
    }
    assert!(!output(&["migrate", "grants"]).status.success());
}

#[test]
fn every_command_explains_itself() {
    for command in [
        &["quickstart"][..],
        &["test"],
        &["matrix"],
        &["python"],
        &["wheels"],
        &["ci"],
        &["prepare"],
        &["bench"],
        &["bench", "compile"],
        &["bench", "python"],
        &["soak"],
        &["db"],
        &["db", "start"],
        &["db", "stop"],
        &["db", "url"],
        &["migrate"],
        &["migrate", "up"],
        &["migrate", "down"],
        &["migrate", "status"],
        &["migrate", "sql"],
        &["migrate", "grants"],
    ] {
        let help = stdout(&output(&[command, &["--help"]].concat()));
        assert!(help.contains("Usage: cargo xtask"), "{command:?}: {help}");
    }
}
