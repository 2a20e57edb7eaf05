//! Sends and other calls while the server, or a client, vanishes without closing its connections.

use std::pin::Pin;

use super::*;

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_send_outlives_a_silent_server_again_and_again(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let (proxy, url) = Proxy::before(&pool).await?;
    let options = ConnectOptions::builder()
        .url(url)
        .max_connections(2)
        .retry_for(Duration::from_secs(10))
        .acquire_timeout(Duration::from_secs(2));
    let store = pgqrs::connect_with(options.build()).await?;
    let mut ids = Vec::new();
    for n in 0..4 {
        ids.push(single(&store, &json!(n)).await?.get());
        proxy.stall();
        let started = Instant::now();
        ids.push(single(&store, &json!(n)).await?.get());
        assert!(started.elapsed() < Duration::from_secs(10));
    }
    let stored: Vec<_> = stored(&pool).await?.iter().map(|m| m.id).collect();
    ids.sort_unstable();
    assert_eq!(stored, ids);
    Ok(())
}

/// So many futures, side by side in one function, would overflow its stack.
fn boxed<F: IntoFuture>(call: impl FnOnce() -> F) -> Pin<Box<F::IntoFuture>> {
    Box::pin(call().into_future())
}

/// Time stands still meanwhile, but for the jump to whatever is due next.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn every_call_ends_on_a_silent_server_and_the_pool_recovers(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks", "emails"]).await?;
    let (proxy, url) = Proxy::before(&pool).await?;
    let options = ConnectOptions::builder().url(url).max_connections(2);
    let store = pgqrs::connect_with(options.build()).await?;
    let admin = pgqrs::admin(&store);
    let numbers: Vec<_> = (0..20).collect();
    crate::support::send(&store, &numbers).await?;
    let mut deliveries = claim(&store, 10).await?;
    let mut delivery = || deliveries.pop().expect("there are enough");
    let (message, age) = (delivery().id(), Duration::ZERO);
    let producer = pgqrs::producer("host", 1, "tasks").create(&store).await?;
    let consumer = pgqrs::consumer("tasks")
        .identity("host", 1)
        .create(&store)
        .await?;
    let worker = producer.id();
    let (page, all) = (Page::default(), WorkerFilter::default());

    // As long as any call may take.
    const LONGEST: Duration = Duration::from_secs(31 * 60);
    macro_rules! each_ends {
        ($($call:expr;)+) => {$(
            // Its connection is there, and warm.
            drop(store.pool().acquire().await?);
            until("it is back", async || store.pool().num_idle() > 0).await;
            proxy.stall();
            let call = boxed(|| $call);
            tokio::time::pause();
            let ended = timeout(LONGEST, call).await;
            tokio::time::resume();
            let error = match ended {
                Ok(result) => Error::from(result.err().ok_or(stringify!($call))?),
                Err(_) => panic!("it hangs: {}", stringify!($call)),
            };
            let lost = matches!(error, Error::ConnectionLost(_));
            assert!(lost, "{}: {error:?}", stringify!($call));
        )+};
    }
    each_ends! {
        claim(&store, 1);
        consumer.dequeue().execute(&store);
        delivery().ack(&store);
        delivery().archive(&store);
        delivery().nack(&store);
        delivery().retry_in(age, &store);
        delivery().dead_letter("a reason", &store);
        pgqrs::ack_all(vec![delivery(), delivery()], &store);
        store.queue("tasks");
        admin.verify();
        admin.create_queue("reports");
        admin.queue("tasks");
        admin.queues();
        admin.delete_queue("emails");
        admin.purge_queue("emails");
        admin.queue_stats("tasks");
        admin.exact_queue_stats("tasks");
        admin.all_queue_stats();
        admin.health();
        admin.configure_queue("tasks", QueueOptions::default());
        admin.messages("tasks", page);
        admin.cancel("tasks", message).into_future();
        admin.cancel_by_key("tasks", "key").into_future();
        admin.pause_queue("tasks");
        admin.pause_until("tasks", Utc::now());
        admin.resume_queue("tasks");
        admin.close_queue("tasks");
        admin.reopen_queue("tasks");
        admin.reschedule("tasks", message, Utc::now());
        admin.dead_letters("tasks", page);
        admin.dead_letter_count("tasks");
        admin.requeue("tasks", message);
        admin.requeue_all("tasks", age);
        admin.purge_dead_letters("tasks", age);
        admin.archived("tasks", page);
        admin.purge_archive("tasks", age);
        admin.workers(&all);
        admin.worker(worker);
        admin.suspend_worker(worker);
        admin.resume_worker(worker);
        admin.stop_worker(worker);
        admin.remove_worker(worker);
        admin.remove_ended_workers(age);
        admin.held_messages(worker);
        admin.release(worker);
        producer.status();
        producer.is_healthy(age);
        producer.heartbeat();
        producer.suspend();
        producer.resume();
        producer.shutdown();
        pgqrs::producer("host", 2, "tasks").create(&store);
        pgqrs::consumer("tasks").identity("host", 2).create(&store);
    }
    let last = delivery();
    each_ends! {
        last.extend(Duration::from_secs(60));
    }

    for n in 0..10 {
        timeout(BOUND, single(&store, &json!(n))).await??;
        timeout(BOUND, claim(&store, 1)).await??;
    }
    // These connect by themselves.
    proxy.swallow();
    tokio::time::pause();
    let installed = timeout(LONGEST, admin.install()).await;
    tokio::time::resume();
    let installed = installed.expect("it ends");
    assert!(
        matches!(installed, Err(Error::AcquireTimeout { .. })),
        "{installed:?}"
    );
    Ok(())
}

