//! Runs the command, and looks at what it has changed.

use std::process::{Output, Stdio};

use pgqrs::Store;
use serde_json::Value;
use sqlx::{ConnectOptions, PgPool};
use tokio::{io::AsyncWriteExt, process::Command};

pub(crate) type TestResult = Result<(), Box<dyn std::error::Error>>;

pub(crate) fn url(pool: &PgPool) -> String {
    pool.connect_options().to_url_lossy().to_string()
}

/// The command, without a database.
pub(crate) fn pgqrs(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgqrs"));
    command
        .args(arguments)
        .env_remove("DATABASE_URL")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

/// How a run has ended.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl From<Output> for Run {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).expect("it is UTF-8"),
            err: String::from_utf8(output.stderr).expect("it is UTF-8"),
        }
    }
}

impl Run {
    /// The output of a run that has done what it was to do.
    #[track_caller]
    pub(crate) fn done(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.out
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        match serde_json::from_str(&self.out) {
            Ok(value) => value,
            Err(error) => panic!("{error}: {self:?}"),
        }
    }

    /// Checks the code that it has ended with, and returns what it said.
    #[track_caller]
    pub(crate) fn fails(self, code: i32) -> String {
        assert_eq!(self.code, code, "{self:?}");
        self.err
    }
}

/// Runs the command on a test's database.
pub(crate) async fn run(pool: &PgPool, arguments: &[&str]) -> Run {
    let mut command = pgqrs(arguments);
    let output = command.env("DATABASE_URL", url(pool)).output().await;
    output.expect("the command was built").into()
}

/// Runs the command with a text as its standard input.
pub(crate) async fn run_with(pool: &PgPool, arguments: &[&str], input: impl AsRef<[u8]>) -> Run {
    let mut command = pgqrs(arguments);
    let mut child = command
        .env("DATABASE_URL", url(pool))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command was built");
    let mut stdin = child.stdin.take().expect("it is piped");
    let write = async {
        // If the command ends before it has read everything, that is the test's matter.
        let _ = stdin.write_all(input.as_ref()).await;
        drop(stdin);
    };
    let ((), output) = tokio::join!(write, child.wait_with_output());
    output.expect("it has ended").into()
}

/// A store with a queue `tasks`.
pub(crate) async fn tasks(pool: &PgPool) -> pgqrs::Result<Store> {
    let store = Store::from(pool.clone());
    store.queue("tasks").await?;
    Ok(store)
}

/// The payloads of all messages, by id.
pub(crate) async fn payloads(pool: &PgPool) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar("select payload::text from pgqrs.messages order by id")
        .fetch_all(pool)
        .await
}

pub(crate) async fn count(pool: &PgPool, table: &str) -> sqlx::Result<i64> {
    let count = format!("select count(*) from pgqrs.{table}");
    sqlx::query_scalar(sqlx::AssertSqlSafe(count))
        .fetch_one(pool)
        .await
}

/// Makes messages of `tasks` dead letters, with a reason. Returns their ids.
pub(crate) async fn dead_letters(
    store: &Store,
    payloads: &[Value],
    reason: &str,
) -> pgqrs::Result<Vec<String>> {
    pgqrs::enqueue()
        .messages(payloads)
        .to("tasks")
        .execute(store)
        .await?;
    let limit = u32::try_from(payloads.len()).expect("few");
    let claimed = pgqrs::dequeue().from("tasks").limit(limit).execute(store);
    let mut ids = Vec::new();
    for delivery in claimed.await? {
        ids.push(delivery.id().to_string());
        delivery.dead_letter(reason, store).await?;
    }
    Ok(ids)
}
