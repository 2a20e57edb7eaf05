//! What a schedule has fired, and what became of it.

use pgqrs::{FiringOutcome, MessageId, ScheduleFiring};

use super::*;
use crate::grants::as_role;

/// Lets a schedule's time come, and waits until it is fired. Returns the time.
async fn fire(pool: &PgPool, store: &Store, schedule: &str) -> DateTime<Utc> {
    let time = due(pool, schedule).await.expect("moved");
    wake(store).await.expect("woken");
    until("it is fired", async || {
        next_at(store, schedule).await.is_ok_and(|next| next > time)
    })
    .await;
    time
}

async fn outcomes(store: &Store, schedule: &str) -> pgqrs::Result<Vec<FiringOutcome>> {
    let history = pgqrs::admin(store).schedule_history(schedule).await?;
    Ok(history.iter().map(|firing| firing.outcome).collect())
}

/// The times and the ids of a schedule's messages, as their headers have them: the last one sent first.
async fn messages(
    pool: &PgPool,
    schedule: &str,
) -> sqlx::Result<Vec<(Option<DateTime<Utc>>, Option<MessageId>)>> {
    let rows: Vec<(DateTime<Utc>, i64)> = sqlx::query_as(
        r#"select (json ->> 'pgqrs-scheduled-for')::timestamptz, id
           from pgqrs.messages
           cross join lateral (select replace(headers::text, '\u0000', '0')::json as json) h
           where json ->> 'pgqrs-schedule' = $1 order by id desc"#,
    )
    .bind(schedule)
    .fetch_all(pool)
    .await?;
    Ok(rows
        .into_iter()
        .map(|(time, id)| (Some(time), Some(MessageId::from(id))))
        .collect())
}

