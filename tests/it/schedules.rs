//! Schedules: what an installation changes, what is sent when, and that each time is fired once, whatever breaks.
//!
//! Time is moved by moving `next_at`.

mod admin;
mod faults;
mod history;
mod missed;
mod overlap;
mod owners;
mod queues;
mod roles;

use std::time::Duration;

use chrono::{DateTime, Utc};
use pgqrs::{Cron, Error, Missed, Priority, Queue, ScheduleChange, Scheduler, Store, cron};
use sqlx::{PgPool, postgres::PgListener};

use crate::support::{
    TestResult, connect,
    consumers::{Seen, consumer, start},
    count, expire,
    notes::{Event, Notes},
    now, one,
    proxy::{Proxy, Sent},
    send, until, with_queues,
};

/// Lets this much time pass for a schedule.
async fn pass(pool: &PgPool, schedule: &str, by: Duration) -> TestResult {
    let moved = sqlx::query(
        "update pgqrs.schedules set next_at = next_at - $2 * interval '1 second' where name = $1",
    )
    .bind(schedule)
    .bind(by.as_secs_f64())
    .execute(pool)
    .await?;
    assert_eq!(moved.rows_affected(), 1, "there is no schedule {schedule}");
    Ok(())
}

/// Makes a schedule's next time come now. Returns it.
async fn due(pool: &PgPool, schedule: &str) -> Result<DateTime<Utc>, Box<dyn std::error::Error>> {
    let time = sqlx::query_scalar(
        "update pgqrs.schedules set next_at = date_trunc('second', now()) where name = $1 returning next_at",
    )
    .bind(schedule)
    .fetch_one(pool)
    .await?;
    Ok(time)
}

/// Wakes the tasks that fire schedules, as an installation does.
async fn wake(store: &Store) -> TestResult {
    let wake = pgqrs::schedule("wake", "tasks")
        .cron(cron!("@yearly"))
        .message(&0);
    wake.install(store).await?;
    Ok(())
}

/// The times that messages were sent for, with how many were missed before each.
async fn sent(pool: &PgPool) -> sqlx::Result<Vec<(DateTime<Utc>, i64)>> {
    sqlx::query_as(
        "select (headers ->> 'pgqrs-scheduled-for')::timestamptz, (headers ->> 'pgqrs-missed')::bigint
         from pgqrs.messages order by id",
    )
    .fetch_all(pool)
    .await
}

