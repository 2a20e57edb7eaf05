//! Cancellations at random moments.

use super::*;

/// Handlers of each kind, and cancellations of each message at a random moment: of what was sent, each message was
/// cancelled or done, as all calls have returned.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn each_message_is_cancelled_or_done_and_never_both_at_any_moment(
    pool: PgPool,
) -> TestResult {
    const MESSAGES: usize = 2_000;
    let store = with_queues(&pool, &["tasks"]).await?;
    sqlx::query("create table public.done (id bigint primary key)")
        .execute(&pool)
        .await?;
    let acked: Arc<Mutex<Vec<MessageId>>> = Arc::default();
    let mut running = Vec::new();
    for (port, listen) in [(1, true), (2, false)] {
        let acked = Arc::clone(&acked);
        let store = connect(&pool).await?;
        let consumer = pgqrs::consumer("tasks").identity("my-service", port);
        let consumer = crate::support::consumers::prepare(consumer)
            .concurrency(16)
            .lease(Duration::from_millis(300))
            .listen(listen)
            .cancel_grace(Duration::from_millis(5))
            .create(&store)
            .await?;
        running.push(start(consumer, move |delivery: Delivery<Value>| {
            let (store, acked) = (store.clone(), Arc::clone(&acked));
            async move { handled(delivery, &store, &acked).await }
        }));
    }
    let mut cancelled = BTreeMap::new();
    let mut ids = Vec::new();
    for _ in 0..MESSAGES / 100 {
        let sent = send(&store, &[0; 100]).await?;
        ids.extend_from_slice(&sent);
        let cancelling = sent.iter().map(|id| {
            let (admin, id) = (pgqrs::admin(&store), *id);
            let wait = Duration::from_micros(rand::random_range(0..60_000));
            tokio::spawn(async move {
                tokio::time::sleep(wait).await;
                admin.cancel("tasks", id).await.map(|was| (id, was))
            })
        });
        for cancelling in cancelling.collect::<Vec<_>>() {
            let (id, was) = cancelling.await??;
            if let Some(was) = was {
                cancelled.insert(id, was);
            }
        }
    }
    drained(&pool).await;
    let (mut done, mut lost) = (0, 0);
    for running in running {
        let report = running.stop().await?;
        assert_eq!((report.dead, report.unknown), (0, 0));
        done += report.done + report.archived;
        lost += report.cancelled + report.lost;
    }
    // Each was cancelled or done, ...
    assert_eq!(done as usize + cancelled.len(), MESSAGES);
    // ... and those that were done in transactions, or by the handlers themselves, were not cancelled.
    let in_transactions: Vec<i64> = sqlx::query_scalar("select id from public.done")
        .fetch_all(&pool)
        .await?;
    let in_transactions = in_transactions.into_iter().map(MessageId::from);
    let acked = acked.lock().expect("not poisoned").clone();
    for id in in_transactions.chain(acked) {
        assert!(!cancelled.contains_key(&id), "{id} was cancelled and done");
    }
    let of = |what| cancelled.values().filter(|was| **was == what).count();
    let (waiting, running) = (of(Cancelled::Waiting), of(Cancelled::Running));
    println!(
        "{waiting} were cancelled while they waited, {running} while they ran ({lost} noticed), {done} are done"
    );
    assert!(running > 0 && done > 0);
    Ok(())
}

async fn handled(
    delivery: Delivery<Value>,
    store: &Store,
    acked: &Mutex<Vec<MessageId>>,
) -> Result<Outcome, Box<dyn std::error::Error + Send + Sync>> {
    let id = delivery.id();
    let wait = Duration::from_micros(rand::random_range(0..20_000));
    match rand::random_range(0..5) {
        0 => {}
        1 => tokio::time::sleep(wait).await,
        2 => {
            tokio::time::sleep(wait).await;
            match delivery.ack(store).await {
                Ok(()) => acked.lock().expect("not poisoned").push(id),
                // Cancelled.
                Err(error) => return Err(error.into()),
            }
        }
        3 => {
            let mut transaction = store.pool().begin().await?;
            sqlx::query("insert into public.done values ($1)")
                .bind(id.get())
                .execute(&mut *transaction)
                .await?;
            tokio::time::sleep(wait).await;
            delivery.ack(&mut transaction).await?;
            transaction.commit().await?;
        }
        _ => return Ok(Outcome::Archive),
    }
    Ok(Outcome::Done)
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_message_that_is_being_claimed_is_cancelled_as_what_it_is(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let mut running = 0;
    for round in 0..200 {
        let id = send(&store, &[round]).await?[0];
        let (admin, there) = (pgqrs::admin(&store), newcomer(&pool));
        let cancelling = tokio::spawn(async move { admin.cancel("tasks", id).await });
        let claiming = tokio::spawn(async move { claim(&there, 1).await });
        let (cancelled, claimed) = (cancelling.await??, claiming.await??);
        let expected = if claimed.is_empty() {
            Cancelled::Waiting
        } else {
            Cancelled::Running
        };
        assert_eq!(cancelled, Some(expected));
        running += claimed.len();
        for delivery in claimed {
            let lost = delivery.ack(&store).await;
            assert!(matches!(lost, Err(Error::LeaseLost { .. })), "{lost:?}");
        }
        assert_eq!(count(&pool).await?, 0);
    }
    println!("{running} of 200 were claimed first");
    Ok(())
}
