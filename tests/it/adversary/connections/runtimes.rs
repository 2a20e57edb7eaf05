//! Several tokio runtimes share a store, and some of them end.

use super::*;

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_runtime_that_rests_with_sends_under_way_holds_up_no_other_ones_sends(
    pool: PgPool,
) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let options = ConnectOptions::builder()
        .url(url(&pool))
        .retry_for(Duration::from_secs(600));
    let store = pgqrs::connect_with(options.build()).await?;
    let holder = hold_up(&pool).await?;
    // One is its own writer, the store's two writers have others, and the rest is pending behind them.
    let begun = Arc::new(Semaphore::new(0));
    let resting = spawn_blocking({
        let (store, begun) = (store.clone(), Arc::clone(&begun));
        move || -> std::io::Result<_> {
            let runtime = current_thread()?;
            let calls: Vec<_> = (0..8)
                .map(|n| {
                    let store = store.clone();
                    runtime.spawn(async move { single(&store, &format!("resting {n}")).await })
                })
                .collect();
            runtime.block_on(passed(&begun));
            Ok((runtime, calls))
        }
    });
    blocked_backends(&pool, "advanced", 3).await;
    begun.add_permits(1);
    let (runtime, calls) = resting.await??;
    holder.rollback().await?;

    // Far less than `retry_for`, or what a statement's answer is waited for.
    for n in 0..20 {
        timeout(BOUND, single(&store, &format!("driven {n}"))).await??;
    }
    // Driven again, they come to their ends.
    let driven = spawn_blocking(move || {
        runtime.block_on(async {
            let mut ends = Vec::new();
            for call in calls {
                ends.push(timeout(BOUND, call).await);
            }
            ends
        })
    });
    for end in driven.await? {
        end???;
    }
    let stored = stored(&pool).await?;
    let mut payloads: Vec<_> = stored.iter().map(|m| &*m.payload).collect();
    payloads.sort_unstable();
    payloads.dedup();
    assert_eq!((payloads.len(), stored.len()), (28, 28), "each once");
    Ok(())
}

type Call = Pin<Box<dyn Future<Output = pgqrs::Result<MessageId>> + Send>>;

/// So that it runs on this runtime, even if it is awaited on another one later.
async fn poll_once(call: &mut Call) {
    poll_fn(|context| {
        assert!(call.as_mut().poll(context).is_pending());
        Poll::Ready(())
    })
    .await;
}

fn is_not_stored(error: &Error) -> bool {
    matches!(error, Error::NotStored { source, .. } if is_of_an_ended_runtime(source))
}