/// In the middle of an answer: its transaction holds the messages that it claims, and isn't over.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn what_a_vanished_client_was_about_to_claim_is_free_soon(pool: PgPool) -> TestResult {
    let direct = with_queues(&pool, &["tasks"]).await?;
    // More than fits into what lies between a server and its client.
    let payloads = vec!["x".repeat(60_000); 200];
    crate::support::send(&direct, &payloads).await?;
    let (proxy, url) = Proxy::before(&pool).await?;
    let mut url: url::Url = url.parse()?;
    let hasty = "-c tcp_user_timeout=1500";
    url.query_pairs_mut().append_pair("options", hasty);
    let options = ConnectOptions::builder().url(url.as_str());
    let store = pgqrs::connect_with(options.build()).await?;
    // So that its connection knows the statement, and is trusted.
    assert_eq!(claim(&store, 1).await?.len(), 1);
    until("it is back", async || store.pool().num_idle() == 1).await;
    proxy.hold();
    let vanished = tokio::spawn(async move { claim(&store, 200).await });
    in_wait(&pool, "the server can't say any more", "ClientWrite").await;
    assert!(claim(&direct, 200).await?.is_empty());
    let mut free = Vec::new();
    until("they are free", async || {
        free = claim(&direct, 200).await.expect("claimed");
        !free.is_empty()
    })
    .await;
    assert_eq!(free.len(), 199);
    assert!(free.iter().all(|delivery| delivery.attempt() == 1));
    vanished.abort();
    Ok(())
}

/// Its transaction would hold the writer's row, so that no query could find out whether it is stored.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_large_batch_outlives_silence_in_the_middle_of_its_transaction(
    pool: PgPool,
) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    poison(&pool, "1500", "perform pg_sleep(0.3)").await?;
    let (proxy, url) = Proxy::before(&pool).await?;
    let options = ConnectOptions::builder()
        .url(url)
        .retry_for(Duration::from_secs(20));
    let store = pgqrs::connect_with(options.build()).await?;
    let batch = tokio::spawn(async move {
        let batch = pgqrs::enqueue().messages(&(0..2_500).collect::<Vec<_>>());
        batch.to("tasks").execute(&store).await
    });
    in_wait(&pool, "its second statement is under way", "PgSleep").await;
    proxy.stall();
    let ids = timeout(Duration::from_secs(30), batch).await???;
    let stored: Vec<_> = stored(&pool).await?.iter().map(|m| m.id).collect();
    let ids: Vec<_> = ids.iter().map(|id| id.get()).collect();
    assert_eq!(stored, ids);
    Ok(())
}
