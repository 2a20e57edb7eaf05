//! `schedules`, `schedule …`.

use pgqrs::cron;
use sqlx::PgPool;

use crate::support::{TestResult, payloads, run, tasks};

/// What was fired, and what became of it: also of what was acknowledged.
async fn assert_history(pool: &PgPool, store: &pgqrs::Store) -> TestResult {
    let shown = async || run(pool, &["schedule", "show", "daily-report", "--next", "0"]).await;
    let line = async || {
        let shown = shown().await.done();
        let line = shown.lines().last().unwrap_or_default();
        line.split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert!(line().await.contains(", by hand - "), "{}", line().await);
    assert!(line().await.ends_with(" ready"), "{}", line().await);
    let mut deliveries = pgqrs::dequeue().from("tasks").execute(store).await?;
    let delivery = deliveries.pop().expect("it was fired");
    assert!(
        line()
            .await
            .ends_with(&format!(" {} leased", delivery.id()))
    );
    delivery.ack(store).await?;
    assert!(line().await.ends_with(" done"), "{}", line().await);
    let last = ["schedule", "show", "daily-report", "--last", "0", "--json"];
    assert_eq!(
        run(pool, &last).await.json()["history"],
        serde_json::json!([])
    );
    let all = run(pool, &["schedule", "show", "daily-report", "--json"]).await;
    assert_eq!(all.json()["history"][0]["outcome"], "done");
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_schedule_is_listed_shown_paused_fired_and_deleted(pool: PgPool) -> TestResult {
    let store = tasks(&pool).await?;
    let none = run(&pool, &["schedules"]).await.done();
    assert!(none.starts_with("no schedules"), "{none}");
    let schedule = pgqrs::schedule("daily-report", "tasks")
        .cron(cron!("0 9 * * MON-FRI"))
        .zone("Europe/Berlin")
        .message(&"daily");
    schedule.install(&store).await?;

    let listed = run(&pool, &["schedules"]).await.done();
    assert!(listed.contains("0 9 * * MON-FRI"), "{listed}");
    let shown = run(
        &pool,
        &["schedule", "show", "daily-report", "--next", "3", "--json"],
    )
    .await;
    assert_eq!(shown.json()["zone"], "Europe/Berlin");
    assert_eq!(shown.json()["upcoming"].as_array().map(Vec::len), Some(3));
    let shown = run(&pool, &["schedule", "show", "daily-report"])
        .await
        .done();
    assert_eq!(
        shown
            .lines()
            .filter(|line| line.starts_with("  20"))
            .count(),
        5,
        "{shown}"
    );

    run(&pool, &["schedule", "pause", "daily-report"])
        .await
        .done();
    let paused = run(&pool, &["schedules"]).await.done();
    assert!(paused.contains("paused since"), "{paused}");
    run(&pool, &["schedule", "resume", "daily-report"])
        .await
        .done();
    let fired = run(&pool, &["schedule", "fire", "daily-report"])
        .await
        .done();
    assert!(
        fired.starts_with("schedule `daily-report` sent message "),
        "{fired}"
    );
    assert_eq!(payloads(&pool).await?, ["\"daily\""]);

    assert_history(&pool, &store).await?;

    let asked = run(&pool, &["schedule", "delete", "daily-report"])
        .await
        .fails(2);
    assert!(asked.contains("which sends to queue `tasks`"), "{asked}");
    run(&pool, &["schedule", "delete", "daily-report", "--yes"])
        .await
        .done();
    let gone = run(&pool, &["schedule", "fire", "daily-report"])
        .await
        .fails(3);
    assert!(gone.contains("`pgqrs schedules` lists"), "{gone}");
    Ok(())
}