fn is_of_an_ended_runtime(error: &Error) -> bool {
    let Error::ConnectionLost(source) = error else {
        return false;
    };
    source
        .to_string()
        .contains("runtime that was sending has ended")
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn when_a_runtime_ends_the_callers_of_its_sends_learn_that_and_what_became_of_them(
    pool: PgPool,
) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let store = with_connections(&pool, 10).await?;
    single(&store, "before").await?;
    let holder = hold_up(&pool).await?;
    let call = |payload: &'static str| -> Call {
        let store = store.clone();
        Box::pin(async move { single(&store, payload).await })
    };
    let mut direct = call("direct");
    // As many as the store has writers.
    let mut in_flight = [call("first"), call("second")];
    let mut pending = [call("pending"), call("pending")];
    let (taken, added) = (gate(), gate());
    let ended = spawn_blocking({
        let (taken, added) = (Arc::clone(&taken), Arc::clone(&added));
        move || -> std::io::Result<_> {
            let runtime = current_thread()?;
            let calls = runtime.block_on(async move {
                // A task of this runtime's: it is its own writer, and ends with it.
                poll_once(&mut direct).await;
                tokio::spawn(direct);
                for call in &mut in_flight {
                    poll_once(call).await;
                    // Its writer takes it alone.
                    passed(&taken).await;
                }
                for call in &mut pending {
                    poll_once(call).await;
                }
                passed(&added).await;
                (in_flight, pending)
            });
            drop(runtime);
            Ok(calls)
        }
    });
    for blocked in [2, 3] {
        blocked_backends(&pool, "advanced", blocked).await;
        taken.add_permits(1);
    }
    added.add_permits(1);
    let (in_flight, pending) = ended.await??;
    for call in in_flight {
        let unknown = timeout(BOUND, call).await?.unwrap_err();
        let Error::OutcomeUnknown { ids, source } = &unknown else {
            panic!("{unknown:?}");
        };
        assert!(
            ids.len() == 1 && is_of_an_ended_runtime(source),
            "{unknown:?}"
        );
    }
    for call in pending {
        let not_stored = timeout(BOUND, call).await?.unwrap_err();
        assert!(is_not_stored(&not_stored), "{not_stored:?}");
    }
    holder.rollback().await?;
    single(&store, "after").await?;
    let stored = stored(&pool).await?;
    let times = |payload: &str| {
        let payload = format!("\"{payload}\"");
        stored.iter().filter(|m| m.payload == payload).count()
    };
    assert_eq!(
        (times("before"), times("pending"), times("after")),
        (1, 0, 1)
    );
    for payload in ["direct", "first", "second"] {
        assert!(times(payload) <= 1, "{payload}");
    }
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_send_that_waits_for_a_connection_when_its_runtime_ends_is_not_stored(
    pool: PgPool,
) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let store = with_connections(&pool, 1).await?;
    let only = store.pool().acquire().await?;
    let call = || -> Call {
        let store = store.clone();
        Box::pin(async move { single(&store, "sent").await })
    };
    let (mut direct, mut taken) = (call(), call());
    let ended = spawn_blocking(move || -> std::io::Result<_> {
        let runtime = current_thread()?;
        runtime.block_on(async {
            poll_once(&mut direct).await;
            poll_once(&mut taken).await;
            // Its writer takes it, and waits for a connection.
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
        });
        drop((runtime, direct));
        Ok(taken)
    });
    let not_stored = timeout(BOUND, ended.await??).await?.unwrap_err();
    assert!(is_not_stored(&not_stored), "{not_stored:?}");
    drop(only);
    single(&store, "sent").await?;
    assert_eq!(count(&pool).await?, 1);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_runtime_that_ends_keeps_no_connection_of_the_pool(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let store = with_connections(&pool, 4).await?;
    single(&store, "here").await?;
    for _ in 0..3 {
        let store = store.clone();
        let sent = spawn_blocking(move || {
            // It ends before its idle writer has returned its connection.
            current_thread().map(|runtime| runtime.block_on(single(&store, "there")))
        });
        sent.await???;
    }
    let mut all = Vec::new();
    for _ in 0..4 {
        all.push(timeout(BOUND, store.pool().acquire()).await??);
    }
    drop(all);
    timeout(BOUND, store.pool().close()).await?;
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_store_of_a_pool_is_made_outside_of_a_runtime(pool: PgPool) -> TestResult {
    let store = std::thread::spawn(move || Store::from(pool)).join();
    let store = store.map_err(|_| "it panicked")?;
    store.queue("tasks").await?;
    single(&store, "sent").await?;
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_runtime_that_ends_takes_no_other_ones_heartbeats_along(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let store = with_connections(&pool, 10).await?;
    // Its heartbeats begin on this runtime, and those of others join them.
    let runtime = Runtime::new()?;
    let first = runtime.spawn({
        let store = store.clone();
        async move { pgqrs::producer("host", 1, "tasks").create(&store).await }
    });
    let _first = first.await??;
    let often = consumer().heartbeat_interval(Duration::from_millis(100));
    let running = start(often.create(&store).await?, Seen::default().handler());
    runtime.shutdown_background();
    let heartbeat = async || -> sqlx::Result<DateTime<Utc>> {
        sqlx::query_scalar("select heartbeat_at from pgqrs.workers where kind = 'consumer'")
            .fetch_one(&pool)
            .await
    };
    for _ in 0..3 {
        let last = heartbeat().await?;
        until("there is another heartbeat", async || {
            heartbeat().await.is_ok_and(|now| now > last)
        })
        .await;
    }
    running.stop().await?;
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_runtime_that_ends_does_not_keep_other_consumers_from_being_woken(
    pool: PgPool,
) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let store = with_connections(&pool, 10).await?;
    let listeners = async || -> Vec<i32> {
        let listening = "select pid from pg_stat_activity
             where datname = current_database() and query like 'LISTEN%'";
        let pids = sqlx::query_scalar(listening).fetch_all(&pool).await;
        pids.expect("read")
    };
    let mut registered = Vec::new();
    for port in [1, 2] {
        let builder = prepare(pgqrs::consumer("tasks").identity("my-service", port));
        // It claims now and then, but finds nothing in time by itself.
        registered.push(builder.poll_interval(BOUND).create(&store).await?);
    }
    // The first one starts to listen, for both.
    let runtime = Runtime::new()?;
    let seen = Seen::default();
    let first = registered.remove(0).run(seen.handler());
    let first = runtime.spawn(first);
    until("one listens", async || listeners().await.len() == 1).await;
    let ended = listeners().await;
    let second = start(registered.remove(0), seen.handler());
    runtime.shutdown_background();
    assert!(first.await.is_err());
    until("its session has ended", async || {
        listeners().await.iter().all(|pid| !ended.contains(pid))
    })
    .await;
    // What this store sends wakes the other without LISTEN, and then it listens again, if it doesn't already.
    send(&store, &["first"]).await?;
    drained(&pool).await;
    until("it listens again", async || listeners().await.len() == 1).await;
    send(&with_connections(&pool, 2).await?, &["second"]).await?;
    until("it was woken by another", async || seen.len() == 2).await;
    second.stop().await?;
    Ok(())
}
