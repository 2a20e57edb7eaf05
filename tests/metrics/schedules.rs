//! What schedules send and miss, and how late.

use std::time::Duration;

use sqlx::PgPool;

use crate::{TestResult, recorders::recorders, until, with_queue};

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn what_schedules_send_and_miss_is_counted_with_how_late_it_is(pool: PgPool) -> TestResult {
    let (recorded, _) = recorders();
    let store = with_queue(&pool, "scheduled").await?;
    let schedule = pgqrs::schedule("poll", "scheduled").every(Duration::from_secs(60));
    schedule.message(&1).install(&store).await?;
    // In the middle of a minute, so that no other time comes during the test.
    let back = "update pgqrs.schedules set next_at = now() - interval '5 minutes 20 seconds'";
    sqlx::query(back).execute(&pool).await?;
    let scheduler = store.scheduler().await?;
    let of = |name: &str| format!("pgqrs.schedule.{name}{{messaging.destination.name=scheduled}}");
    let lateness = || recorded.values(&of("lateness"));
    until("it has sent its message", async || lateness().0 > 0).await;
    drop(scheduler);
    assert_eq!(recorded.sum(&of("fired")), 1);
    assert_eq!(recorded.sum(&of("missed")), 5);
    let (times, seconds) = lateness();
    assert!(times == 1 && (20.0..60.0).contains(&seconds), "{seconds}");
    Ok(())
}
