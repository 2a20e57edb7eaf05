//! `Delivery`: settled once, or not at all.

use pgqrs::{Delivery, Error, Queue};
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::support::{TestResult, blocked_backend, connect, count, expire, terminate, with_queues};

async fn one(store: &pgqrs::Store) -> pgqrs::Result<Delivery<Value>> {
    let mut deliveries = pgqrs::dequeue().from("tasks").execute(store).await?;
    Ok(deliveries.pop().expect("a message is ready"))
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn ack_consumes_the_message(pool: PgPool) -> TestResult {
    let store = with_queues(pool.clone(), &["tasks"]).await?;
    pgqrs::enqueue()
        .messages(&[1, 2])
        .to("tasks")
        .execute(&store)
        .await?;
    one(&store).await?.ack(&store).await?;
    assert_eq!(count(&pool).await?, 1);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn ack_in_a_transaction_commits_with_the_work(pool: PgPool) -> TestResult {
    let store = with_queues(pool.clone(), &["tasks"]).await?;
    let ids = pgqrs::enqueue()
        .message(&1)
        .to("tasks")
        .execute(&store)
        .await?;
    let mut tx = pool.begin().await?;
    one(&store).await?.ack(&mut tx).await?;
    tx.rollback().await?;
    assert_eq!(count(&pool).await?, 1);

    expire(&pool, ids[0]).await?;
    let mut tx = pool.begin().await?;
    one(&store).await?.ack(&mut tx).await?;
    tx.commit().await?;
    assert_eq!(count(&pool).await?, 0);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn ack_after_the_message_went_to_another_is_lease_lost_and_changes_nothing(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(pool.clone(), &["tasks"]).await?;
    let ids = pgqrs::enqueue()
        .message(&1)
        .to("tasks")
        .execute(&store)
        .await?;
    let late = one(&store).await?;
    expire(&pool, ids[0]).await?;
    let holder = one(&store).await?;

    let unsettled = late.ack(&store).await.unwrap_err();
    assert!(matches!(unsettled.error(), Error::LeaseLost { message } if *message == ids[0]));
    assert!(!unsettled.error().is_retryable());
    assert_eq!(unsettled.into_delivery().id(), ids[0]);
    assert_eq!(count(&pool).await?, 1);
    holder.ack(&store).await?;
    assert_eq!(count(&pool).await?, 0);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn ack_of_a_purged_message_is_lease_lost(pool: PgPool) -> TestResult {
    let store = with_queues(pool.clone(), &["tasks"]).await?;
    pgqrs::enqueue()
        .message(&1)
        .to("tasks")
        .execute(&store)
        .await?;
    let delivery = one(&store).await?;
    assert_eq!(pgqrs::admin(&store).purge_queue("tasks").await?, 1);
    let lost: Error = delivery.ack(&store).await.unwrap_err().into();
    assert!(matches!(lost, Error::LeaseLost { .. }));
    assert!(lost.to_string().contains("gone"), "{lost}");
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_failed_ack_hands_the_delivery_back(pool: PgPool) -> TestResult {
    with_queues(pool.clone(), &["tasks"]).await?;
    let store = connect(&pool).await?;
    pgqrs::enqueue()
        .message(&1)
        .to("tasks")
        .execute(&store)
        .await?;
    let delivery = one(&store).await?;
    let mut blocker = pool.begin().await?;
    sqlx::query("lock table pgqrs.messages")
        .execute(&mut *blocker)
        .await?;
    let call = tokio::spawn({
        let store = store.clone();
        async move { delivery.ack(&store).await }
    });
    terminate(
        &pool,
        blocked_backend(&pool, "delete from pgqrs.messages").await,
    )
    .await?;
    let unsettled = call.await?.unwrap_err();
    assert!(unsettled.error().is_retryable(), "{unsettled:?}");
    blocker.rollback().await?;
    unsettled.into_delivery().ack(&store).await?;
    assert_eq!(count(&pool).await?, 0);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_payload_of_another_shape_is_a_typed_error_and_the_delivery_stays_usable(
    pool: PgPool,
) -> TestResult {
    const NUMBERS: Queue<u32> = Queue::new("tasks");
    let store = with_queues(pool.clone(), &["tasks"]).await?;
    let ids = pgqrs::enqueue()
        .message(&json!({"not": "a number"}))
        .to("tasks")
        .execute(&store)
        .await?;
    let delivery = pgqrs::dequeue()
        .from(NUMBERS)
        .execute(&store)
        .await?
        .pop()
        .expect("one");
    let error = delivery.payload().unwrap_err();
    let Error::Decode { message, source } = &error else {
        panic!("{error:?}")
    };
    assert_eq!(*message, ids[0]);
    assert!(source.to_string().contains("expected u32"), "{source}");
    assert_eq!(delivery.raw_payload(), r#"{"not":"a number"}"#);
    delivery.ack(&store).await?;
    assert_eq!(count(&pool).await?, 0);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_delivery_shows_no_payload_in_a_log(pool: PgPool) -> TestResult {
    let store = with_queues(pool.clone(), &["tasks"]).await?;
    pgqrs::enqueue()
        .message(&"secret")
        .to("tasks")
        .execute(&store)
        .await?;
    let delivery = one(&store).await?;
    assert!(!format!("{delivery:?}").contains("secret"));
    Ok(())
}
