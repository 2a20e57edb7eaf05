//! Panics in payloads and iterators, and times that no calendar has.

use super::*;

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn an_import_without_an_end_holds_a_chunk_and_can_be_stopped(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let pulled = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&pulled);
    let numbers = (0_u64..).inspect(move |_| {
        counter.fetch_add(1, Ordering::Relaxed);
    });
    let mut import = pgqrs::enqueue().to("tasks").import(numbers);
    for chunks in 1..=5 * scale() as u64 {
        let stored = import.next(&store).await?.expect("there is no end");
        assert_eq!(stored.len(), 1_000);
        // Nothing is read ahead.
        assert_eq!(pulled.load(Ordering::Relaxed), chunks * 1_000);
    }
    let sent = import.sent() as i64;
    drop(import);
    send(&store, &["afterwards"]).await?;
    assert_eq!(count(&pool).await?, sent + 1);
    Ok(())
}

/// Can't be written, and panics.
struct Unwritable(u32);

impl Serialize for Unwritable {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        assert_ne!(self.0, 3, "not this one");
        self.0.serialize(serializer)
    }
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_panic_in_an_iterator_or_a_payload_leaves_import_and_store_whole(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let numbers = (0..10).inspect(|n| assert_ne!(*n, 3, "not this one"));
    let mut of_iterator = pgqrs::enqueue().to("tasks").import(numbers);
    let mut of_payload = pgqrs::enqueue().to("tasks").import((0..10).map(Unwritable));
    let panics = catch_unwind(AssertUnwindSafe(|| drop(of_iterator.next(&store))));
    assert!(panics.is_err());
    let panics = catch_unwind(AssertUnwindSafe(|| drop(of_payload.next(&store))));
    assert!(panics.is_err());
    assert_eq!(count(&pool).await?, 0);
    // What was read before the panic isn't lost, nor what comes after it.
    assert_eq!(
        of_iterator.next(&store).await?.expect("the others").len(),
        9
    );
    assert!(of_iterator.next(&store).await?.is_none());
    assert_eq!(of_payload.next(&store).await?.expect("the others").len(), 9);
    assert!(of_payload.next(&store).await?.is_none());
    // In a task that it ends, and in calls without an import.
    let task = tokio::spawn({
        let store = store.clone();
        async move {
            pgqrs::enqueue()
                .message(&Unwritable(3))
                .to("tasks")
                .execute(&store)
                .await
        }
    });
    assert!(task.await.is_err_and(|error| error.is_panic()));
    let batch: Vec<_> = (0..10).map(Unwritable).collect();
    let panics = catch_unwind(AssertUnwindSafe(|| {
        drop(
            pgqrs::enqueue()
                .messages(&batch)
                .to("tasks")
                .execute(&store),
        );
    }));
    assert!(panics.is_err());
    send(&store, &["afterwards"]).await?;
    assert_eq!(count(&pool).await?, 19);
    Ok(())
}

async fn set_time(pool: &PgPool, message: MessageId, time: &str) -> TestResult {
    let set = "update pgqrs.messages set visible_at = $2::timestamptz where id = $1";
    let set = sqlx::query(set).bind(message.get()).bind(time);
    assert_eq!(set.execute(pool).await?.rows_affected(), 1);
    Ok(())
}

