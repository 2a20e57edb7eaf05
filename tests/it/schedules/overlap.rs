//! Keys and limits of what schedules send: the same as of messages that are enqueued.

use super::*;
use crate::support::notes::Notes;

/// Lets a schedule's time come, and waits until it is over. Returns how many messages there are.
async fn fire(pool: &PgPool, store: &Store, schedule: &str) -> i64 {
    let time = due(pool, schedule).await.expect("moved");
    wake(store).await.expect("woken");
    until("its time is over", async || {
        next_at(store, schedule).await.is_ok_and(|next| next > time)
    })
    .await;
    count(pool).await.expect("counted")
}

fn each_minute(name: &str) -> pgqrs::Schedule<pgqrs::Untyped, pgqrs::state::Timed> {
    pgqrs::schedule(name, "tasks").every(Duration::from_secs(60))
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn what_a_schedule_sends_has_the_key_that_its_queue_computes(pool: PgPool) -> TestResult {
    const ORDERS: Queue<u32> =
        Queue::<u32>::new("tasks").unique_by(|order| format!("order-{order}"));
    let store = with_queues(&pool, &["tasks"]).await?;
    let every = Duration::from_secs(60);
    for schedule in ["plain", "skips"] {
        let schedule = pgqrs::schedule(schedule, ORDERS).every(every).message(&7);
        schedule.install(&store).await?;
    }
    let skips = pgqrs::schedule("skips", ORDERS).every(every).message(&7);
    let skips = skips.skip_if_unfinished().version(2);
    assert_eq!(skips.install(&store).await?, ScheduleChange::Replaced);
    let scheduler = store.scheduler().await?;
    assert_eq!(fire(&pool, &store, "plain").await, 1);
    // The one message of this order.
    assert_eq!(fire(&pool, &store, "skips").await, 1);
    assert_eq!(fire(&pool, &store, "plain").await, 1);
    let sent = pgqrs::enqueue()
        .message(&7)
        .to(ORDERS)
        .execute(&store)
        .await?;
    let delivery = one(&store).await?;
    let outcome = sent.outcomes().next().expect("one");
    assert_eq!((outcome.id, outcome.new), (delivery.id(), false));
    assert_eq!(outcome.same_payload, Some(true));
    assert_eq!(pgqrs::admin(&store).fire_schedule("plain").await?, None);
    delivery.ack(&store).await?;
    assert_eq!(fire(&pool, &store, "skips").await, 1);
    drop(scheduler);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_transaction_that_holds_a_key_holds_up_no_other_schedule(pool: PgPool) -> TestResult {
    let (notes, _guard) = Notes::start();
    let store = with_queues(&pool, &["tasks"]).await?;
    let held = each_minute("held").message(&1).unique("held");
    held.install(&store).await?;
    let other = each_minute("other").message(&2).skip_if_unfinished();
    other.install(&store).await?;
    each_minute("free").message(&3).install(&store).await?;
    let mut transaction = pool.begin().await?;
    pgqrs::enqueue()
        .message(&0)
        .to("tasks")
        .unique("held")
        .execute(&mut transaction)
        .await?;
    sqlx::query("update pgqrs.schedules set next_at = now()")
        .execute(&pool)
        .await?;
    let scheduler = store.scheduler().await?;
    until("the others are sent", async || {
        count(&pool).await.is_ok_and(|count| count == 2)
    })
    .await;
    notes
        .until("schedule can't be fired by this process", 1)
        .await;
    let lines = notes.lines("schedule can't be fired by this process");
    assert!(
        lines[0].contains("held") && lines[0].contains("KeyHeld"),
        "{lines:?}"
    );
    let refused = pgqrs::admin(&store).fire_schedule("held").await;
    assert!(matches!(refused, Err(Error::KeyHeld { .. })), "{refused:?}");
    transaction.rollback().await?;
    assert!(pgqrs::admin(&store).fire_schedule("held").await?.is_some());
    drop(scheduler);
    Ok(())
}

/// A handler acknowledges in its transaction, and works on.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn what_an_open_transaction_deletes_is_unfinished_and_is_not_waited_for(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let schedule = each_minute("slow").message(&1).skip_if_unfinished();
    schedule.install(&store).await?;
    let scheduler = store.scheduler().await?;
    assert_eq!(fire(&pool, &store, "slow").await, 1);
    let mut transaction = pool.begin().await?;
    one(&store).await?.ack(&mut transaction).await?;
    assert_eq!(fire(&pool, &store, "slow").await, 1);
    assert_eq!(pgqrs::admin(&store).fire_schedule("slow").await?, None);
    transaction.commit().await?;
    assert_eq!(fire(&pool, &store, "slow").await, 1);
    assert_eq!(one(&store).await?.attempt(), 1, "it is another one");
    drop(scheduler);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn its_messages_have_the_limits_and_the_size_of_those_that_are_enqueued(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    // Stored compressed.
    let payload = "a".repeat(100_000);
    let hour = Duration::from_secs(3600);
    let schedule = each_minute("report")
        .message(&payload)
        .priority(Priority::Low);
    let schedule = schedule.max_attempts(3).expires_in(hour).drop_if_expired();
    schedule.unique("k").install(&store).await?;
    pgqrs::enqueue()
        .message(&payload)
        .to("tasks")
        .priority(Priority::Low)
        .max_attempts(3)
        .expires_in(hour)
        .drop_if_expired()
        .unique("other")
        .execute(&store)
        .await?;
    let scheduler = store.scheduler().await?;
    assert_eq!(fire(&pool, &store, "report").await, 2);
    drop(scheduler);
    let alike: i64 = sqlx::query_scalar(
        "select count(distinct (
             queue_id, priority, max_attempts, expires_at - enqueued_at, visible_at - enqueued_at, drop_if_expired,
             payload_hash, payload_bytes, payload::text
         )) from pgqrs.messages",
    )
    .fetch_one(&pool)
    .await?;
    assert_eq!(alike, 1);
    let keys: Vec<String> = sqlx::query_scalar("select unique_key from pgqrs.messages order by id")
        .fetch_all(&pool)
        .await?;
    assert_eq!(keys, ["other", "k"]);
    Ok(())
}
