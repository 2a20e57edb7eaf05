//! How an idle consumer learns of messages.

use pgqrs::{Groups, Store};

use super::*;

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn an_idle_consumer_is_woken_for_what_is_requeued(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let id = send(&store, &[1]).await?[0];
    one(&store).await?.dead_letter("not yet", &store).await?;
    // It would not poll before the test times out.
    let patient = consumer().poll_interval(Duration::from_secs(3_600));
    let seen = Seen::default();
    let running = start(patient.create(&store).await?, seen.handler());
    send(&store, &[2]).await?;
    drained(&pool).await;
    assert!(pgqrs::admin(&store).requeue("tasks", id).await?.back == 1);
    drained(&pool).await;
    assert_eq!(running.stop().await?.done, 2);
    assert_eq!(places(&pool).await?, (0, 0, 0));
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn an_idle_consumer_is_woken_for_what_a_cancellation_promotes(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let options = QueueOptions::builder().groups(Groups::default()).build();
    let owner = Store::from(pool.clone());
    pgqrs::admin(&owner)
        .configure_queue("tasks", options)
        .await?;
    let payloads = [1, 2, 3];
    let enqueue = pgqrs::enqueue().messages(&payloads).to("tasks");
    let ids = enqueue.group("a").execute(&store).await?.to_vec();
    let elsewhere = one(&store).await?;
    // It would not poll before the test times out.
    let patient = consumer().poll_interval(Duration::from_secs(3_600));
    let seen = Seen::default();
    let running = start(patient.create(&store).await?, seen.handler());
    // After that it has nothing to do.
    pgqrs::enqueue()
        .message(&4)
        .to("tasks")
        .execute(&store)
        .await?;
    until("it has handled what there was", async || {
        count(&pool).await.is_ok_and(|left| left == 3)
    })
    .await;
    let admin = pgqrs::admin(&store);
    assert_eq!(admin.cancel_many("tasks", &ids[..2]).await?, 2);
    drained(&pool).await;
    assert_eq!(running.stop().await?.done, 2);
    drop(elsewhere);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn an_idle_consumer_is_woken_from_its_own_and_from_other_processes(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let elsewhere = connect(&pool).await?;
    // It would not poll before the test times out.
    let patient = consumer()
        .poll_interval(Duration::from_secs(3_600))
        .create(&store)
        .await?;
    let running = start(patient, async |_: Delivery<Value>| Outcome::Done);
    let listeners = async || {
        let listening: i64 = sqlx::query_scalar(
            "select count(*) from pg_stat_activity
             where datname = current_database() and query like 'LISTEN%'",
        )
        .fetch_one(&pool)
        .await
        .expect("counted");
        listening
    };
    until("it listens", async || listeners().await == 1).await;
    for sender in [&store, &elsewhere, &store, &elsewhere] {
        for _ in 0..10 {
            pgqrs::enqueue()
                .message(&1)
                .to("tasks")
                .execute(sender)
                .await?;
        }
        drained(&pool).await;
    }
    assert_eq!(running.stop().await?.done, 40);
    // Long before it would look by itself whether it is still needed.
    let ends = until("no session listens any more", async || {
        listeners().await == 0
    });
    tokio::time::timeout(Duration::from_secs(15), ends).await?;
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn without_a_hint_it_finds_messages_by_polling(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let running = start(
        consumer().listen(false).create(&store).await?,
        async |_: Delivery<Value>| Outcome::Done,
    );
    for n in 0..5 {
        // A transaction sends no notification.
        let mut tx = pool.begin().await?;
        pgqrs::enqueue()
            .message(&n)
            .to("tasks")
            .execute(&mut tx)
            .await?;
        tx.commit().await?;
        drained(&pool).await;
    }
    pgqrs::enqueue()
        .message(&1)
        .to("tasks")
        .delay(Duration::from_millis(30))
        .execute(&store)
        .await?;
    drained(&pool).await;
    assert_eq!(running.stop().await?.done, 6);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn what_a_stores_transaction_has_sent_is_handled_as_soon_as_it_is_committed(
    pool: PgPool,
) -> TestResult {
    const NEVER: Duration = Duration::from_secs(3_600);
    let store = with_queues(&pool, &["tasks", "others"]).await?;
    let elsewhere = connect(&pool).await?;
    // One of the sender's own store, and one that only NOTIFY reaches. Neither would look again by itself.
    let own = consumer().poll_interval(NEVER).create(&store).await?;
    let other = prepare(pgqrs::consumer("others")).poll_interval(NEVER);
    let other = other.create(&elsewhere).await?;
    let (seen, seen_elsewhere) = (Seen::default(), Seen::default());
    let running = [
        start(own, seen.handler()),
        start(other, seen_elsewhere.handler()),
    ];
    until("it listens", async || {
        let listening = "select count(*) from pg_stat_activity
             where datname = current_database() and query like 'LISTEN%'";
        let listening: i64 = sqlx::query_scalar(listening)
            .fetch_one(&pool)
            .await
            .expect("counted");
        listening == 2
    })
    .await;
    for queue in ["tasks", "others"] {
        let mut tx = store.begin().await?;
        sqlx::query("select 1").execute(&mut **tx).await?;
        let enqueue = pgqrs::enqueue().message(&queue).to(queue);
        enqueue.execute(&mut tx).await?;
        tx.commit().await?;
    }
    // And one in a transaction of the pool's, whose commit the store doesn't see.
    let mut tx = pool.begin().await?;
    let enqueue = pgqrs::enqueue().message(&"foreign").to("others");
    enqueue.execute(&mut tx).await?;
    tx.commit().await?;
    store.wake("others")?;
    until("all are handled", async || {
        seen.times().len() == 1 && seen_elsewhere.times().len() == 2
    })
    .await;
    let mut tx = store.begin().await?;
    pgqrs::enqueue()
        .message(&1)
        .to("tasks")
        .execute(&mut tx)
        .await?;
    tx.rollback().await?;
    for running in running {
        running.stop().await?;
    }
    assert_eq!(count(&pool).await?, 0);
    Ok(())
}
