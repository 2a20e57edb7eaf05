//! Sends that the server refuses, and sends that are tried only once.

use super::*;

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn what_is_refused_fails_alone(pool: PgPool) -> TestResult {
    let direct = with_queues(&pool, &["tasks"]).await?;
    let store = with_one_writer(&pool).await?;
    let suspended = pgqrs::producer("host", 3000, "tasks")
        .create(&store)
        .await?;
    let suspended_id = suspended.id();
    suspended.suspend().await?;
    // Whichever code a trigger raises.
    for (round, code) in ["P0001", "22012", "QZ001"].into_iter().enumerate() {
        poison(
            &pool,
            "13",
            &format!("raise 'poisoned' using errcode = '{code}'"),
        )
        .await?;
        let (holder, taken) = hold_up_behind(&store, &pool).await?;
        let calls: Vec<_> = (0..40).map(|n| sending(&store, json!(n))).collect();
        let unknown = pgqrs::enqueue().message(&1).to("nowhere");
        let poisoned = pgqrs::enqueue().messages(&[12, 13, 14]).to("tasks");
        let refused = async {
            tokio::join!(
                unknown.execute(&store),
                suspended.enqueue().message(&1).execute(&store),
                poisoned.execute(&store),
            )
        };
        let release = async {
            waiting(&store, 43).await;
            holder.rollback().await
        };
        let ((unknown, by_suspended, poisoned), released) = tokio::join!(refused, release);
        released?;
        done(taken).await?;
        assert!(
            matches!(&unknown, Err(Error::QueueNotFound { queue }) if queue.as_str() == "nowhere")
        );
        assert!(
            matches!(by_suspended, Err(Error::WorkerSuspended { worker }) if worker == suspended_id),
            "{by_suspended:?}"
        );
        assert!(
            matches!(poisoned, Err(Error::Database(_))),
            "{code}: {poisoned:?}"
        );
        for (n, call) in calls.into_iter().enumerate() {
            let outcome = call.await?;
            match n {
                13 => assert!(
                    matches!(outcome, Err(Error::Database(_))),
                    "{code}: {outcome:?}"
                ),
                _ => assert!(outcome.is_ok(), "{code} {n}: {outcome:?}"),
            }
        }
        assert_eq!(count(&pool).await?, 41 * (round as i64 + 1));
        alter(
            &pool,
            "drop trigger poison on pgqrs.messages; drop function poison",
        )
        .await?;
    }
    drop(direct);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn without_time_to_retry_there_is_one_try(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    alter(&pool, "create sequence tries").await?;
    let raise = "perform nextval(''tries''); raise using errcode = ''40001''".replace("''", "'");
    poison(&pool, "13", &raise).await?;
    let tries = async || -> sqlx::Result<i64> {
        sqlx::query_scalar("select last_value from tries")
            .fetch_one(&pool)
            .await
    };
    for (retry_for, expected) in [(0, 1..=1), (300, 3..=50)] {
        let retry_for = Duration::from_millis(retry_for);
        let options = ConnectOptions::builder()
            .url(url(&pool))
            .retry_for(retry_for);
        let store = pgqrs::connect_with(options.build()).await?;
        alter(&pool, "alter sequence tries restart").await?;
        let failed = single(&store, &json!(13)).await.unwrap_err();
        assert!(matches!(failed, Error::NotStored { .. }), "{failed:?}");
        assert!(matches!(source(&failed), Error::Database(_)), "{failed:?}");
        let tries = tries().await?;
        assert!(expected.contains(&tries), "{tries} tries");
    }
    assert_eq!(count(&pool).await?, 0);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn what_fails_in_the_middle_of_a_large_batch_leaves_nothing_of_it(
    pool: PgPool,
) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    poison(&pool, "4321", "raise 'poisoned'").await?;
    let store = connect(&pool).await?;
    let payloads: Vec<_> = (0..5_000).collect();
    let batch = async |store: &Store| {
        let batch = pgqrs::enqueue().messages(&payloads).to("tasks");
        batch.execute(store).await
    };
    let failed = batch(&store).await.unwrap_err();
    assert!(matches!(failed, Error::Database(_)), "{failed:?}");
    assert_eq!(count(&pool).await?, 0);

    alter(
        &pool,
        "drop trigger poison on pgqrs.messages; drop function poison",
    )
    .await?;
    poison(&pool, "4321", "perform pg_sleep(60)").await?;
    set(&pool, "set statement_timeout = '300ms'").await?;
    let options = ConnectOptions::builder().url(url(&pool));
    let options = options.retry_for(Duration::from_millis(500)).build();
    let failed = batch(&pgqrs::connect_with(options).await?)
        .await
        .unwrap_err();
    assert!(matches!(failed, Error::NotStored { .. }), "{failed:?}");
    assert!(matches!(source(&failed), Error::Database(_)), "{failed:?}");
    assert_eq!(count(&pool).await?, 0);

    alter(
        &pool,
        "drop trigger poison on pgqrs.messages; drop function poison",
    )
    .await?;
    assert_eq!(batch(&store).await?.len(), 5_000);
    assert_eq!(count(&pool).await?, 5_000);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn on_what_is_the_callers_own_there_is_one_try(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let own = PgPool::connect(&url(&pool)).await?;
    let to = |queue: &'static str| pgqrs::enqueue().message(&1).to(queue);

    // Refused: nothing is stored, and it says so.
    let mut connection = own.acquire().await?;
    let refused = to("nowhere").execute(&own).await;
    assert!(matches!(refused, Err(Error::QueueNotFound { .. })));
    let refused = to("nowhere").execute(&mut connection).await;
    assert!(matches!(refused, Err(Error::QueueNotFound { .. })));
    assert_eq!(count(&pool).await?, 0);

    // Lost: it may be stored, and it says so.
    let holder = hold_up(&pool).await?;
    let by_pool = tokio::spawn({
        let own = own.clone();
        async move { pgqrs::enqueue().message(&1).to("tasks").execute(&own).await }
    });
    terminate(&pool, blocked_backend(&pool, "insert into pgqrs").await).await?;
    let lost = by_pool.await?.unwrap_err();
    assert!(matches!(lost, Error::ConnectionLost(_)), "{lost:?}");
    let by_connection = tokio::spawn(async move {
        let enqueue = pgqrs::enqueue().message(&1).to("tasks");
        enqueue.execute(&mut connection).await
    });
    terminate(&pool, blocked_backend(&pool, "insert into pgqrs").await).await?;
    let lost = by_connection.await?.unwrap_err();
    assert!(matches!(lost, Error::ConnectionLost(_)), "{lost:?}");
    holder.rollback().await?;
    assert_eq!(count(&pool).await?, 0);

    // In a transaction the caller decides.
    let mut tx = own.begin().await?;
    to("tasks").execute(&mut tx).await?;
    tx.rollback().await?;
    assert_eq!(count(&pool).await?, 0);
    let mut tx = own.begin().await?;
    to("tasks").execute(&mut tx).await?;
    assert_eq!(count(&pool).await?, 0);
    tx.commit().await?;
    assert_eq!(count(&pool).await?, 1);
    Ok(())
}

/// A trigger reports the refusal as transient, and is wrong.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_transient_refusal_delays_no_other_send(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    poison(&pool, "13", "raise using errcode = '40001'").await?;
    let options = ConnectOptions::builder()
        .url(url(&pool))
        .max_connections(2)
        .retry_for(Duration::from_secs(3));
    let store = pgqrs::connect_with(options.build()).await?;
    let (holder, taken) = hold_up_behind(&store, &pool).await?;
    let calls: Vec<_> = (0..40).map(|n| sending(&store, json!(n))).collect();
    waiting(&store, 40).await;
    holder.rollback().await?;
    done(taken).await?;
    for (n, call) in calls.into_iter().enumerate() {
        let outcome = call.await?;
        match n {
            13 => assert!(
                matches!(outcome, Err(Error::NotStored { .. })),
                "{outcome:?}"
            ),
            _ => assert!(outcome.is_ok(), "{n}: {outcome:?}"),
        }
    }
    Ok(())
}