async fn next_at(store: &Store, schedule: &str) -> pgqrs::Result<DateTime<Utc>> {
    Ok(pgqrs::admin(store).schedule(schedule).await?.next_at)
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_scheduler_sends_the_message_at_its_time_with_all_that_was_set(
    pool: PgPool,
) -> TestResult {
    const REPORTS: Queue<(String, u32)> = Queue::new("tasks");
    let (notes, _guard) = Notes::start();
    let store = with_queues(&pool, &["tasks"]).await?;
    let schedule = pgqrs::schedule("daily-report", REPORTS)
        .cron(cron!("0 9 * * MON-FRI"))
        .zone("Europe/Berlin")
        .message(&("daily".to_owned(), 7_u32))
        .header("tenant", "acme")
        .priority(Priority::High)
        .expires_in(Duration::from_secs(3600))
        .version(3);
    let before = now(&pool).await?;
    assert_eq!(schedule.install(&store).await?, ScheduleChange::Created);
    let next = Cron::parse("0 9 * * MON-FRI")?
        .times(before, "Europe/Berlin")?
        .next();
    assert_eq!(Some(next_at(&store, "daily-report").await?), next);

    let time = due(&pool, "daily-report").await?;
    let scheduler = store.scheduler().await?;
    until("it is sent", async || {
        count(&pool).await.is_ok_and(|count| count == 1)
    })
    .await;
    let is_logged = |event: &Event| {
        let line = event.line();
        event.level == tracing::Level::DEBUG
            && line.contains("schedule fired")
            && line.contains("daily-report")
    };
    until("it is logged", async || {
        notes.events().iter().any(is_logged)
    })
    .await;
    let delivery = one(&store).await?;
    assert_eq!(delivery.raw_payload(), r#"["daily",7]"#);
    assert_eq!(delivery.scheduled_for(), Some(time));
    assert_eq!(delivery.headers().get("pgqrs-missed"), Some("0"));
    let schedule = delivery.headers().get("pgqrs-schedule");
    assert_eq!(schedule, Some("daily-report"));
    assert_eq!(delivery.headers().get("tenant"), Some("acme"));
    assert_eq!(delivery.priority(), Priority::High);
    let expires: Option<f64> = sqlx::query_scalar(
        "select extract(epoch from expires_at - enqueued_at)::float8 from pgqrs.messages",
    )
    .fetch_one(&pool)
    .await?;
    assert_eq!(expires, Some(3600.0));
    // A retry is for the same time.
    delivery.retry_in(Duration::ZERO, &store).await?;
    let again = one(&store).await?;
    assert_eq!((again.attempt(), again.scheduled_for()), (2, Some(time)));
    again.ack(&store).await?;

    let after = pgqrs::admin(&store).schedule("daily-report").await?;
    assert_eq!(after.last_at, Some(time));
    assert!(after.next_at > now(&pool).await?);
    assert!(
        after
            .lateness()
            .is_some_and(|late| late < Duration::from_secs(60))
    );
    drop(scheduler);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_consumer_of_any_queue_fires_schedules_and_handles_its_own(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks", "others"]).await?;
    for (name, queue) in [("ours", "tasks"), ("theirs", "others")] {
        let schedule = pgqrs::schedule(name, queue)
            .every(Duration::from_millis(200))
            .message(&name);
        schedule.install(&store).await?;
    }
    let seen = Seen::default();
    let run = start(consumer().create(&store).await?, seen.handler());
    until("both are fired several times", async || {
        let others: i64 = sqlx::query_scalar(
            "select count(*) from pgqrs.messages m join pgqrs.queues q on q.id = m.queue_id where q.name = 'others'",
        )
        .fetch_one(&pool)
        .await
        .expect("counted");
        others >= 3 && seen.times().get("\"ours\"").is_some_and(|times| *times >= 3)
    })
    .await;
    run.stop().await?;
    Ok(())
}

/// One process may sleep for an hour: what another installs wakes it.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_schedule_that_another_process_installs_wakes_those_that_sleep(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let other = connect(&pool).await?;
    let scheduler = other.scheduler().await?;
    until("it has looked, and sleeps", async || {
        let looks: i64 = sqlx::query_scalar(
            "select count(*) from pg_stat_activity where datname = current_database() and state = 'idle'
                 and query like '%pgqrs.schedules%'",
        )
        .fetch_one(&pool)
        .await
        .expect("counted");
        looks > 0
    })
    .await;
    let schedule = pgqrs::schedule("often", "tasks")
        .every(Duration::from_millis(100))
        .message(&1);
    schedule.install(&store).await?;
    // Without being woken it would look again after a minute.
    until("it fires", async || {
        count(&pool).await.is_ok_and(|count| count >= 2)
    })
    .await;
    drop(scheduler);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn only_a_higher_version_replaces_a_schedule(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks", "others"]).await?;
    let version = async |version: u32, payload: &str, queue: &str| {
        let schedule = pgqrs::schedule("report", queue.to_owned()).every(Duration::from_secs(60));
        schedule
            .message(payload)
            .version(version)
            .install(&store)
            .await
    };
    let stored = async || {
        let row: (i32, String) =
            sqlx::query_as("select version, payload::text from pgqrs.schedules")
                .fetch_one(&pool)
                .await
                .expect("one");
        row
    };
    assert_eq!(version(2, "a", "tasks").await?, ScheduleChange::Created);
    let first = next_at(&store, "report").await?;
    assert_eq!(version(2, "b", "tasks").await?, ScheduleChange::Unchanged);
    assert_eq!(version(1, "b", "tasks").await?, ScheduleChange::Unchanged);
    assert_eq!(stored().await, (2, r#""a""#.to_owned()));
    assert_eq!(version(3, "b", "others").await?, ScheduleChange::Replaced);
    assert_eq!(stored().await, (3, r#""b""#.to_owned()));
    let admin = pgqrs::admin(&store);
    assert_eq!(admin.schedule("report").await?.queue.as_str(), "others");
    // A deployment doesn't put it off, unless its times change.
    assert_eq!(next_at(&store, "report").await?, first);
    let other = pgqrs::schedule("report", "tasks")
        .every(Duration::from_secs(90))
        .message(&1);
    assert_eq!(
        other.version(4).install(&store).await?,
        ScheduleChange::Replaced
    );
    assert!(next_at(&store, "report").await? > first);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn while_its_message_is_unfinished_one_that_skips_sends_no_other(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let schedule = pgqrs::schedule("slow", "tasks")
        .every(Duration::from_secs(60))
        .message(&1);
    schedule.skip_if_unfinished().install(&store).await?;
    let scheduler = store.scheduler().await?;
    let fire = async || {
        let time = due(&pool, "slow").await.expect("moved");
        wake(&store).await.expect("woken");
        until("its time is over", async || {
            next_at(&store, "slow").await.is_ok_and(|next| next > time)
        })
        .await;
        pgqrs::admin(&store)
            .delete_schedule("wake")
            .await
            .expect("deleted");
        count(&pool).await.expect("counted")
    };
    assert_eq!(fire().await, 1);
    assert_eq!(fire().await, 1);
    let delivery = one(&store).await?;
    assert_eq!(fire().await, 1, "it is being handled");
    let id = delivery.id();
    drop(delivery);
    expire(&pool, id).await?;
    one(&store).await?.ack(&store).await?;
    assert_eq!(fire().await, 1);
    one(&store).await?.dead_letter("no", &store).await?;
    assert_eq!(fire().await, 1, "the last one is over");
    drop(scheduler);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn with_its_queue_a_schedule_is_deleted(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks", "others"]).await?;
    for (name, queue) in [("a", "tasks"), ("b", "others")] {
        let schedule = pgqrs::schedule(name, queue)
            .every(Duration::from_secs(60))
            .message(&1);
        schedule.install(&store).await?;
    }
    let admin = pgqrs::admin(&store);
    admin.delete_queue("others").await?;
    let left: Vec<_> = admin
        .schedules()
        .await?
        .into_iter()
        .map(|schedule| schedule.name)
        .collect();
    assert_eq!(left, ["a"]);
    let gone = pgqrs::schedule("b", "others")
        .every(Duration::from_secs(60))
        .message(&1);
    let refused = gone.install(&store).await;
    assert!(
        matches!(refused, Err(Error::QueueNotFound { .. })),
        "{refused:?}"
    );
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn bad_settings_are_refused_before_anything_is_sent(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    store.pool().close().await;
    let minute = Duration::from_secs(60);
    let base = || pgqrs::schedule("a", "tasks").message(&1);
    let refused = |setting: &'static str, outcome: pgqrs::Result<ScheduleChange>| {
        assert!(
            matches!(outcome, Err(Error::InvalidSetting { setting: found, .. }) if found == setting),
            "{setting}: {outcome:?}"
        );
    };
    refused(
        "every",
        base().every(Duration::from_millis(5)).install(&store).await,
    );
    refused(
        "zone",
        base()
            .every(minute)
            .zone("Mars/Olympus")
            .install(&store)
            .await,
    );
    let all = Missed::All { at_most: 0 };
    refused(
        "at_most",
        base().every(minute).missed(all).install(&store).await,
    );
    refused(
        "version",
        base().every(minute).version(u32::MAX).install(&store).await,
    );
    refused(
        "max_attempts",
        base().every(minute).max_attempts(0).install(&store).await,
    );
    let too_long = base().every(minute).expires_in(Duration::MAX);
    let too_long = too_long.install(&store).await;
    assert!(
        matches!(too_long, Err(Error::DelayTooLong { .. })),
        "{too_long:?}"
    );
    let key = base().every(minute).unique("").install(&store).await;
    assert!(matches!(key, Err(Error::InvalidKey { .. })), "{key:?}");
    for name in ["", " a", "a\n", &"a".repeat(129)] {
        let schedule = pgqrs::schedule(name, "tasks").every(minute).message(&1);
        refused("schedule", schedule.install(&store).await);
    }
    let header = base()
        .every(minute)
        .header("pgqrs-scheduled-for", "x")
        .install(&store)
        .await;
    assert!(matches!(header, Err(Error::InvalidHeader(_))), "{header:?}");
    let never: Error = Cron::parse("0 0 30 2 *")
        .expect_err("it never fires")
        .into();
    assert!(never.to_string().contains("never fires"), "{never}");
    let ok = base().every(minute).install(&store).await;
    assert!(matches!(ok, Err(Error::Closed)), "{ok:?}");
    Ok(())
}

/// It looks once a minute, and not more often because other processes are busy.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn while_nothing_is_due_a_scheduler_sends_nothing(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let yearly = pgqrs::schedule("yearly", "tasks")
        .cron(cron!("@yearly"))
        .message(&1);
    let mut installed = PgListener::connect_with(&pool).await?;
    installed.listen("pgqrs").await?;
    yearly.install(&store).await?;
    // Other processes hear of it a moment later, and look.
    installed.recv().await?;
    let (proxy, url) = Proxy::before(&pool).await?;
    let quiet = pgqrs::connect(&url).await?;
    let scheduler = quiet.scheduler().await?;
    until("it listens, and its task has looked", async || {
        let sessions: i64 = sqlx::query_scalar(
            "select count(distinct query like 'LISTEN %') from pg_stat_activity
             where datname = current_database() and state = 'idle'
                 and query not like '%pg_stat_activity%'
                 and (query like 'LISTEN %cancelled%' or query like '%later_at%')",
        )
        .fetch_one(&pool)
        .await
        .expect("counted");
        sessions == 2
    })
    .await;
    proxy.take_sent();
    for _ in 0..200 {
        send(&store, &[1]).await?;
    }
    // A statement that was only prepared counts as one that ran. It looks once more after it has begun to listen, however
    // much others send.
    let sent = proxy.take_sent();
    let statements = sent.iter().filter(|kind| **kind == Sent::Execute).count();
    assert!(statements <= 2, "{sent:?}");
    drop(scheduler);
    Ok(())
}
