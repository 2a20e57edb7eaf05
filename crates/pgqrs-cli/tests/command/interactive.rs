//! What is different in a terminal: questions, tables that fit, progress.

use sqlx::PgPool;

use crate::{
    support::{TestResult, count, run, tasks},
    terminal::Terminal,
};

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_question_is_asked_and_only_yes_deletes(pool: PgPool) -> TestResult {
    let store = tasks(&pool).await?;
    pgqrs::enqueue()
        .messages(&[1, 2])
        .to("tasks")
        .execute(&store)
        .await?;
    for (answer, code, left) in [("\r", 8, 2), ("n\r", 8, 2), ("y\r", 0, 0)] {
        let mut terminal = Terminal::run(&pool, 120, 10, &["queue", "purge", "tasks"]);
        let asked = terminal.until_shown("[y/N]").await;
        assert!(
            asked.contains("This will delete all messages of queue `tasks` (2 now) in database `"),
            "{asked}"
        );
        terminal.press(answer);
        assert_eq!(terminal.code().await, code, "{}", terminal.screen());
        assert_eq!(count(&pool, "messages").await?, left);
    }
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_table_fits_the_terminal_and_loses_nothing(pool: PgPool) -> TestResult {
    let store = tasks(&pool).await?;
    let name = "a-queue-with-a-name-that-is-longer-than-some-terminals";
    store.queue(name).await?;
    for columns in [60, 80, 200] {
        let mut terminal = Terminal::run(&pool, columns, 40, &["queues"]);
        assert_eq!(terminal.code().await, 0);
        terminal.until_shown("tasks").await;
        let written = terminal.written();
        let lines: Vec<&str> = written.lines().map(str::trim_end).collect();
        for line in &lines {
            assert!(line.chars().count() <= columns.into(), "{columns}: {line}");
        }
        let letters = |text: &str| text.replace([' ', '\r', '\n'], "");
        if columns == 200 {
            assert!(written.contains(name), "{written}");
        } else {
            // The name is wrapped in its column, and complete.
            let first: String = lines
                .iter()
                .skip(1)
                .filter_map(|line| line.split(' ').next())
                .collect();
            assert!(letters(&first).contains("a-queue-with"), "{written}");
        }
    }
    // In a pipe each row is one line.
    let piped = run(&pool, &["queues"]).await.done();
    assert!(piped.lines().any(|line| line.starts_with(name)), "{piped}");
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn progress_is_shown_while_a_file_is_sent(pool: PgPool) -> TestResult {
    tasks(&pool).await?;
    let file = std::env::temp_dir().join(format!("pgqrs-lines-{}", std::process::id()));
    std::fs::write(&file, "{\"n\": 12345}\n".repeat(20_000))?;
    let program = env!("CARGO_BIN_EXE_pgqrs");
    let shell = format!("'{program}' send tasks - < '{}'", file.display());
    let mut terminal = Terminal::program(&pool, 100, 10, "sh", &["-c", &shell]);
    assert_eq!(terminal.code().await, 0, "{}", terminal.screen());
    std::fs::remove_file(&file)?;
    let screen = terminal.until_shown("sent 20,000 messages").await;
    assert!(!screen.contains('%'), "the bar is cleared: {screen}");
    let written = terminal.written();
    assert!(written.contains("% of "), "{written}");
    assert!(written.contains(",000 messages"), "{written}");
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn control_characters_of_others_do_not_reach_the_terminal(pool: PgPool) -> TestResult {
    let store = tasks(&pool).await?;
    pgqrs::enqueue()
        .message(&1)
        .to("tasks")
        .execute(&store)
        .await?;
    for delivery in pgqrs::dequeue()
        .from("tasks")
        .limit(1)
        .execute(&store)
        .await?
    {
        delivery
            .dead_letter("no\u{1b}[2J\u{7}where", &store)
            .await?;
    }
    for arguments in [
        &["dead", "list", "tasks"][..],
        &["dead", "reasons", "tasks"],
    ] {
        let mut terminal = Terminal::run(&pool, 120, 10, arguments);
        assert_eq!(terminal.code().await, 0);
        terminal.until_shown("no [2J where").await;
        let written = terminal.written();
        assert!(!written.contains("\u{1b}[2J"), "{written:?}");
        assert!(!written.contains('\u{7}'), "{written:?}");
    }
    Ok(())
}
