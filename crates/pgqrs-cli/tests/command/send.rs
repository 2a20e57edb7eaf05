//! `send`.

use std::process::Stdio;

use sqlx::PgPool;
use tokio::io::AsyncWriteExt;

use crate::support::{TestResult, count, payloads, pgqrs, run, run_with, tasks, url};

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_message_is_sent_as_it_is_written(pool: PgPool) -> TestResult {
    let store = tasks(&pool).await?;
    let payload = r#"{"a": 1.10, "b": 12345678901234567890123}"#;
    let send = [
        "send",
        "tasks",
        payload,
        "--priority",
        "urgent",
        "--header",
        "tenant=acme",
    ];
    let sent = run(&pool, &send).await.done();
    assert!(sent.starts_with("sent message "), "{sent}");
    assert_eq!(payloads(&pool).await?, [payload]);
    let listed = pgqrs::admin(&store)
        .messages("tasks", pgqrs::Page::default())
        .await?;
    assert_eq!(listed[0].priority, pgqrs::Priority::Urgent);
    assert_eq!(listed[0].headers.get("tenant"), Some("acme"));
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn options_of_a_message_are_kept(pool: PgPool) -> TestResult {
    let store = tasks(&pool).await?;
    let send = [
        "send",
        "tasks",
        "1",
        "--at",
        "2099-01-01T01:00:00+01:00",
        "--max-attempts",
        "3",
    ];
    run(&pool, &send).await.done();
    let once = ["send", "tasks", "2", "--unique", "k", "--once-within", "1h"];
    let first = run(&pool, &once).await.done();
    assert!(first.starts_with("sent message "), "{first}");
    let second = run(&pool, &once).await.done();
    assert!(second.starts_with("sent nothing: message "), "{second}");
    let listed = pgqrs::admin(&store)
        .messages("tasks", pgqrs::Page::default())
        .await?;
    assert_eq!(listed.len(), 2);
    assert_eq!(
        listed[0].visible_at.to_rfc3339(),
        "2099-01-01T00:00:00+00:00"
    );
    assert_eq!(listed[0].max_attempts, Some(3));
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn what_is_not_json_is_refused_without_being_repeated(pool: PgPool) -> TestResult {
    tasks(&pool).await?;
    let refused = run(&pool, &["send", "tasks", "secret words"])
        .await
        .fails(2);
    assert!(refused.contains("the message is not JSON"), "{refused}");
    assert!(refused.contains("needs quotes"), "{refused}");
    assert!(!refused.contains("secret"), "{refused}");
    assert_eq!(count(&pool, "messages").await?, 0);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn each_line_of_the_input_is_a_message_in_their_order(pool: PgPool) -> TestResult {
    tasks(&pool).await?;
    let lines: Vec<String> = (0..25_000).map(|n| format!("{{\"n\": {n}}}")).collect();
    let sent = run_with(&pool, &["send", "tasks", "-", "--json"], lines.join("\n")).await;
    assert_eq!(sent.code, 0, "{sent:?}");
    assert_eq!(sent.json()["sent"], 25_000);
    assert_eq!(payloads(&pool).await?, lines);
    let ids: (i64, i64) = sqlx::query_as("select min(id), max(id) from pgqrs.messages")
        .fetch_one(&pool)
        .await?;
    assert_eq!(sent.json()["first_id"], ids.0);
    assert_eq!(sent.json()["last_id"], ids.1);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_bad_line_ends_it_after_all_before_it_and_it_can_be_continued(
    pool: PgPool,
) -> TestResult {
    tasks(&pool).await?;
    let mut lines: Vec<String> = (1..=2_000).map(|n| n.to_string()).collect();
    lines[1_499] = "secret".to_owned();
    let failed = run_with(&pool, &["send", "tasks", "-"], lines.join("\n")).await;
    assert!(
        failed
            .out
            .starts_with("sent 1,499 messages to queue `tasks`"),
        "{failed:?}"
    );
    let error = failed.fails(6);
    assert!(error.contains("line 1500 is not JSON"), "{error}");
    assert!(error.contains("`--skip-lines 1499`"), "{error}");
    assert!(!error.contains("secret"), "{error}");
    assert_eq!(count(&pool, "messages").await?, 1_499);

    lines[1_499] = "1500".to_owned();
    let rest = ["send", "tasks", "-", "--skip-lines", "1499"];
    run_with(&pool, &rest, lines.join("\n")).await.done();
    assert_eq!(payloads(&pool).await?, lines);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn bad_lines_are_left_out_if_that_is_asked_for(pool: PgPool) -> TestResult {
    tasks(&pool).await?;
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    let input = format!("1\noops\n{deep}\n4\n\n6");
    let skip = ["send", "tasks", "-", "--skip-invalid"];
    let sent = run_with(&pool, &skip, &input).await;
    assert!(sent.out.starts_with("sent 3 messages"), "{sent:?}");
    let notes = sent.fails(6);
    assert!(notes.contains("left out line 2: it is not JSON"), "{notes}");
    assert!(
        notes.contains("left out line 3: it is refused: the payload is nested"),
        "{notes}"
    );
    assert_eq!(payloads(&pool).await?, ["1", "4", "6"]);

    // Otherwise the line that is too deep ends it.
    let deep_first = format!("1\n{deep}\n3");
    let failed = run_with(&pool, &["send", "tasks", "-"], &deep_first).await;
    let error = failed.fails(6);
    assert!(error.contains("line 2 is refused"), "{error}");
    assert!(error.contains("`--skip-lines 1`"), "{error}");
    assert_eq!(payloads(&pool).await?, ["1", "4", "6", "1"]);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn in_one_transaction_it_is_all_or_nothing(pool: PgPool) -> TestResult {
    tasks(&pool).await?;
    let mut lines: Vec<String> = (1..=3_000).map(|n| n.to_string()).collect();
    lines[2_999] = "oops".to_owned();
    let atomic = ["send", "tasks", "-", "--atomic", "--json"];
    let failed = run_with(&pool, &atomic, lines.join("\n")).await;
    assert_eq!(failed.json()["sent"], 0);
    let error = failed.fails(1);
    assert!(error.contains("nothing is stored"), "{error}");
    assert_eq!(count(&pool, "messages").await?, 0);

    lines.pop();
    let sent = run_with(&pool, &atomic, lines.join("\n")).await;
    assert_eq!(sent.json()["sent"], 2_999, "{sent:?}");
    assert_eq!(payloads(&pool).await?, lines);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_line_is_sent_when_it_is_written_and_not_when_the_input_ends(pool: PgPool) -> TestResult {
    tasks(&pool).await?;
    let mut command = pgqrs(&["send", "tasks", "-"]);
    command.env("DATABASE_URL", url(&pool));
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()?;
    let mut stdin = child.stdin.take().expect("it is piped");
    for n in 1..=3 {
        stdin.write_all(format!("{n}\n").as_bytes()).await?;
        stdin.flush().await?;
        let stored = async {
            while count(&pool, "messages").await? < n {
                tokio::task::yield_now().await;
            }
            Ok::<_, sqlx::Error>(())
        };
        tokio::time::timeout(std::time::Duration::from_secs(30), stored).await??;
    }
    drop(stdin);
    assert!(child.wait().await?.success());
    Ok(())
}

#[cfg(target_os = "linux")]
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn its_memory_does_not_grow_with_the_input(pool: PgPool) -> TestResult {
    tasks(&pool).await?;
    let peak = async |lines: usize| -> Result<u64, Box<dyn std::error::Error>> {
        let mut command = pgqrs(&["send", "tasks", "-"]);
        command.env("DATABASE_URL", url(&pool));
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()?;
        let mut stdin = child.stdin.take().expect("it is piped");
        let text = format!("\"{}\"\n", "x".repeat(1_000)).repeat(100);
        for _ in 0..lines / 100 {
            stdin.write_all(text.as_bytes()).await?;
        }
        // It has read all but what the pipe holds, and still runs.
        let id = child.id().expect("it runs");
        let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let peak = peak.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
        drop(stdin);
        assert!(child.wait().await?.success());
        Ok(peak.expect("the kernel says it"))
    };
    let (few, many) = (peak(5_000).await?, peak(60_000).await?);
    assert_eq!(count(&pool, "messages").await?, 65_000);
    assert!(
        many < few + 20_000,
        "{few} kB, and {many} kB for twelve times as many"
    );
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn options_that_do_not_go_together_are_refused(pool: PgPool) -> TestResult {
    tasks(&pool).await?;
    for (arguments, says) in [
        (
            &["send", "tasks", "-", "--unique", "k"][..],
            "`--unique` is for one message",
        ),
        (&["send", "tasks", "1", "--atomic"], "go with `-`"),
        (&["send", "tasks", "1", "--header", "tenant"], "NAME=VALUE"),
        (
            &["send", "tasks", "1", "--delay", "soon"],
            "90s, 15m, 2h, or 7d",
        ),
    ] {
        let refused = run(&pool, arguments).await.fails(2);
        assert!(refused.contains(says), "{refused}");
    }
    assert_eq!(count(&pool, "messages").await?, 0);
    Ok(())
}
