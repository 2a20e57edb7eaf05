//! `schedules`, `schedule …`.

use pgqrs::cron;
use sqlx::PgPool;

use crate::support::{TestResult, payloads, run, tasks};

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
