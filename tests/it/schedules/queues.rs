//! Schedules whose queue is closed or paused.

use super::*;
use crate::support::notes::Notes;

/// It takes no messages, and its schedules don't stay due for ever.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_closed_queue_refuses_what_its_schedule_sends_which_is_reported_once_and_holds_up_no_other(
    pool: PgPool,
) -> TestResult {
    let (notes, _guard) = Notes::start();
    let reported = || notes.lines("schedule sends nothing while its queue is closed");
    let store = with_queues(&pool, &["tasks", "closed"]).await?;
    let admin = pgqrs::admin(&store);
    for (name, queue) in [("ours", "tasks"), ("theirs", "closed")] {
        let schedule = pgqrs::schedule(name, queue)
            .every(Duration::from_secs(60))
            .message(&name);
        schedule.install(&store).await?;
    }
    admin.close_queue("closed").await?;
    let both = async || {
        sqlx::query("update pgqrs.schedules set next_at = now() where name <> 'wake'")
            .execute(&pool)
            .await
            .expect("both are due");
        wake(&store).await.expect("woken");
        until("both times are over", async || {
            let schedules = admin.schedules().await.expect("listed");
            let now = now(&pool).await.expect("read");
            schedules.iter().all(|schedule| schedule.next_at > now)
        })
        .await;
        count(&pool).await.expect("counted")
    };
    // After the statement, so maybe after its effect is seen here.
    let is_reported = async |times| {
        until("it is reported", async || reported().len() == times).await;
    };
    let scheduler = store.scheduler().await?;
    assert_eq!(both().await, 1);
    is_reported(1).await;
    assert_eq!((both().await, reported().len()), (2, 1));
    assert!(reported()[0].contains("theirs"), "{:?}", reported());
    let refused = admin.fire_schedule("theirs").await;
    assert!(
        matches!(&refused, Err(Error::QueueClosed { queue }) if queue.as_str() == "closed"),
        "{refused:?}"
    );

    admin.reopen_queue("closed").await?;
    assert_eq!((both().await, reported().len()), (4, 1));
    admin.close_queue("closed").await?;
    assert_eq!(both().await, 5);
    is_reported(2).await;
    drop(scheduler);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn to_a_paused_queue_a_schedule_sends_on(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let admin = pgqrs::admin(&store);
    let schedule = pgqrs::schedule("often", "tasks")
        .every(Duration::from_secs(60))
        .message(&1);
    schedule.install(&store).await?;
    admin.pause_queue("tasks").await?;
    due(&pool, "often").await?;
    let scheduler = store.scheduler().await?;
    until("it is sent", async || {
        count(&pool).await.is_ok_and(|count| count == 1)
    })
    .await;
    let claimed = pgqrs::dequeue().from("tasks").execute(&store).await?;
    assert!(claimed.is_empty());
    admin.resume_queue("tasks").await?;
    one(&store).await?.ack(&store).await?;
    drop(scheduler);
    Ok(())
}
