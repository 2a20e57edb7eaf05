//! Schedules in operation: listed, paused, resumed, fired now, deleted.

use pgqrs::ScheduleTime;

use super::*;

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_schedule_is_listed_with_its_settings_and_next_times(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let admin = pgqrs::admin(&store);
    assert!(admin.schedules().await?.is_empty());
    let missed = Missed::Skip {
        older_than: Duration::from_secs(5),
    };
    pgqrs::schedule("b", "tasks")
        .cron(cron!("30 2 * * *"))
        .zone("Europe/Berlin")
        .message(&"secret")
        .missed(missed)
        .headers([("tenant", "acme")])
        .priority(Priority::Low)
        .expires_in(Duration::from_millis(1_500))
        .drop_if_expired()
        .max_attempts(3)
        .skip_if_unfinished()
        .version(2)
        .install(&store)
        .await?;
    let schedule = pgqrs::schedule("a", "tasks")
        .every(Duration::from_millis(2_500))
        .message(&1);
    schedule
        .missed(Missed::All { at_most: 9 })
        .install(&store)
        .await?;
    let schedules = admin.schedules().await?;
    let [a, b] = &schedules[..] else {
        panic!("{schedules:?}")
    };
    assert_eq!(a.time, ScheduleTime::Every(Duration::from_millis(2_500)));
    assert_eq!(a.missed, Missed::All { at_most: 9 });
    let upcoming = a.upcoming(3)?;
    assert_eq!(upcoming[0], a.next_at);
    assert_eq!((upcoming[2] - upcoming[0]).num_milliseconds(), 5_000);
    assert_eq!(b.time, ScheduleTime::Cron(cron!("30 2 * * *")));
    assert_eq!(
        (b.name.as_str(), b.queue.as_str(), b.version),
        ("b", "tasks", 2)
    );
    assert_eq!(
        (b.zone.as_str(), b.missed, b.priority),
        ("Europe/Berlin", missed, Priority::Low)
    );
    assert_eq!(b.expires_in, Some(Duration::from_millis(1_500)));
    assert_eq!((b.drop_if_expired, b.max_attempts), (true, Some(3)));
    assert_eq!(b.unique_key.as_deref(), Some("pgqrs-schedule-b"));
    assert_eq!((&a.unique_key, a.max_attempts), (&None, None));
    assert!(b.owner.is_none() && b.paused_at.is_none());
    assert_eq!(
        (b.last_at, b.last_fired_at, b.lateness()),
        (None, None, None)
    );
    assert_eq!(b.headers.get("tenant"), Some("acme"));
    assert_eq!(b.upcoming(5)?.len(), 5);
    assert!(!format!("{schedules:?}").contains("secret"));
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn while_it_is_paused_a_schedule_sends_nothing_and_then_it_goes_on(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let admin = pgqrs::admin(&store);
    let schedule = pgqrs::schedule("poll", "tasks")
        .every(Duration::from_secs(60))
        .message(&1);
    schedule.install(&store).await?;
    admin.pause_schedule("poll").await?;
    let since = admin.schedule("poll").await?.paused_at;
    admin.pause_schedule("poll").await?;
    assert!(since.is_some());
    assert_eq!(admin.schedule("poll").await?.paused_at, since);
    pass(&pool, "poll", Duration::from_secs(600)).await?;
    let other = pgqrs::schedule("other", "tasks")
        .every(Duration::from_secs(60))
        .message(&2);
    other.install(&store).await?;
    due(&pool, "other").await?;
    let scheduler = store.scheduler().await?;
    until("the other one is sent", async || {
        count(&pool).await.is_ok_and(|count| count == 1)
    })
    .await;
    assert_eq!(one(&store).await?.raw_payload(), "2");
    // A deployment doesn't resume it.
    let newer = pgqrs::schedule("poll", "tasks")
        .every(Duration::from_secs(60))
        .message(&1);
    newer.version(2).install(&store).await?;
    assert_eq!(admin.schedule("poll").await?.paused_at, since);
    admin.resume_schedule("poll").await?;
    admin.resume_schedule("poll").await?;
    let resumed = admin.schedule("poll").await?;
    assert!(resumed.paused_at.is_none() && resumed.next_at > now(&pool).await?);
    assert_eq!(
        count(&pool).await?,
        1,
        "what passed meanwhile is not made up for"
    );
    let time = due(&pool, "poll").await?;
    wake(&store).await?;
    until("it goes on", async || {
        let schedule = admin.schedule("poll").await.expect("read");
        schedule.last_at == Some(time)
    })
    .await;
    drop(scheduler);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn fired_now_it_sends_its_message_beside_its_times(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let admin = pgqrs::admin(&store);
    let schedule = pgqrs::schedule("report", "tasks")
        .cron(cron!("@yearly"))
        .message(&"r");
    schedule
        .header("tenant", "acme")
        .skip_if_unfinished()
        .install(&store)
        .await?;
    let next = next_at(&store, "report").await?;
    admin.pause_schedule("report").await?;
    let (before, id) = (now(&pool).await?, admin.fire_schedule("report").await?);
    assert_eq!(
        admin.fire_schedule("report").await?,
        None,
        "it is unfinished"
    );
    let delivery = one(&store).await?;
    assert_eq!(Some(delivery.id()), id);
    assert_eq!(
        (delivery.raw_payload(), delivery.headers().get("tenant")),
        ("\"r\"", Some("acme"))
    );
    assert!(delivery.scheduled_for().is_some_and(|time| time >= before));
    let schedule = delivery.headers().get("pgqrs-schedule");
    assert_eq!(schedule, Some("report"));
    delivery.ack(&store).await?;
    assert!(admin.fire_schedule("report").await?.is_some());
    assert_eq!(next_at(&store, "report").await?, next);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn one_that_users_edit_is_overwritten_and_deleted(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let admin = pgqrs::admin(&store);
    for (text, change, version) in [
        ("0 9 * * *", ScheduleChange::Created, 1),
        ("0 10 * * *", ScheduleChange::Replaced, 2),
        ("0 10 * * *", ScheduleChange::Replaced, 3),
    ] {
        let schedule = pgqrs::schedule("digest", "tasks")
            .cron(Cron::parse(text)?)
            .message(&text);
        assert_eq!(admin.set_schedule(schedule.spec()).await?, change);
        let found = admin.schedule("digest").await?;
        assert_eq!(
            (found.version, found.time),
            (version, ScheduleTime::Cron(Cron::parse(text)?))
        );
    }
    admin.delete_schedule("digest").await?;
    for refused in [
        admin.delete_schedule("digest").await,
        admin.pause_schedule("digest").await,
        admin.resume_schedule("digest").await,
        admin.fire_schedule("digest").await.map(drop),
        admin.schedule("digest").await.map(drop),
    ] {
        assert!(
            matches!(&refused, Err(Error::ScheduleNotFound { schedule }) if schedule == "digest"),
            "{refused:?}"
        );
    }
    Ok(())
}
