//! `quickstart`, which needs PostgreSQL's binaries, and starts a server of its own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
    time::timeout,
};

use crate::support::{Run, TestResult, pgqrs};

/// A folder for caches.
fn caches(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&folder);
    folder
}

fn quickstart(caches: &Path, arguments: &[&str]) -> Command {
    let mut command = pgqrs(&[&["quickstart", "--postgres"], arguments].concat());
    command.env("XDG_CACHE_HOME", caches);
    command
}

#[tokio::test]
async fn messages_flow_and_nothing_is_left_behind() {
    let caches = caches("quickstart");
    let output = quickstart(&caches, &["--messages", "5"]).output().await;
    let run = Run::from(output.expect("it was built"));
    assert_eq!(run.code, 0, "{run:?}");
    let count = |event: &str| {
        run.out
            .lines()
            .filter(|line| line.starts_with(event))
            .count()
    };
    assert_eq!(count("sent "), 6, "each message, and the summary: {run:?}");
    assert_eq!(count("handled "), 4, "{run:?}");
    assert_eq!(count("failed "), 3, "{run:?}");
    assert_eq!(count("dead "), 1, "{run:?}");
    assert!(
        run.out
            .ends_with("\nsent 5 messages: 4 handled, 1 dead; 4 attempts failed\n"),
        "{run:?}"
    );
    assert!(run.err.contains("export DATABASE_URL=$(cat "), "{run:?}");
    assert!(
        !format!("{run:?}").contains("postgres://"),
        "no URL with a password: {run:?}"
    );
    let file = run
        .err
        .split("$(cat ")
        .nth(1)
        .and_then(|rest| rest.split(')').next());
    let file = Path::new(file.expect("a file is named"));
    assert!(!file.exists(), "{}", file.display());
    assert!(
        !file.parent().expect("a cluster's folder").exists(),
        "the server is removed"
    );
}

#[tokio::test]
async fn while_it_runs_other_commands_see_its_queue_and_an_interrupt_removes_it() -> TestResult {
    let caches = caches("quickstart-interrupted");
    let mut child = quickstart(&caches, &[])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    let mut notes = BufReader::new(child.stderr.take().expect("it is piped")).lines();
    let file = timeout(Duration::from_secs(120), async {
        loop {
            let line = notes.next_line().await?.ok_or("it has ended")?;
            if let Some((_, file)) = line.split_once("export DATABASE_URL=$(cat ") {
                return Ok::<_, Box<dyn std::error::Error>>(file.trim_end_matches(')').to_owned());
            }
        }
    });
    let file = file.await??;
    let handled = timeout(Duration::from_secs(60), async {
        while let Some(line) = lines.next_line().await? {
            if line.starts_with("handled") {
                return Ok::<_, std::io::Error>(true);
            }
        }
        Ok(false)
    });
    assert!(handled.await??);
    let output = pgqrs(&["queues"])
        .env("DATABASE_URL", fs::read_to_string(&file)?)
        .output();
    let queues = Run::from(output.await?).done();
    assert!(queues.contains("emails"), "{queues}");

    let id = child.id().expect("it runs").to_string();
    assert!(
        Command::new("kill")
            .args(["-INT", &id])
            .status()
            .await?
            .success()
    );
    let ended = timeout(Duration::from_secs(60), child.wait()).await??;
    assert_eq!(ended.code(), Some(0));
    assert!(!Path::new(&file).exists(), "the server is removed");
    Ok(())
}

#[tokio::test]
async fn without_postgres_it_asks_for_it() {
    let output = pgqrs(&["quickstart"]).output().await.expect("it was built");
    let error = Run::from(output).fails(2);
    assert!(error.contains("--postgres"), "{error}");
}