fn recorded(history: &[ScheduleFiring]) -> Vec<(Option<DateTime<Utc>>, Option<MessageId>)> {
    history
        .iter()
        .map(|firing| (firing.scheduled_for, firing.message))
        .collect()
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn it_says_what_became_of_each_message(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let admin = pgqrs::admin(&store);
    let schedule = pgqrs::schedule("poll", "tasks").every(Duration::from_secs(600));
    schedule.message(&1).install(&store).await?;
    assert_eq!(admin.schedule_history("poll").await?, []);
    let scheduler = store.scheduler().await?;
    let time = fire(&pool, &store, "poll").await;
    let [first] = &admin.schedule_history("poll").await?[..] else {
        panic!("one was fired")
    };
    assert_eq!(
        (first.scheduled_for, first.outcome, first.queue.as_str()),
        (Some(time), FiringOutcome::Ready, "tasks")
    );
    let schedule = admin.schedule("poll").await?;
    assert_eq!(Some(first.fired_at), schedule.last_fired_at);
    assert_eq!(first.lateness(), schedule.lateness());

    let delivery = one(&store).await?;
    assert_eq!(Some(delivery.id()), first.message);
    assert_eq!(outcomes(&store, "poll").await?, [FiringOutcome::Leased]);
    let in_an_hour = Duration::from_secs(3_600);
    delivery.retry_in(in_an_hour, &store).await?;
    assert_eq!(outcomes(&store, "poll").await?, [FiringOutcome::Delayed]);

    fire(&pool, &store, "poll").await;
    one(&store).await?.ack(&store).await?;
    fire(&pool, &store, "poll").await;
    one(&store).await?.archive(&store).await?;
    fire(&pool, &store, "poll").await;
    one(&store).await?.dead_letter("no", &store).await?;
    let by_hand = admin.fire_schedule("poll").await?;
    assert!(by_hand.is_some());
    let history = admin.schedule_history("poll").await?;
    assert_eq!(
        (history[0].scheduled_for, history[0].message),
        (None, by_hand)
    );
    assert_eq!(history[0].lateness(), None);
    assert_eq!(
        outcomes(&store, "poll").await?,
        [
            FiringOutcome::Ready,
            FiringOutcome::Dead,
            FiringOutcome::Archived,
            FiringOutcome::Done,
            FiringOutcome::Delayed,
        ]
    );
    drop(scheduler);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_time_that_was_left_out_has_its_reason(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let admin = pgqrs::admin(&store);
    let schedule = pgqrs::schedule("poll", "tasks")
        .every(Duration::from_secs(600))
        .message(&1);
    schedule.skip_if_unfinished().install(&store).await?;
    let scheduler = store.scheduler().await?;
    let first = fire(&pool, &store, "poll").await;
    pass(&pool, "poll", Duration::from_secs(1)).await?;
    let second = fire(&pool, &store, "poll").await;
    // By hand it isn't fired either.
    assert_eq!(admin.fire_schedule("poll").await?, None);
    admin.close_queue("tasks").await?;
    let third = fire(&pool, &store, "poll").await;
    let history = admin.schedule_history("poll").await?;
    let times: Vec<_> = history
        .iter()
        .map(|firing| {
            (
                firing.scheduled_for,
                firing.outcome,
                firing.message.is_some(),
            )
        })
        .collect();
    assert_eq!(
        times,
        [
            (Some(third), FiringOutcome::QueueClosed, false),
            (Some(second), FiringOutcome::Unfinished, false),
            (Some(first), FiringOutcome::Ready, true),
        ]
    );
    drop(scheduler);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn it_keeps_the_last_hundred_of_each_schedule(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let admin = pgqrs::admin(&store);
    for name in ["many", "other"] {
        pgqrs::schedule(name, "tasks")
            .every(Duration::from_secs(60))
            .message(&name)
            .missed(Missed::All { at_most: 150 })
            .install(&store)
            .await?;
        pass(&pool, name, Duration::from_secs(200 * 60)).await?;
    }
    // A header that PostgreSQL can't decode, as another program may have stored it.
    sqlx::query(r#"update pgqrs.schedules set headers = '{"zero": "\u0000"}'"#)
        .execute(&pool)
        .await?;
    let scheduler = store.scheduler().await?;
    until("all are sent", async || {
        count(&pool).await.is_ok_and(|count| count == 300)
    })
    .await;
    for name in ["many", "other"] {
        let history = admin.schedule_history(name).await?;
        assert_eq!(recorded(&history), messages(&pool, name).await?[..100]);
    }
    // A few more, at times and by hand.
    pass(&pool, "many", Duration::from_secs(7 * 60)).await?;
    wake(&store).await?;
    until("they are sent", async || {
        count(&pool).await.is_ok_and(|count| count == 307)
    })
    .await;
    let history = admin.schedule_history("many").await?;
    assert_eq!(recorded(&history), messages(&pool, "many").await?[..100]);
    let by_hand = admin.fire_schedule("many").await?;
    let history = admin.schedule_history("many").await?;
    assert_eq!((history.len(), history[0].message), (100, by_hand));
    let other = admin.schedule_history("other").await?;
    assert_eq!(recorded(&other), messages(&pool, "other").await?[..100]);
    drop(scheduler);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn it_stays_with_a_schedule_that_is_replaced_and_goes_with_one_that_is_deleted(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(&pool, &["tasks", "others"]).await?;
    let admin = pgqrs::admin(&store);
    let schedule = pgqrs::schedule("poll", "tasks").every(Duration::from_secs(60));
    schedule.message(&1).install(&store).await?;
    admin.fire_schedule("poll").await?;
    let moved = pgqrs::schedule("poll", "others").every(Duration::from_secs(60));
    moved.message(&1).version(2).install(&store).await?;
    as_role(&pool, Some(pgqrs::Access::Operator), async |store, _| {
        let admin = pgqrs::admin(store);
        admin.fire_schedule("poll").await?;
        let history = admin.schedule_history("poll").await?;
        let queues: Vec<_> = history.iter().map(|firing| firing.queue.as_str()).collect();
        assert_eq!(queues, ["others", "tasks"]);
        Ok(())
    })
    .await?;
    assert_eq!(outcomes(&store, "poll").await?, [FiringOutcome::Ready; 2]);
    admin.delete_schedule("poll").await?;
    let gone = admin.schedule_history("poll").await;
    assert!(
        matches!(gone, Err(Error::ScheduleNotFound { .. })),
        "{gone:?}"
    );
    let left: i64 = sqlx::query_scalar("select count(*) from pgqrs.firings")
        .fetch_one(&pool)
        .await?;
    assert_eq!(left, 0);
    Ok(())
}

/// Both take the schedule's lock and then the key's: neither waits for the other in a circle.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn one_that_is_fired_by_many_hands_at_once_has_each_message_once(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let schedule = pgqrs::schedule("poll", "tasks").every(Duration::from_millis(100));
    schedule.message(&1).install(&store).await?;
    let scheduler = store.scheduler().await?;
    let hands = (0..8).map(|_| {
        let admin = pgqrs::admin(&store);
        tokio::spawn(async move {
            for _ in 0..5 {
                admin.fire_schedule("poll").await?;
            }
            pgqrs::Ok(())
        })
    });
    for hand in hands.collect::<Vec<_>>() {
        hand.await??;
    }
    until("it is fired at its times, too", async || {
        count(&pool).await.is_ok_and(|count| count > 42)
    })
    .await;
    drop(scheduler);
    pgqrs::admin(&store).pause_schedule("poll").await?;
    let history = pgqrs::admin(&store).schedule_history("poll").await?;
    let mut ids: Vec<_> = history.iter().filter_map(|firing| firing.message).collect();
    ids.sort();
    let all: Vec<i64> = sqlx::query_scalar("select id from pgqrs.messages order by id")
        .fetch_all(&pool)
        .await?;
    let all: Vec<_> = all.into_iter().map(MessageId::from).collect();
    assert_eq!(ids, all[all.len().saturating_sub(100)..]);
    Ok(())
}
