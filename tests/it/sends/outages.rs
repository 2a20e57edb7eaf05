//! Sends while the server restarts, is away, refuses connections, or only reads.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_a_server_that_is_away_takes_bounded_memory() -> TestResult {
    let server = Server::start().await?;
    let installed = ConnectOptions::builder().url(server.url()).install(true);
    pgqrs::connect_with(installed.build())
        .await?
        .queue("tasks")
        .await?;
    let options = |retry_for| {
        ConnectOptions::builder()
            .url(server.url())
            .acquire_timeout(Duration::from_millis(300))
            .retry_for(retry_for)
            .build()
    };
    let hasty = pgqrs::connect_with(options(Duration::from_secs(1))).await?;
    let patient = pgqrs::connect_with(options(Duration::from_secs(60))).await?;
    server.down("fast")?;
    let payload = json!("x".repeat(2 << 20));
    let start =
        |store: &Store| -> Vec<_> { (0..100).map(|_| sending(store, payload.clone())).collect() };

    let started = Instant::now();
    let calls = start(&hasty);
    let mut most = 0;
    let ended = until_within(BOUND * 3, async || {
        most = most.max(debug_field(&hasty, "waiting_bytes"));
        calls.iter().all(JoinHandle::is_finished)
    })
    .await;
    assert!(ended, "sends still wait after {:?}", started.elapsed());
    assert!(most <= 64 << 20, "{most} bytes");
    assert!(most > 8 << 20, "{most} bytes");
    for call in calls {
        let failed = call.await?.unwrap_err();
        assert!(
            matches!(
                failed,
                Error::NotStored { .. } | Error::AcquireTimeout { .. }
            ),
            "{failed:?}"
        );
    }

    let calls = start(&patient);
    until("as many wait as there is room for", async || {
        debug_field(&patient, "waiting_bytes") > 40 << 20
    })
    .await;
    server.up()?;
    let mut ids = HashSet::new();
    for call in calls {
        assert!(debug_field(&patient, "waiting_bytes") <= 64 << 20);
        ids.insert(call.await??);
    }
    assert_eq!(ids.len(), 100);
    let direct = PgPool::connect(&server.url()).await?;
    assert_eq!(count(&direct).await?, 100);
    direct.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn restarts_of_the_server_lose_nothing_and_store_nothing_twice() -> TestResult {
    let server = Arc::new(Server::start().await?);
    let options = ConnectOptions::builder().url(server.url()).install(true);
    let store = pgqrs::connect_with(options.build()).await?;
    store.queue("tasks").await?;
    alter(
        store.pool(),
        "create table log (id bigint, payload text);
         create function log() returns trigger language plpgsql as
             $$ begin insert into public.log values (new.id, new.payload::text); return new; end $$;
         create trigger log after insert on pgqrs.messages for each row execute function log();",
    )
    .await?;
    let (over, stored) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let flows = async |stored: &AtomicUsize| {
        let before = stored.load(Ordering::Relaxed);
        until("sends go on", async || {
            stored.load(Ordering::Relaxed) > before + 100
        })
        .await;
    };
    let mut senders = JoinSet::new();
    for sender in 0..16 {
        let (store, over, stored) = (store.clone(), Arc::clone(&over), Arc::clone(&stored));
        senders.spawn(async move {
            let mut sent = Vec::new();
            for n in 0.. {
                if over.load(Ordering::Relaxed) {
                    break;
                }
                let payload = json!([sender, n]);
                let id = single(&store, &payload).await?;
                sent.push((id.get(), payload.to_string()));
                stored.fetch_add(1, Ordering::Relaxed);
            }
            Ok::<_, Error>(sent)
        });
    }
    for mode in ["fast", "immediate"] {
        flows(&stored).await;
        server.restart_beside(mode).await?;
    }
    flows(&stored).await;
    over.store(true, Ordering::Relaxed);
    let mut sent = Vec::new();
    while let Some(of_sender) = senders.join_next().await {
        sent.extend(of_sender??);
    }
    let mut log: Vec<(i64, String)> = sqlx::query_as("select id, payload from log")
        .fetch_all(store.pool())
        .await?;
    sent.sort();
    log.sort();
    assert!(sent.len() > 100);
    assert_eq!(log, sent);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn an_answer_that_is_lost_for_ever_is_an_unknown_outcome_with_the_ids(
    pool: PgPool,
) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let (proxy, url) = Proxy::before(&pool).await?;
    let options = ConnectOptions::builder()
        .url(url)
        .acquire_timeout(Duration::from_millis(300))
        .retry_for(Duration::from_millis(1_200));
    let store = pgqrs::connect_with(options.build()).await?;
    // Its connection knows the statement: the answer to preparing it would be lost, too.
    let batch = pgqrs::enqueue().messages(&["", ""]).to("tasks").delay(60);
    batch.execute(&store).await?;
    warm(&store).await?;
    proxy.swallow();
    let started = Instant::now();
    let batch = pgqrs::enqueue().messages(&["a", "b"]).to("tasks");
    let unknown = batch.execute(&store).await.unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(6));
    let Error::OutcomeUnknown { ids, .. } = &unknown else {
        panic!("{unknown:?}");
    };
    let stored = stored(&pool).await?;
    let stored: Vec<_> = stored[3..].iter().map(|m| (m.id, &*m.payload)).collect();
    let ids: Vec<_> = ids.iter().map(|id| id.get()).collect();
    assert_eq!(stored, [(ids[0], "\"a\""), (ids[1], "\"b\"")]);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_send_waits_while_the_server_only_reads(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    // This session can still write.
    let mut writable = pool.acquire().await?;
    let options = ConnectOptions::builder().url(url(&pool));
    let options = options.acquire_timeout(Duration::from_millis(500)).build();
    let store = pgqrs::connect_with(options).await?;
    single(&store, &json!("before")).await?;
    set(&pool, "set default_transaction_read_only = on").await?;
    end_sessions(&pool).await?;
    let mut call = sending(&store, json!("during"));
    let early = timeout(Duration::from_millis(500), &mut call).await;
    assert!(early.is_err(), "{early:?}");
    let (database,): (String,) = sqlx::query_as("select quote_ident(current_database())")
        .fetch_one(&mut *writable)
        .await?;
    let reset = format!("alter database {database} reset default_transaction_read_only");
    sqlx::raw_sql(sqlx::AssertSqlSafe(reset))
        .execute(&mut *writable)
        .await?;
    timeout(BOUND, call).await???;
    assert_eq!(count(&pool).await?, 2);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_server_without_a_connection_to_spare_is_waited_for(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let (user, to) = user(&pool).await?;
    let options = |retry_for| {
        ConnectOptions::builder()
            .url(to.clone())
            .acquire_timeout(Duration::from_millis(300))
            .retry_for(retry_for)
            .build()
    };
    let hasty = pgqrs::connect_with(options(Duration::from_secs(1))).await?;
    let patient = pgqrs::connect_with(options(Duration::from_secs(30))).await?;
    // Neither has a connection yet: of a send whose connection breaks the outcome would be unknown.
    alter(&pool, &format!("alter role {user} connection limit 0")).await?;
    let waits = sending(&patient, json!(2));
    let started = Instant::now();
    let calls: Vec<_> = (0..20).map(|n| sending(&hasty, json!(n))).collect();
    for call in calls {
        let failed = call.await?.unwrap_err();
        let why = source(&failed);
        assert!(
            failed.is_retryable()
                && matches!(why, Error::AcquireTimeout { .. } | Error::Connect(_)),
            "{failed:?}"
        );
    }
    assert!(started.elapsed() < Duration::from_secs(5));
    assert!(!waits.is_finished());
    alter(&pool, &format!("alter role {user} connection limit -1")).await?;
    timeout(BOUND, waits).await???;
    assert_eq!(count(&pool).await?, 1);
    hasty.pool().close().await;
    patient.pool().close().await;
    forget(&pool, &user).await
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_refused_login_is_reported_at_once(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let (user, to) = user(&pool).await?;
    let fresh = pgqrs::connect(&to).await?;
    let warm = pgqrs::connect(&to).await?;
    single(&warm, &json!(1)).await?;
    alter(&pool, &format!("alter role {user} nologin")).await?;
    end_sessions(&pool).await?;
    let started = Instant::now();
    let refused = single(&fresh, &json!(2)).await.unwrap_err();
    assert!(matches!(refused, Error::Connect(_)), "{refused:?}");
    // Its connection broke under the send, and no new one is accepted to query the outcome.
    let refused = single(&warm, &json!(3)).await.unwrap_err();
    assert!(matches!(source(&refused), Error::Connect(_)), "{refused:?}");
    assert!(started.elapsed() < Duration::from_secs(8));
    assert_eq!(count(&pool).await?, 1);
    forget(&pool, &user).await
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_dropped_database_is_reported_at_once(pool: PgPool) -> TestResult {
    let other = format!("other_{}", rand::random::<u32>());
    alter(&pool, &format!("create database {other}")).await?;
    let mut to: url::Url = url(&pool).parse()?;
    to.set_path(&other);
    let options = ConnectOptions::builder().url(to.as_str()).install(true);
    let store = pgqrs::connect_with(options.build()).await?;
    store.queue("tasks").await?;
    single(&store, &json!(1)).await?;
    alter(&pool, &format!("drop database {other} with (force)")).await?;
    let started = Instant::now();
    for n in 0..3 {
        let refused = single(&store, &json!(n)).await.unwrap_err();
        assert!(matches!(source(&refused), Error::Connect(_)), "{refused:?}");
    }
    assert!(started.elapsed() < Duration::from_secs(8));
    Ok(())
}