async fn set_lease(pool: &PgPool, message: MessageId, until: &str) -> TestResult {
    let set = "update pgqrs.messages set lease_until = $2::timestamptz where id = $1";
    let set = sqlx::query(set).bind(message.get()).bind(until);
    assert_eq!(set.execute(pool).await?.rows_affected(), 1);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_time_that_no_calendar_has_is_ready_or_never_ready_and_breaks_nothing(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let admin = pgqrs::admin(&store);
    let ids = send(&store, &[0, 1, 2, 3]).await?;
    for (id, time) in ids
        .iter()
        .zip(["-infinity", "infinity", "4700-01-01 BC", "1960-01-01"])
    {
        set_time(&pool, *id, time).await?;
    }
    let listed = admin.messages("tasks", Page::default()).await?;
    assert_eq!(listed.len(), 4);
    assert!(listed[0].visible_at <= listed[3].visible_at);
    assert!(listed[3].visible_at < DateTime::UNIX_EPOCH && listed[1].visible_at > Utc::now());
    let stats = admin.queue_stats("tasks").await?;
    assert_eq!(
        (stats.ready.value, stats.delayed.value, stats.leased.value),
        (3, 1, 0)
    );
    let oldest = stats.oldest_ready.expect("three are ready");
    assert!(
        oldest > Duration::from_secs(2_000 * 365 * 24 * 60 * 60),
        "{oldest:?}"
    );
    // By a store that hasn't looked, and by one that has, which may look past it for a moment.
    let delivered = claim(&newcomer(&pool), 10).await?;
    let delivered: Vec<_> = delivered.iter().map(Delivery::id).collect();
    assert_eq!(delivered, [ids[0], ids[2], ids[3]]);
    assert!(claim(&store, 10).await?.is_empty());
    set_lease(&pool, ids[0], "-infinity").await?;
    until("it is delivered again", async || {
        let again = claim(&store, 1).await.expect("claimed");
        again.iter().any(|delivery| delivery.id() == ids[0])
    })
    .await;
    // One that is parked for ever can be moved, and cancelled.
    assert!(admin.reschedule("tasks", ids[1], Utc::now()).await?);
    let delivery = claim(&newcomer(&pool), 1)
        .await?
        .pop()
        .expect("it is ready");
    assert_eq!(delivery.id(), ids[1]);
    set_lease(&pool, ids[1], "infinity").await?;
    delivery.extend(Duration::from_secs(60)).await?;
    delivery.ack(&store).await?;
    let parked = send(&store, &["parked"]).await?[0];
    set_time(&pool, parked, "infinity").await?;
    assert!(admin.cancel("tasks", parked).await?.is_some());
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_lease_that_was_set_to_infinity_is_extended_and_settled(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let admin = pgqrs::admin(&store);
    let gate = gate();
    let steady = consumer()
        .lease(Duration::from_secs(4))
        .create(&store)
        .await?;
    let worker = steady.id();
    let seen = Seen::default();
    let running = start(steady, {
        let (seen, gate) = (seen.clone(), Arc::clone(&gate));
        move |delivery: Delivery<Value>| {
            let (seen, gate) = (seen.clone(), Arc::clone(&gate));
            async move {
                pass(&gate).await;
                seen.note(delivery.raw_payload());
                Outcome::Done
            }
        }
    });
    let ids = send(&store, &[0, 1, 2]).await?;
    until("all are leased", async || {
        admin
            .queue_stats("tasks")
            .await
            .is_ok_and(|stats| stats.leased == 3)
    })
    .await;
    set_lease(&pool, ids[0], "infinity").await?;
    let leases = async || -> Result<BTreeMap<_, _>, Error> {
        let held = admin.held_messages(worker).await?;
        Ok(held
            .into_iter()
            .map(|held| (held.id, held.lease_expires_at))
            .collect())
    };
    let before = leases().await?;
    // Twice, so that an extension has included the one without an end.
    for _ in 0..2 {
        let before = leases().await?;
        until("the others are extended", async || {
            let now = leases().await.expect("read");
            now.get(&ids[1]) > before.get(&ids[1]) && now.get(&ids[2]) > before.get(&ids[2])
        })
        .await;
    }
    let after = leases().await?;
    assert_eq!(after.len(), 3);
    assert_eq!(after[&ids[0]], before[&ids[0]], "it is never shortened");
    gate.add_permits(3);
    drained(&pool).await;
    let report = running.stop().await?;
    assert_eq!((report.done, report.lost), (3, 0), "{report:?}");
    assert!(seen.times().values().all(|times| *times == 1));
    Ok(())
}

/// Panics when it is dropped, unless it is even.
struct Fragile(u32);

impl<'de> Deserialize<'de> for Fragile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        u32::deserialize(deserializer).map(Self)
    }
}

