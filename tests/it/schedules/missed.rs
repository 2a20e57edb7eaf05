//! Times that passed while no process ran.

use super::*;
use crate::support::notes::Notes;

/// Installs a schedule of each minute that was last due this many minutes ago, and lets a scheduler fire it. Returns
/// that, and what was sent, as the minutes since then and the number of missed times.
async fn after(
    pool: &PgPool,
    minutes: i64,
    missed: Missed,
) -> Result<(Scheduler, Vec<(i64, i64)>), Box<dyn std::error::Error>> {
    let store = with_queues(pool, &["tasks"]).await?;
    let schedule = pgqrs::schedule("poll", "tasks")
        .every(Duration::from_secs(60))
        .message(&1);
    schedule.missed(missed).install(&store).await?;
    // In the middle of a minute, so that no other time comes during the test.
    let first: DateTime<Utc> = sqlx::query_scalar(
        "update pgqrs.schedules set next_at = now() - $1 * interval '1 minute' - interval '20 seconds'
         returning next_at",
    )
    .bind(minutes as f64)
    .fetch_one(pool)
    .await?;
    let scheduler = store.scheduler().await?;
    until("its time is over", async || {
        let next = next_at(&store, "poll").await.expect("read");
        next > now(pool).await.expect("read")
    })
    .await;
    let next = next_at(&store, "poll").await?;
    assert_eq!(
        (next - first).num_seconds(),
        (minutes + 1) * 60,
        "the same phase"
    );
    let sent = sent(pool).await?;
    let sent = sent
        .into_iter()
        .map(|(time, missed)| ((time - first).num_minutes(), missed));
    Ok((scheduler, sent.collect()))
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn of_a_fortnight_one_message_is_sent_which_says_how_many_were_missed(
    pool: PgPool,
) -> TestResult {
    let (notes, _guard) = Notes::start();
    let (_scheduler, sent) = after(&pool, 20_160, Missed::Once).await?;
    assert_eq!(sent, [(20_160, 20_160)]);
    notes.until("schedule has missed times", 1).await;
    let warned = notes.lines("schedule has missed times");
    assert_eq!(warned.len(), 1, "{warned:?}");
    assert!(
        warned[0].contains("20160") && warned[0].contains("poll"),
        "{warned:?}"
    );
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn what_is_too_old_is_left_out_and_what_is_not_is_sent(pool: PgPool) -> TestResult {
    let older_than = Duration::from_secs(10);
    let (_, sent) = after(&pool, 5, Missed::Skip { older_than }).await?;
    assert!(sent.is_empty(), "{sent:?}");
    sqlx::query("delete from pgqrs.schedules")
        .execute(&pool)
        .await?;
    let older_than = Duration::from_secs(59);
    let (_, sent) = after(&pool, 5, Missed::Skip { older_than }).await?;
    assert_eq!(sent, [(5, 5)]);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn all_of_them_are_made_up_for_up_to_the_number_that_was_set(pool: PgPool) -> TestResult {
    let (_, sent) = after(&pool, 20_160, Missed::All { at_most: 3 }).await?;
    assert_eq!(sent, [(20_158, 20_158), (20_159, 0), (20_160, 0)]);
    let store = Store::from(pool.clone());
    let times = crate::support::claim(&store, 3).await?;
    let times: Vec<_> = times
        .iter()
        .map(|delivery| delivery.scheduled_for())
        .collect();
    assert!(times.is_sorted() && times[0].is_some(), "{times:?}");
    Ok(())
}
