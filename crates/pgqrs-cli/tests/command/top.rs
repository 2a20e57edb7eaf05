//! `top`, in a terminal.

use serde_json::json;
use sqlx::PgPool;

use crate::{
    support::{TestResult, dead_letters, run, tasks},
    terminal::Terminal,
};

/// The line of a queue.
fn line<'a>(screen: &'a str, queue: &str) -> &'a str {
    let line = screen.lines().find(|line| line.starts_with(queue));
    line.unwrap_or_default()
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn it_shows_what_changes_while_it_runs(pool: PgPool) -> TestResult {
    let store = tasks(&pool).await?;
    let mut top = Terminal::run(&pool, 100, 30, &["top", "--interval", "100ms"]);
    let screen = top.until_shown("tasks").await;
    let head = "pgqrs  1 queue  0 ready  0 leased  0 dead  database `";
    assert!(screen.starts_with(head), "{screen}");

    pgqrs::enqueue()
        .messages(&[1, 2, 3])
        .to("tasks")
        .execute(&store)
        .await?;
    top.until("three are ready", |screen| {
        line(screen, "tasks").split_whitespace().nth(2) == Some("3")
    })
    .await;
    dead_letters(&store, &[json!(4)], "no such address").await?;
    let screen = top.until_shown("no such address").await;
    assert!(screen.contains("dead letters:"), "{screen}");
    assert!(screen.contains("ready, at most"), "{screen}");
    run(&pool, &["queue", "pause", "tasks"]).await.done();
    top.until("it is paused", |screen| {
        line(screen, "tasks").contains("paused")
    })
    .await;

    top.press("q");
    assert_eq!(top.code().await, 0);
    assert!(
        top.written().contains("\u{1b}[?1049l"),
        "the screen from before is back"
    );
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn keys_select_sort_pause_and_end_it(pool: PgPool) -> TestResult {
    let store = tasks(&pool).await?;
    store.queue("emails").await?;
    pgqrs::enqueue()
        .message(&1)
        .to("tasks")
        .execute(&store)
        .await?;
    let mut top = Terminal::run(&pool, 100, 30, &["top", "--interval", "100ms"]);
    // By name, and the first one is selected.
    let screen = top.until_shown("by name").await;
    assert!(screen.find("\nemails") < screen.find("\ntasks"), "{screen}");
    top.until_shown(" emails ─").await;
    top.press("\u{1b}[B");
    top.until_shown(" tasks ─").await;
    top.press("k");
    top.until_shown(" emails ─").await;
    top.press("s");
    let screen = top.until_shown("by ready").await;
    assert!(screen.find("\ntasks") < screen.find("\nemails"), "{screen}");

    top.press("p");
    top.until_shown("PAUSED").await;
    store.queue("zebra").await?;
    top.press("p");
    top.until_shown("zebra").await;
    // Ctrl-C
    top.press("\u{3}");
    assert_eq!(top.code().await, 0);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn it_shows_what_comes_and_goes_per_minute(pool: PgPool) -> TestResult {
    tasks(&pool).await?;
    // A consumer that has said half a minute ago that it was done with none, and then that it was done with thirty.
    let consumer = "insert into pgqrs.workers (kind, hostname, port, queue_id, heartbeat_at, stale_after)
                    select 'consumer', 'here', 0, id, now() - interval '30 seconds', '1 hour' from pgqrs.queues";
    sqlx::query(consumer).execute(&pool).await?;
    let mut top = Terminal::run(&pool, 140, 30, &["top", "--interval", "100ms"]);
    top.until_shown("OUT/MIN").await;
    top.until_shown("per minute: - in, - out").await;
    let beat = "update pgqrs.workers set heartbeat_at = heartbeat_at + interval '30 seconds', settled = 30";
    sqlx::query(beat).execute(&pool).await?;
    let screen = top.until_shown("per minute: 60 in, 60 out").await;
    assert!(
        line(&screen, "tasks")
            .split_whitespace()
            .rev()
            .take(2)
            .eq(["60", "60"]),
        "{screen}"
    );
    top.press("q");
    assert_eq!(top.code().await, 0);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn it_fits_a_small_terminal(pool: PgPool) -> TestResult {
    tasks(&pool).await?;
    let mut top = Terminal::run(&pool, 60, 10, &["top"]);
    let screen = top.until_shown("tasks").await;
    assert!(screen.lines().count() <= 10, "{screen}");
    top.press("q");
    assert_eq!(top.code().await, 0);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn it_says_that_the_server_refuses_and_recovers(pool: PgPool) -> TestResult {
    tasks(&pool).await?;
    let mut top = Terminal::run(&pool, 100, 30, &["top", "--interval", "100ms"]);
    top.until_shown("tasks").await;
    sqlx::query("alter schema pgqrs rename to away")
        .execute(&pool)
        .await?;
    top.until_shown("trying again").await;
    assert!(top.screen().contains("tasks"), "what was read last stays");
    sqlx::query("alter schema away rename to pgqrs")
        .execute(&pool)
        .await?;
    top.until("it has recovered", |screen| {
        !screen.contains("trying again")
    })
    .await;
    top.press("q");
    assert_eq!(top.code().await, 0);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn without_a_terminal_it_names_what_prints_the_same(pool: PgPool) -> TestResult {
    tasks(&pool).await?;
    let error = run(&pool, &["top"]).await.fails(2);
    assert!(
        error.contains("`pgqrs queues` prints the same once"),
        "{error}"
    );
    Ok(())
}
