//! Pools that are closed, and consumers that are stopped, in the middle of their work.

use super::*;

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_pool_that_is_closed_while_tasks_send_closes_at_once_and_they_are_refused(
    pool: PgPool,
) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let mut stored = 0;
    for max_connections in [1, 2, 10] {
        let store = with_connections(&pool, max_connections).await?;
        let mut senders = Senders::start(&store, 8);
        until("they are at it", async || senders.sent() > 200).await;
        assert_eq!(senders.refused(), 0);
        timeout(PROMPTLY, store.pool().close()).await?;
        let (sent, refused) = (senders.sent(), senders.refused());
        until("they go on, and are refused", async || {
            senders.refused() > refused + 200
        })
        .await;
        assert_eq!(senders.sent(), sent);
        senders.stop().await?;
        stored += sent;
        assert_eq!(count(&pool).await?, stored as i64);
    }
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_consumer_ends_with_closed_when_its_pool_is_closed(pool: PgPool) -> TestResult {
    const FAR: Duration = Duration::from_secs(600);
    let store = with_connections(&pool, 10).await?;
    store.queue("tasks").await?;
    let idle = start(consumer().create(&store).await?, Seen::default().handler());
    let finishing = busy(&store, "finishing", FAR).await?;
    let endless = busy(&store, "endless", Duration::from_secs(2)).await?;
    timeout(PROMPTLY, store.pool().close()).await?;
    let ended = timeout(PROMPTLY, idle.task).await??;
    assert!(matches!(ended, Err(Error::Closed)), "{ended:?}");
    let ended = endless.ends_within(Duration::from_secs(2)).await?;
    assert!(matches!(ended, Err(Error::Closed)), "{ended:?}");
    // Its handlers are waited for, but nothing that they say can be settled.
    assert!(!finishing.run.is_finished());
    finishing.gate.add_permits(2);
    let ended = timeout(PROMPTLY, finishing.run).await??;
    assert!(matches!(ended, Err(Error::Closed)), "{ended:?}");
    Ok(())
}

/// A settlement waits for a lock, on a connection of the reserve since those of the pool are in use.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_pool_is_closed_at_once_while_its_reserve_is_in_use(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let options = ConnectOptions::builder()
        .url(url(&pool))
        .application_name("reserve")
        .max_connections(2);
    let store = pgqrs::connect_with(options.build()).await?;
    let busy = busy(&store, "tasks", Duration::from_secs(5)).await?;
    let mut holder = pool.begin().await?;
    sqlx::query("select from pgqrs.messages for update")
        .execute(&mut *holder)
        .await?;
    let all = [store.pool().acquire().await?, store.pool().acquire().await?];
    busy.gate.add_permits(2);
    blocked_backends(&pool, "delete from pgqrs.messages", 1).await;
    drop(all);
    timeout(PROMPTLY, store.pool().close()).await?;
    let ended = busy.ends_within(Duration::from_secs(5)).await?;
    assert!(matches!(ended, Err(Error::Closed)), "{ended:?}");
    holder.rollback().await?;
    until("the reserve is closed too", async || {
        let left: i64 = sqlx::query_scalar(
            "select count(*) from pg_stat_activity where application_name = 'reserve'
             and datname = current_database()",
        )
        .fetch_one(&pool)
        .await
        .expect("pg_stat_activity can be read");
        left == 0
    })
    .await;
    Ok(())
}

#[tokio::test]
async fn while_the_server_is_away_a_consumer_ends_within_its_deadline() -> TestResult {
    let (two, five, far) = (
        Duration::from_secs(2),
        Duration::from_secs(5),
        Duration::from_secs(25),
    );
    let server = Server::start().await?;
    let options = || {
        let options = ConnectOptions::builder().url(server.url());
        pgqrs::connect_with(options.install(true).build())
    };
    let (store, closed) = (options().await?, options().await?);
    let within_two = busy(&store, "two", two).await?;
    let within_five = busy(&store, "five", five).await?;
    let after_close = busy(&closed, "closed", two).await?;
    let aborted = busy(&store, "aborted", far).await?;
    let stopped_and_aborted = busy(&store, "twice", far).await?;
    server.down("immediate")?;
    // One of the two has finished, and can't be settled.
    for busy in [
        &within_two,
        &within_five,
        &after_close,
        &aborted,
        &stopped_and_aborted,
    ] {
        busy.gate.add_permits(1);
    }
    timeout(BOUND, closed.pool().close()).await?;
    for busy in [
        &within_two,
        &within_five,
        &after_close,
        &stopped_and_aborted,
    ] {
        busy.handle.stop();
    }
    for busy in [&aborted, &stopped_and_aborted] {
        busy.handle.abort();
    }
    let (within_two, within_five, after_close, aborted, stopped_and_aborted) = tokio::try_join!(
        within_two.ends_within(two),
        within_five.ends_within(five),
        after_close.ends_within(two),
        aborted.ends_within(two),
        stopped_and_aborted.ends_within(two),
    )?;
    assert!(after_close.is_err() || after_close.is_ok_and(|report| report.unknown == 2));
    for ended in [within_two, within_five, aborted, stopped_and_aborted] {
        let report = ended?;
        assert_eq!((report.unknown, report.done), (2, 0), "{report:?}");
    }
    Ok(())
}

/// The server takes what it is sent, and says nothing any more.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn while_the_server_is_silent_a_consumer_ends_within_its_deadline(
    pool: PgPool,
) -> TestResult {
    let deadline = Duration::from_secs(3);
    let (proxy, url) = Proxy::before(&pool).await?;
    let store = pgqrs::connect(&url).await?;
    let stopped = busy(&store, "stopped", deadline).await?;
    let aborted = busy(&store, "aborted", BOUND).await?;
    proxy.swallow();
    for busy in [&stopped, &aborted] {
        busy.gate.add_permits(1);
    }
    stopped.handle.stop();
    aborted.handle.abort();
    let (stopped, aborted) = tokio::try_join!(
        stopped.ends_within(deadline),
        aborted.ends_within(Duration::from_secs(2)),
    )?;
    for ended in [stopped, aborted] {
        assert_eq!(ended?.unknown, 2);
    }
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn an_abort_ends_a_consumer_at_once_and_releases_its_messages(pool: PgPool) -> TestResult {
    let store = with_connections(&pool, 10).await?;
    let at_once = Duration::from_secs(2);
    let first = busy(&store, "first", BOUND).await?;
    let second = busy(&store, "second", BOUND).await?;
    second.handle.stop();
    until("it stops, and waits for its handlers", async || {
        let stopping = pgqrs::admin(&store).queue_stats("second").await;
        stopping.is_ok_and(|stats| stats.leased == 2) && !second.run.is_finished()
    })
    .await;
    first.handle.abort();
    second.handle.abort();
    let (first, second) =
        tokio::try_join!(first.ends_within(at_once), second.ends_within(at_once))?;
    for ended in [first, second] {
        let report = ended?;
        assert_eq!((report.released, report.unknown), (2, 0), "{report:?}");
    }
    for queue in ["first", "second"] {
        let stats = pgqrs::admin(&store).queue_stats(queue).await?;
        assert_eq!((stats.ready.value, stats.leased.value), (2, 0));
        // Its identity is free.
        pgqrs::consumer(queue)
            .identity("my-service", 3001)
            .create(&store)
            .await?;
    }
    Ok(())
}
