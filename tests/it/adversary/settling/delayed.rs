//! Settlements that can't be made for a while, or never.

use super::*;

/// Nothing can be put into the archive until this transaction ends. Leases can be extended, and messages claimed.
async fn lock_archive(pool: &PgPool) -> sqlx::Result<Transaction<'static, Postgres>> {
    let mut lock = pool.begin().await?;
    sqlx::query("lock table pgqrs.archive in access exclusive mode")
        .execute(&mut *lock)
        .await?;
    Ok(lock)
}

/// A handler whose deliveries can't be settled while the archive is locked.
fn archive(
    seen: &Seen,
) -> impl Fn(Delivery<Value>) -> std::future::Ready<Outcome> + Send + Sync + 'static + use<> {
    let seen = seen.clone();
    move |delivery| {
        seen.note(delivery.raw_payload());
        std::future::ready(Outcome::Archive)
    }
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn what_is_handled_keeps_its_lease_until_it_is_settled(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let store = connect(&pool).await?;
    send(&store, &(0..20).collect::<Vec<_>>()).await?;
    let lock = lock_archive(&pool).await?;
    let seen = Seen::default();
    let lease = Duration::from_millis(1_500);
    let running = start(
        consumer().lease(lease).create(&store).await?,
        archive(&seen),
    );
    until("all are handled", async || seen.len() == 20).await;
    let first = leases_end(&pool).await;
    let others = newcomer(&pool);
    until("four leases have passed", async || {
        assert!(claim(&others, 20).await.expect("claimed").is_empty());
        leases_end(&pool).await > first + lease * 4
    })
    .await;
    lock.rollback().await?;
    drained(&pool).await;
    let report = running.stop().await?;
    assert_eq!(places(&pool).await?, (0, 0, 20));
    assert!(seen.times().values().all(|times| *times == 1));
    // What an abandoned statement has done after all is unknown.
    assert_eq!(report.archived + report.unknown, 20, "{report:?}");
    assert_eq!(deliveries(&report), 20, "{report:?}");
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn claims_stop_while_nothing_can_be_settled(pool: PgPool) -> TestResult {
    const MESSAGES: usize = 5_000;
    with_queues(&pool, &["tasks"]).await?;
    let store = connect(&pool).await?;
    send(&store, &(0..MESSAGES).collect::<Vec<_>>()).await?;
    let lock = lock_archive(&pool).await?;
    let seen = Seen::default();
    let lease = Duration::from_secs(3);
    let running = start(
        consumer().lease(lease).prefetch(50).create(&store).await?,
        archive(&seen),
    );
    until("some are handled", async || seen.len() > 0).await;
    let first = leases_end(&pool).await;
    until("several leases have passed", async || {
        leases_end(&pool).await > first + lease * 2
    })
    .await;
    // A thousand whose settlement seems to be on its way; those that are held beside them; those claimed at last.
    let handled = seen.len();
    assert!(handled <= 1_000 + 3 * 58, "{handled} are handled");
    lock.rollback().await?;
    drained(&pool).await;
    let report = running.stop().await?;
    assert_eq!(
        (seen.len(), places(&pool).await?.2),
        (MESSAGES, MESSAGES as i64)
    );
    let times: u32 = seen.times().values().sum();
    assert_eq!(deliveries(&report), u64::from(times), "{report:?}");
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_stop_ends_in_time_while_nothing_can_be_settled(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let store = connect(&pool).await?;
    send(&store, &(0..20).collect::<Vec<_>>()).await?;
    let lock = lock_archive(&pool).await?;
    let seen = Seen::default();
    let consumer = consumer().create(&store).await?;
    let handle = consumer.handle();
    let run = consumer.run(archive(&seen));
    let run = run.shutdown_deadline(Duration::from_secs(2));
    let running = tokio::spawn(run);
    until("all are handled", async || seen.len() == 20).await;
    let stopped = Instant::now();
    handle.stop();
    let report = timeout(BOUND, running).await???;
    assert!(stopped.elapsed() < Duration::from_secs(10));
    assert_eq!(
        (report.unknown, deliveries(&report)),
        (20, 20),
        "{report:?}"
    );
    lock.rollback().await?;
    Ok(())
}

/// Claims read the table of queues; acknowledgements don't.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn acknowledgements_do_not_wait_for_a_claim_that_is_held_up(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let store = connect(&pool).await?;
    send(&store, &[1]).await?;
    let (gate, seen) = (gate(), Seen::default());
    // A third of the lease is how long a claim waits.
    let lease = Duration::from_secs(90);
    let running = start(consumer().lease(lease).create(&store).await?, {
        let (gate, seen) = (Arc::clone(&gate), seen.clone());
        move |delivery: Delivery<Value>| {
            seen.note(delivery.raw_payload());
            let gate = Arc::clone(&gate);
            async move {
                pass(&gate).await;
                Outcome::Done
            }
        }
    });
    until("it is at work", async || seen.len() == 1).await;
    let mut lock = pool.begin().await?;
    sqlx::query("lock table pgqrs.queues in access exclusive mode")
        .execute(&mut *lock)
        .await?;
    let waiting = blocked_backend(&pool, "with queue as materialized").await;
    gate.add_permits(1);
    drained(&pool).await;
    let still_waits: bool = sqlx::query_scalar(
        "select exists (select from pg_stat_activity where pid = $1 and wait_event_type = 'Lock')",
    )
    .bind(waiting)
    .fetch_one(&pool)
    .await?;
    assert!(
        still_waits,
        "the claim has ended before the acknowledgement"
    );
    lock.rollback().await?;
    assert_eq!(running.stop().await?.done, 1);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_longer_extension_of_a_handlers_own_stays(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let ids = send(&store, &["long", "usual"]).await?;
    let (gate, extended) = (gate(), Arc::new(AtomicUsize::new(0)));
    let lease = Duration::from_secs(1);
    let running = start(consumer().lease(lease).create(&store).await?, {
        let (gate, extended) = (Arc::clone(&gate), Arc::clone(&extended));
        move |delivery: Delivery<Value>| {
            let (gate, extended) = (Arc::clone(&gate), Arc::clone(&extended));
            async move {
                let is_long = is(&delivery, "long");
                if is_long {
                    delivery.extend(Duration::from_secs(600)).await?;
                }
                let own = delivery.lease_expires_at();
                extended.fetch_add(1, Ordering::SeqCst);
                pass(&gate).await;
                assert!(!is_long || delivery.lease_expires_at() >= own);
                Ok::<_, Error>(())
            }
        }
    });
    until("both are at work", async || {
        extended.load(Ordering::SeqCst) == 2
    })
    .await;
    let ends = async |id: pgqrs::MessageId| -> DateTime<Utc> {
        sqlx::query_scalar("select lease_until from pgqrs.messages where id = $1")
            .bind(id.get())
            .fetch_one(&pool)
            .await
            .expect("it is there")
    };
    let (long, usual) = (ends(ids[0]).await, ends(ids[1]).await);
    until("the other one was extended again and again", async || {
        ends(ids[1]).await > usual + lease * 3
    })
    .await;
    assert_eq!(ends(ids[0]).await, long);
    gate.add_permits(2);
    drained(&pool).await;
    assert_eq!(running.stop().await?.done, 2);
    Ok(())
}

/// However long it could wait for its end.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_loop_that_can_never_settle_again_ends(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    send(&store, &[1]).await?;
    let (gate, seen) = (gate(), Seen::default());
    let consumer = consumer().concurrency(1).create(&store).await?;
    let run = consumer.run({
        let (gate, seen) = (Arc::clone(&gate), seen.clone());
        move |delivery: Delivery<Value>| {
            seen.note(delivery.raw_payload());
            let gate = Arc::clone(&gate);
            async move {
                pass(&gate).await;
                Outcome::Done
            }
        }
    });
    let run = run.shutdown_deadline(Duration::from_secs(600));
    let running = tokio::spawn(run);
    until("it is at work", async || seen.len() == 1).await;
    until("the schema is gone", async || {
        let mut connection = pool.acquire().await.expect("connected").detach();
        pgqrs::MIGRATOR.undo(&mut connection, 0).await.is_ok()
    })
    .await;
    gate.add_permits(1);
    let failed = timeout(BOUND, running).await??;
    assert!(matches!(failed, Err(Error::NotInstalled)), "{failed:?}");
    Ok(())
}

/// Acknowledges by itself, and has then something else to do.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_handler_that_is_aborted_after_it_has_settled_is_counted(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    send(&store, &[1]).await?;
    let consumer = consumer().create(&store).await?;
    let handle = consumer.handle();
    let acking = store.clone();
    let run = consumer.run(move |delivery: Delivery<Value>| {
        let store: Store = acking.clone();
        async move {
            delivery.ack(&store).await?;
            std::future::pending::<Result<(), Error>>().await
        }
    });
    let run = run.shutdown_deadline(Duration::from_secs(2));
    let running = tokio::spawn(run);
    drained(&pool).await;
    handle.stop();
    let report = timeout(BOUND, running).await???;
    assert_eq!((report.unknown, deliveries(&report)), (1, 1), "{report:?}");
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_handler_that_blocks_its_thread_keeps_no_other_message_at_the_end(
    pool: PgPool,
) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let (release, released) = mpsc::channel::<()>();
    let released = Arc::new(std::sync::Mutex::new(released));
    let begun = Arc::new(AtomicUsize::new(0));
    let running = runtime.spawn({
        let (url, begun) = (url(&pool), Arc::clone(&begun));
        async move {
            let store = pgqrs::connect(&url).await?;
            send(&store, &["block", "wait", "wait"]).await?;
            let consumer = consumer().create(&store).await?;
            let counter = Arc::clone(&begun);
            let run = consumer.run(move |delivery: Delivery<Value>| {
                counter.fetch_add(1, Ordering::SeqCst);
                let released = Arc::clone(&released);
                async move {
                    if is(&delivery, "block") {
                        // Ends with the test.
                        let _ = released.lock().expect("not poisoned").recv();
                    }
                    std::future::pending::<Outcome>().await
                }
            });
            let all_at_work = async move {
                while begun.load(Ordering::SeqCst) < 3 {
                    sleep_until(tokio::time::Instant::now() + Duration::from_millis(5)).await;
                }
            };
            run.with_graceful_shutdown(all_at_work)
                .shutdown_deadline(Duration::from_secs(4))
                .await
        }
    });
    let report = timeout(BOUND, running).await;
    drop(release);
    runtime.shutdown_background();
    let report = report???;
    assert_eq!((report.released, report.unknown), (2, 1), "{report:?}");
    let ready: i64 =
        sqlx::query_scalar("select count(*) from pgqrs.messages where lease_token = 0")
            .fetch_one(&pool)
            .await?;
    assert_eq!(ready, 2, "they are ready for others");
    Ok(())
}
