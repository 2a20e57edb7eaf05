//! What is done to many messages by their ids, and edits.

use super::*;

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn dead_letters_are_requeued_and_deleted_by_their_ids(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks", "other"]).await?;
    let admin = pgqrs::admin(&store);
    let sent = dead(&store, &[0, 1, 2, 3, 4]).await?;
    let waiting = send(&store, &[5]).await?[0];
    let chosen = [sent[3], sent[1], waiting, MessageId::from(i64::MAX)];
    assert_eq!(admin.requeue_many("other", &chosen).await?.back, 0);
    assert_eq!(admin.delete_dead_letters("other", &chosen).await?, 0);
    assert_eq!(places(&pool).await?, (1, 5, 0));
    let requeued = admin.requeue_many("tasks", &chosen).await?;
    assert_eq!((requeued.back, requeued.held), (2, 0));
    assert_eq!(places(&pool).await?, (3, 3, 0));
    assert_eq!(
        admin
            .delete_dead_letters("tasks", &[sent[0], sent[1], waiting])
            .await?,
        1
    );
    assert_eq!(places(&pool).await?, (3, 2, 0));
    assert_eq!(admin.requeue_many("tasks", &[]).await?.back, 0);
    assert_eq!(admin.delete_dead_letters("tasks", &[]).await?, 0);
    let left = admin.search_dead_letters("tasks").await?;
    assert_eq!(letter_ids(&left), [sent[4], sent[2]]);
    let absent = admin.delete_dead_letters("absent", &[]).await;
    assert!(matches!(absent, Err(Error::QueueNotFound { .. })));
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn messages_are_cancelled_and_moved_by_their_ids(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks", "other"]).await?;
    let admin = pgqrs::admin(&store);
    let sent = send(&store, &[0, 1, 2, 3]).await?;
    let held = one(&store).await?;
    assert_eq!(admin.cancel_many("other", &sent).await?, 0);
    let tomorrow = now(&pool).await? + TimeDelta::days(1);
    let moved = admin.reschedule_many("tasks", &sent[..2], tomorrow).await?;
    assert_eq!(moved, 1, "one of them is leased");
    let delayed = admin.search("tasks", MessageState::Delayed).await?;
    assert_eq!(ids(&delayed), [sent[1]]);
    assert_eq!(admin.cancel_many("tasks", &sent[..3]).await?, 3);
    assert_eq!(places(&pool).await?, (1, 0, 0));
    assert!(matches!(
        held.ack(&store).await,
        Err(Error::LeaseLost { .. })
    ));
    assert_eq!(admin.cancel_many("tasks", &[]).await?, 0);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn the_payload_of_a_waiting_message_can_be_replaced(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks", "other"]).await?;
    let admin = pgqrs::admin(&store);
    let message = pgqrs::enqueue().message(&json!({"n": 1})).unique("key");
    let id = message.to("tasks").execute(&store).await?[0];
    assert!(!admin.edit("other", id, &2).await?);
    assert!(admin.edit("tasks", id, &json!({"n": 2})).await?);
    // As one of its own payload: a repeated send finds the same one.
    let again = pgqrs::enqueue().message(&json!({"n": 2})).unique("key");
    let again = again.to("tasks").execute(&store).await?;
    let again = again.outcomes().next().expect("one was sent");
    assert_eq!((again.new, again.same_payload), (false, Some(true)));
    let delivery = one(&store).await?;
    assert_eq!((delivery.id(), delivery.raw_payload()), (id, r#"{"n":2}"#));
    assert!(!admin.edit("tasks", id, &3).await?, "a consumer holds it");
    let absent = admin.edit("absent", id, &3).await;
    assert!(matches!(absent, Err(Error::QueueNotFound { .. })));
    Ok(())
}
