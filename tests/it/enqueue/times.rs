//! Delays and times.

use super::*;

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_delay_counts_from_the_databases_now(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    pgqrs::enqueue()
        .message(&1)
        .to("tasks")
        .delay(300)
        .execute(&store)
        .await?;
    pgqrs::enqueue()
        .message(&2)
        .to("tasks")
        .delay(Duration::from_secs(300))
        .execute(&store)
        .await?;
    pgqrs::enqueue()
        .message(&3)
        .to("tasks")
        .delay(Duration::from_millis(250))
        .execute(&store)
        .await?;
    pgqrs::enqueue()
        .message(&4)
        .to("tasks")
        .delay(0)
        .execute(&store)
        .await?;
    let delays: Vec<_> = stored(&pool)
        .await?
        .iter()
        .map(|message| (message.visible_at - message.enqueued_at).num_milliseconds())
        .collect();
    assert_eq!(delays, [300_000, 300_000, 250, 0]);
    let deliveries = pgqrs::dequeue()
        .from("tasks")
        .limit(10)
        .execute(&store)
        .await?;
    assert_eq!(
        deliveries
            .iter()
            .map(|delivery| delivery.raw_payload())
            .collect::<Vec<_>>(),
        ["4"]
    );
    Ok(())
}

/// `now()` would be the time when the transaction began, and the delay long over.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn in_a_long_transaction_a_delay_counts_from_the_enqueue(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let mut tx = pool.begin().await?;
    sqlx::query("select pg_sleep(0.2)")
        .execute(&mut *tx)
        .await?;
    pgqrs::enqueue()
        .message(&1)
        .to("tasks")
        .delay(1)
        .execute(&mut tx)
        .await?;
    let since_begin: f64 = sqlx::query_scalar(
        "select extract(epoch from visible_at - now())::float8 from pgqrs.messages",
    )
    .fetch_one(&mut *tx)
    .await?;
    assert!(since_begin >= 1.2, "{since_begin}");
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn at_is_a_time_of_the_database_and_the_past_is_now(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let time = "2040-02-29T12:34:56.789012Z".parse()?;
    pgqrs::enqueue()
        .message(&1)
        .to("tasks")
        .at(time)
        .execute(&store)
        .await?;
    pgqrs::enqueue()
        .message(&2)
        .to("tasks")
        .at("1999-12-31T23:59:59Z".parse()?)
        .execute(&store)
        .await?;
    pgqrs::enqueue()
        .message(&3)
        .to("tasks")
        .at(chrono::DateTime::<Utc>::MIN_UTC)
        .execute(&store)
        .await?;
    pgqrs::enqueue()
        .message(&4)
        .to("tasks")
        .at(chrono::DateTime::<Utc>::MAX_UTC)
        .execute(&store)
        .await?;
    let stored = stored(&pool).await?;
    assert_eq!(stored[0].visible_at, time);
    assert_eq!(stored[1].visible_at, stored[1].enqueued_at);
    assert_eq!(stored[2].visible_at, stored[2].enqueued_at);
    assert!(stored[3].visible_at > time);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_delay_beyond_the_calendar_is_refused_before_anything_is_sent(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let refused = pgqrs::enqueue()
        .message(&1)
        .to("tasks")
        .delay(u64::MAX)
        .execute(&store)
        .await;
    let Err(Error::DelayTooLong { delay, limit }) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(delay, Duration::from_secs(u64::MAX));
    assert_eq!(count(&pool).await?, 0);

    // The longest one is within the calendar of all parts.
    pgqrs::enqueue()
        .message(&1)
        .to("tasks")
        .delay(limit)
        .execute(&store)
        .await?;
    assert!(stored(&pool).await?[0].visible_at > Utc::now() + TimeDelta::days(365 * 100_000));
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_delayed_message_is_delivered_after_its_time_and_not_before(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let ids = pgqrs::enqueue()
        .messages(&[1, 2])
        .to("tasks")
        .delay(3_600)
        .execute(&store)
        .await?;
    assert!(
        pgqrs::dequeue()
            .from("tasks")
            .execute(&store)
            .await?
            .is_empty()
    );
    expire(&pool, ids[0]).await?;
    let deliveries = pgqrs::dequeue()
        .from("tasks")
        .limit(10)
        .execute(&store)
        .await?;
    assert_eq!(
        deliveries
            .iter()
            .map(pgqrs::Delivery::id)
            .collect::<Vec<_>>(),
        [ids[0]]
    );
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn whether_a_message_is_delayed_can_be_decided_at_run_time(pool: PgPool) -> TestResult {
    let store = with_queues(pool.clone(), &["tasks"]).await?;
    let day_after_2100 = DateTime::from_timestamp(4_102_531_200, 0).expect("a time");
    for when in [
        When::Now,
        When::After(Duration::from_secs(60)),
        When::At(day_after_2100),
        When::At(DateTime::UNIX_EPOCH),
    ] {
        let enqueue = pgqrs::enqueue().message(&1).to("tasks").when(when);
        enqueue.execute(&store).await?;
    }
    let stored = stored(&pool).await?;
    let wait = |n: usize| (stored[n].visible_at - stored[n].enqueued_at).num_seconds();
    assert_eq!([wait(0), wait(1), wait(3)], [0, 60, 0]);
    assert_eq!(stored[2].visible_at, day_after_2100);

    let too_long = pgqrs::enqueue()
        .message(&1)
        .to("tasks")
        .when(When::After(Duration::MAX));
    assert!(matches!(
        too_long.execute(&store).await,
        Err(Error::DelayTooLong { .. })
    ));
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_delay_may_be_none(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    for delay in [None, Some(Duration::from_secs(60))] {
        let enqueue = pgqrs::enqueue().message(&1).to("tasks").delay(delay);
        enqueue.execute(&store).await?;
    }
    pgqrs::enqueue()
        .message(&1)
        .to("tasks")
        .delay(Some(60))
        .execute(&store)
        .await?;
    let waits: Vec<_> = stored(&pool)
        .await?
        .iter()
        .map(|message| (message.visible_at - message.enqueued_at).num_seconds())
        .collect();
    assert_eq!(waits, [0, 60, 60]);
    Ok(())
}