impl Drop for Fragile {
    fn drop(&mut self) {
        assert!(
            self.0.is_multiple_of(2) || std::thread::panicking(),
            "{} panics when it is dropped",
            self.0
        );
    }
}

const FRAGILE: Queue<Fragile> = Queue::new("tasks");

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_payload_that_panics_when_it_is_dropped_stops_no_loop(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let admin = pgqrs::admin(&store);
    let twice = QueueOptions::builder().max_attempts(2).build();
    admin.configure_queue("tasks", twice).await?;
    let handled = Arc::new(Mutex::new(Vec::new()));
    let steady = prepare(pgqrs::consumer(FRAGILE).identity("my-service", 3001))
        .concurrency(2)
        .retry(RetryPolicy::fixed(Duration::ZERO))
        .poll_interval(Duration::from_millis(20))
        .handler_timeout(Duration::from_millis(200))
        .create(&store)
        .await?;
    let (handle, noting) = (steady.handle(), Arc::clone(&handled));
    let run = steady.run(move |delivery: Delivery<Fragile>| {
        let handled = Arc::clone(&noting);
        async move {
            let number = delivery.payload().0;
            handled
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(number);
            match number % 8 {
                // Dropped at its end.
                1 => {}
                // Dropped at its time-out, and at the abort.
                3 => std::future::pending().await,
                // Dropped ahead of its end, on another thread.
                5 => {
                    let dropped = tokio::task::spawn_blocking(move || drop(delivery)).await;
                    assert!(dropped.is_err());
                }
                // Never dropped.
                7 => mem::forget(delivery),
                _ => {}
            }
            Ok::<_, Error>(())
        }
    });
    let task = tokio::spawn(run.shutdown_deadline(Duration::from_secs(5)));
    let numbers = 40 * u32::try_from(scale())?;
    send(&store, &(0..numbers).collect::<Vec<_>>()).await?;
    // Twice as many attempts as it has handlers are cut off, many times over.
    let is_drained = until_within(BOUND * u32::try_from(scale())?, async || {
        count(&pool).await.is_ok_and(|left| left == 0)
    });
    assert!(is_drained.await, "it handles no more");
    let dead = admin.dead_letters("tasks", Page::default()).await?;
    let of = |rest: u32| move |number: &u32| number % 8 == rest;
    let dead_numbers: Vec<u32> = {
        let page = Page::builder().limit(1_000).payload(true).build();
        let dead = admin.dead_letters("tasks", page).await?;
        let payloads = dead.iter().filter_map(|dead| dead.payload.as_deref());
        payloads
            .filter_map(|payload| payload.parse().ok())
            .collect()
    };
    assert!(
        dead_numbers
            .iter()
            .all(|number| of(1)(number) || of(3)(number)),
        "{dead_numbers:?}"
    );
    assert_eq!(dead_numbers.len(), numbers as usize / 4);
    assert!(
        dead.iter()
            .all(|dead| dead.last_error.is_some() && dead.attempt == 2)
    );
    {
        let handled = handled.lock().unwrap_or_else(PoisonError::into_inner);
        let times = |number: u32| handled.iter().filter(|handled| **handled == number).count();
        for number in 0..numbers {
            let wanted = if of(1)(&number) || of(3)(&number) {
                2
            } else {
                1
            };
            assert_eq!(times(number), wanted, "{number}");
        }
    }
    // Its end aborts a handler that has one.
    send(&store, &[3]).await?;
    until("a handler has it", async || {
        handled.lock().unwrap_or_else(PoisonError::into_inner).len() as u32 > numbers * 5 / 4
    })
    .await;
    handle.abort();
    timeout(BOUND, task).await???;
    Ok(())
}
