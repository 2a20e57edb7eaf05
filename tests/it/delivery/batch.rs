//! `ack_all`: many deliveries in one statement.

use super::*;

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn ack_all_acknowledges_what_is_held_and_returns_what_was_lost(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks", "other"]).await?;
    let ids = send(&store, &[0, 1, 2, 3, 4]).await?;
    let elsewhere = pgqrs::enqueue()
        .message(&5)
        .to("other")
        .execute(&store)
        .await?;
    let mut deliveries = claim(&store, 5).await?;
    deliveries.extend(pgqrs::dequeue().from("other").execute(&store).await?);
    // One went to another consumer, and one is gone.
    expire(&pool, ids[1]).await?;
    let holder = one(&store).await?;
    sqlx::query("delete from pgqrs.messages where id = $1")
        .bind(ids[3].get())
        .execute(&pool)
        .await?;

    assert_eq!(pgqrs::ack_all(deliveries, &store).await?, [ids[1], ids[3]]);
    assert_eq!(count(&pool).await?, 1);
    assert_eq!(holder.id(), ids[1]);
    assert!(pgqrs::ack_all(vec![holder], &store).await?.is_empty());
    assert_eq!(count(&pool).await?, 0);
    assert!(!elsewhere.is_empty());
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn ack_all_of_nothing_is_nothing(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    send(&store, &[1]).await?;
    let before = everything(&pool).await?;
    assert!(
        pgqrs::ack_all(Vec::<Delivery<Value, Unchecked>>::new(), &store)
            .await?
            .is_empty()
    );
    assert_eq!(everything(&pool).await?, before);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn ack_all_in_a_transaction_commits_with_the_work(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let ids = send(&store, &[1, 2, 3]).await?;
    let mut tx = pool.begin().await?;
    assert!(
        pgqrs::ack_all(claim(&store, 3).await?, &mut tx)
            .await?
            .is_empty()
    );
    assert_eq!(count(&pool).await?, 3);
    tx.rollback().await?;
    assert_eq!(count(&pool).await?, 3);

    for id in ids {
        expire(&pool, id).await?;
    }
    let mut tx = pool.begin().await?;
    assert!(
        pgqrs::ack_all(claim(&store, 3).await?, &mut tx)
            .await?
            .is_empty()
    );
    tx.commit().await?;
    assert_eq!(count(&pool).await?, 0);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn ack_all_hands_all_back_when_the_connection_breaks(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let store = connect(&pool).await?;
    let ids = send(&store, &[1, 2, 3]).await?;
    let deliveries = claim(&store, 3).await?;
    let mut blocker = pool.begin().await?;
    let lock = "lock table pgqrs.messages in share mode";
    sqlx::query(lock).execute(&mut *blocker).await?;
    let call = tokio::spawn({
        let store = store.clone();
        async move { pgqrs::try_ack_all(deliveries, &store).await }
    });
    terminate(&pool, blocked_backend(&pool, "pgqrs.messages").await).await?;
    let unsettled = call.await?.unwrap_err();
    assert!(unsettled.error().is_retryable(), "{unsettled:?}");
    blocker.rollback().await?;
    assert_eq!(count(&pool).await?, 3);
    let deliveries = unsettled.into_deliveries();
    let back: Vec<MessageId> = deliveries.iter().map(Delivery::id).collect();
    assert_eq!(back, *ids);
    assert!(pgqrs::ack_all(deliveries, &store).await?.is_empty());
    assert_eq!(count(&pool).await?, 0);
    Ok(())
}

/// Half of the batches overlap: each message is acknowledged by just one of the concurrent calls.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn ack_all_at_once_by_a_late_one_and_the_holder_loses_and_doubles_nothing(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    for _ in 0..20 {
        let ids = send(&store, &[0; 50]).await?;
        let late = claim(&store, 50).await?;
        for id in &ids[25..] {
            expire(&pool, *id).await?;
        }
        let holder = claim(&store, 50).await?;
        assert_eq!(holder.len(), 25);
        let (one, another) = (store.clone(), newcomer(&pool));
        let late = tokio::spawn(async move { pgqrs::ack_all(late, &one).await });
        let holder = tokio::spawn(async move { pgqrs::ack_all(holder, &another).await });
        assert_eq!(late.await??, ids[25..]);
        assert!(holder.await??.is_empty());
        assert_eq!(count(&pool).await?, 0);
    }
    Ok(())
}
