//! Chunks that end in the middle: leases that are lost, shutdowns, refusals, crashes.

use super::*;

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_lease_that_is_lost_in_the_middle_concerns_its_message_alone(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let ids = send(&store, &[1, 2, 3]).await?;
    let (gate, begun) = (gate(), Arc::default());
    // With its only handler at work, it claims nothing.
    let consumer = consumer().concurrency(1).prefetch(0);
    let consumer = consumer.create(&store).await?;
    let running = start_chunks(consumer, 3, NEVER, waits_at(&gate, &begun));
    all_have_begun(&begun, 3).await;
    expire(&pool, ids[1]).await?;
    let others = newcomer(&pool);
    let taken = one(&others).await?;
    assert_eq!(taken.id(), ids[1]);
    gate.add_permits(1);
    until("the others are acknowledged", async || {
        count(&pool).await.expect("counted") == 1
    })
    .await;
    assert_eq!(numbers(&running.stop().await?), [2, 0, 0, 0, 0, 1, 0]);
    taken.ack(&others).await?;
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_graceful_stop_lets_a_chunk_finish_and_releases_one_that_waits(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    send(&store, &[0; 13]).await?;
    let (gate, begun) = (gate(), Arc::default());
    let consumer = consumer().create(&store).await?;
    let running = start_chunks(consumer, 10, NEVER, waits_at(&gate, &begun));
    all_have_begun(&begun, 10).await;
    let admin = pgqrs::admin(&store);
    let leased = async |leased: i64| {
        until("these are leased", async || {
            let stats = admin.queue_stats("tasks").await.expect("counted");
            stats.leased == leased as u64
        })
        .await;
    };
    leased(13).await;
    running.handle.stop();
    leased(10).await;
    gate.add_permits(1);
    assert_eq!(numbers(&running.task.await??), [10, 0, 0, 0, 3, 0, 0]);
    let attempts: Vec<_> = failures(&pool)
        .await?
        .into_iter()
        .map(|(_, attempt, _)| attempt)
        .collect();
    assert_eq!(attempts, [0, 0, 0]);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn an_aborted_chunk_is_released_but_for_what_is_settled_one_by_one(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    send(&store, &[1, 2, 3]).await?;
    let begun = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&begun);
    let consumer = consumer().create(&store).await?;
    let running = start_chunks(consumer, 3, NEVER, move |chunk| {
        let counter = Arc::clone(&counter);
        async move {
            chunk.ack(0);
            chunk.dead_letter(1, "no such customer");
            counter.fetch_add(3, Ordering::SeqCst);
            std::future::pending::<Outcome>().await
        }
    });
    all_have_begun(&begun, 3).await;
    running.handle.abort();
    assert_eq!(numbers(&running.task.await??), [1, 0, 0, 1, 1, 0, 0]);
    assert_eq!(failures(&pool).await?, [("3".to_owned(), 1, None)]);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_settlement_that_the_server_refuses_for_one_holds_up_no_other(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    sqlx::raw_sql(
        r#"create function refuse() returns trigger language plpgsql as
               $$ begin
                   if old.payload::text = '"poison"' then raise 'refused'; end if;
                   return old;
               end $$;
           create trigger refuse before delete on pgqrs.messages
               for each row execute function refuse();"#,
    )
    .execute(&pool)
    .await?;
    let mut payloads = vec!["fine"; 49];
    payloads.insert(20, "poison");
    send(&store, &payloads).await?;
    let handled = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&handled);
    let consumer = consumer()
        .lease(Duration::from_secs(600))
        .create(&store)
        .await?;
    let running = start_chunks(consumer, 50, NEVER, move |chunk| {
        counter.fetch_add(chunk.len(), Ordering::SeqCst);
        std::future::ready(Outcome::Done)
    });
    until("only that one is left", async || {
        count(&pool).await.expect("counted") == 1
    })
    .await;
    assert_eq!(numbers(&running.stop().await?), [49, 0, 0, 0, 0, 0, 1]);
    assert_eq!(handled.load(Ordering::SeqCst), 50);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn what_a_process_held_that_is_killed_in_a_chunk_is_handled_by_another(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    send(&store, &(0..20).collect::<Vec<u64>>()).await?;
    let mut process = Process::of(&pool, "chunks_process")?;
    let mut held = 0;
    while held < 20 {
        let (word, messages) = process.said().await?.expect("it runs until it is killed");
        assert_eq!(word, "holds");
        held += messages.parse::<usize>()?;
    }
    // SIGKILL.
    process.child.kill().await?;
    assert_eq!(count(&pool).await?, 20);
    let seen = Seen::default();
    let all = seen.clone();
    let consumer = consumer().create(&store).await?;
    let running = start_chunks(consumer, 10, SOON, move |chunk| {
        for delivery in &chunk {
            assert_eq!(delivery.attempt(), 2);
            all.note(delivery.raw_payload());
        }
        std::future::ready(Outcome::Done)
    });
    drained(&pool).await;
    assert_eq!(running.stop().await?.done, 20);
    assert_eq!(seen.len(), 20);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn chunks_go_on_when_connections_are_killed(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let store = connect(&pool).await?;
    send(&store, &(0..500).collect::<Vec<u64>>()).await?;
    let seen = Seen::default();
    let all = seen.clone();
    let consumer = consumer()
        .lease(Duration::from_secs(2))
        .create(&store)
        .await?;
    let running = start_chunks(consumer, 20, SOON, move |chunk| {
        let all = all.clone();
        async move {
            for delivery in &chunk {
                all.note(delivery.raw_payload());
            }
            Outcome::Done
        }
    });
    let mut left = count(&pool).await?;
    while left > 0 {
        let killed = "select pg_terminate_backend(pid) from pg_stat_activity
                      where datname = current_database() and application_name = 'pgqrs'";
        sqlx::query(killed).execute(&pool).await?;
        until("fewer are left", async || {
            count(&pool).await.expect("counted") < left.max(1)
        })
        .await;
        left = count(&pool).await?;
    }
    running.stop().await?;
    assert_eq!(seen.len(), 500);
    Ok(())
}
