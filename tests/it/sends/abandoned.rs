//! Sends whose caller, store or runtime goes away, and writers that are left idle or lose their row.

use super::*;

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_send_dropped_before_a_writer_takes_it_stores_nothing(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let store = with_one_writer(&pool).await?;
    let (holder, taken) = hold_up_behind(&store, &pool).await?;
    let mut calls: Vec<_> = (0..10).map(|n| sending(&store, json!(n))).collect();
    waiting(&store, 10).await;
    // Of these it can't be said.
    taken.iter().for_each(JoinHandle::abort);
    for left in calls.drain(..5) {
        left.abort();
        assert!(left.await.unwrap_err().is_cancelled());
    }
    holder.rollback().await?;
    for call in calls {
        call.await??;
    }
    let mut stored: Vec<_> = stored(&pool)
        .await?
        .into_iter()
        .map(|m| m.payload)
        .collect();
    stored.sort();
    let waited = stored.iter().filter(|payload| !payload.starts_with('"'));
    assert_eq!(waited.collect::<Vec<_>>(), ["5", "6", "7", "8", "9"]);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_send_that_is_not_polled_delays_no_other(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let store = with_one_writer(&pool).await?;
    let unpolled = json!("unpolled");
    let mut unpolled = Box::pin(single(&store, &unpolled));
    // Under way, and then forgotten for a while.
    let holder = hold_up(&pool).await?;
    until("it is under way", async || {
        let polled = timeout(Duration::from_millis(1), &mut unpolled).await;
        assert!(polled.is_err(), "it ended");
        is_blocked(&pool).await
    })
    .await;
    holder.rollback().await?;
    for n in 0..10 {
        timeout(BOUND, single(&store, &json!(n))).await??;
    }
    timeout(BOUND, unpolled).await??;
    assert_eq!(count(&pool).await?, 11);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_send_dropped_under_way_leaves_the_store_usable(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let store = connect(&pool).await?;
    for n in 0..5 {
        let holder = hold_up(&pool).await?;
        let left = sending(&store, json!("left"));
        blocked_backends(&pool, "advanced", 1).await;
        left.abort();
        assert!(left.await.unwrap_err().is_cancelled());
        holder.rollback().await?;
        timeout(BOUND, single(&store, &json!(n))).await??;
    }
    let stored = stored(&pool).await?;
    let left = stored.iter().filter(|m| m.payload == "\"left\"").count();
    assert_eq!(stored.len() - left, 5);
    assert!(left <= 5);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn an_idle_writer_releases_its_connection(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let options = ConnectOptions::builder().url(url(&pool)).max_connections(4);
    let store = pgqrs::connect_with(options.build()).await?;
    for n in 0..3 {
        let calls: Vec<_> = (0..20).map(|m| sending(&store, json!([n, m]))).collect();
        for call in calls {
            call.await??;
        }
        until("all connections are back", async || {
            store.pool().num_idle() == store.pool().size() as usize
        })
        .await;
    }
    timeout(BOUND, store.pool().close()).await?;
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_writer_whose_row_is_gone_stores_all_the_same(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks", "emails"]).await?;
    let store = connect(&pool).await?;
    let emails = pgqrs::enqueue().message(&"mixed").to("emails");
    for n in 0..3 {
        sqlx::query("delete from pgqrs.writers")
            .execute(&pool)
            .await?;
        single(&store, &json!(n)).await?;
    }
    let payload = json!(3);
    let (alone, mixed) = tokio::join!(single(&store, &payload), emails.execute(&store));
    alone?;
    mixed?;
    let refused = pgqrs::enqueue().message(&1).to("nowhere");
    sqlx::query("delete from pgqrs.writers")
        .execute(&pool)
        .await?;
    let refused = refused.execute(&store).await;
    assert!(matches!(refused, Err(Error::QueueNotFound { .. })));
    assert_eq!(count(&pool).await?, 5);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn sends_that_wait_complete_when_the_last_handle_is_dropped(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let store = with_one_writer(&pool).await?;
    let (holder, taken) = hold_up_behind(&store, &pool).await?;
    let calls: Vec<_> = (0..10).map(|n| sending(&store, json!(n))).collect();
    waiting(&store, 10).await;
    drop(store);
    holder.rollback().await?;
    done(taken).await?;
    for call in calls {
        call.await??;
    }
    assert_eq!(count(&pool).await?, 12);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_runtime_that_ends_takes_only_its_own_sends_along(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let store = with_one_writer(&pool).await?;
    let other = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let holder = hold_up(&pool).await?;
    for (place, payload) in ["alone", "other"].into_iter().enumerate() {
        let on_other = store.clone();
        other.spawn(async move { single(&on_other, &json!(payload)).await });
        blocked_backends(&pool, "advanced", place as i64 + 1).await;
    }
    let on_other = store.clone();
    let pending = other.spawn(async move { single(&on_other, &json!("pending")).await });
    waiting(&store, 1).await;
    let calls: Vec<_> = (0..10).map(|n| sending(&store, json!(n))).collect();
    other.shutdown_background();
    // That task is gone with its runtime; this runtime's sends go on.
    assert!(timeout(BOUND, pending).await?.is_err());
    holder.rollback().await?;
    for call in calls {
        timeout(BOUND, call).await???;
    }
    timeout(BOUND, single(&store, &json!("after"))).await??;
    let stored = stored(&pool).await?;
    let payloads: HashSet<_> = stored.iter().map(|m| &*m.payload).collect();
    assert_eq!(payloads.len(), stored.len(), "each once");
    assert!((0..10).all(|n| payloads.contains(&*n.to_string())));
    assert!(payloads.contains("\"after\""));
    assert!(!payloads.contains("\"pending\""), "it was not sent");
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn rows_of_writers_long_gone_are_pruned_by_the_next_new_one(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let gone = connect(&pool).await?;
    single(&gone, &json!(1)).await?;
    alter(
        &pool,
        "insert into pgqrs.writers (token, sequence) select n, 2 from generate_series(1, 999) n;
         update pgqrs.writers set created_at = created_at - interval '25 hours';
         insert into pgqrs.writers (token, sequence) values (0, 2);",
    )
    .await?;
    let next = connect(&pool).await?;
    single(&next, &json!(2)).await?;
    until("only what is of today is left", async || {
        let left: i64 = sqlx::query_scalar("select count(*) from pgqrs.writers")
            .fetch_one(&pool)
            .await
            .expect("counted");
        left == 2
    })
    .await;
    Ok(())
}
