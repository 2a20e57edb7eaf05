//! Dead letters: listed, requeued and purged.

use super::*;

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn dead_letters_are_listed_in_pages_and_counted(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks", "other"]).await?;
    let admin = pgqrs::admin(&store);
    let before = now(&pool).await?;
    let ids = dead(&store, &(0..120).collect::<Vec<_>>()).await?;
    let after = now(&pool).await?;
    assert_eq!(admin.dead_letter_count("tasks").await?, 120);
    assert_eq!(admin.dead_letter_count("other").await?, 0);
    assert!(
        admin
            .dead_letters("other", Page::default())
            .await?
            .is_empty()
    );

    let page = admin.dead_letters("tasks", Page::default()).await?;
    assert_eq!(page.len(), 100);
    let next = Page::builder().after(page[99].id).payload(true).build();
    let next = admin.dead_letters("tasks", next).await?;
    let listed: Vec<_> = page.iter().chain(&next).map(|letter| letter.id).collect();
    assert_eq!(listed, *ids);
    for letter in &page {
        assert_eq!((letter.attempt, letter.reason.as_str()), (1, "in a test"));
        assert!((before..=after).contains(&letter.died_at) && letter.died_at >= letter.enqueued_at);
        assert_eq!(letter.payload, None);
    }
    assert_eq!(next[19].payload.as_deref(), Some("119"));
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_requeued_dead_letter_has_its_payload_and_all_attempts_before_it(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(&pool, &["tasks", "other"]).await?;
    let admin = pgqrs::admin(&store);
    let batch = pgqrs::enqueue()
        .message(&"again")
        .to("tasks")
        .priority(Priority::High);
    let id = batch.execute(&store).await?[0];
    let other = dead(&store, &[1]).await?[0];
    assert_eq!(places(&pool).await?, (0, 2, 0));
    assert!(
        admin.requeue("other", id).await?.back == 0,
        "it is of another queue"
    );
    let before = now(&pool).await?;
    assert!(admin.requeue("tasks", id).await?.back == 1);
    assert_eq!(places(&pool).await?, (1, 1, 0));
    let queued = &admin.messages("tasks", Page::default()).await?[0];
    assert_eq!(
        (queued.id, queued.attempt, queued.lease_expires_at),
        (id, 0, None)
    );
    assert!(queued.visible_at >= before && queued.enqueued_at < before);

    let delivery = one(&store).await?;
    assert_eq!((delivery.id(), delivery.attempt()), (id, 1));
    assert_eq!(delivery.priority(), Priority::High);
    assert_eq!(delivery.raw_payload(), r#""again""#);
    assert!(
        admin.requeue("tasks", id).await?.back == 0,
        "it is no dead letter any more"
    );
    assert_eq!(
        admin.dead_letters("tasks", Page::default()).await?[0].id,
        other
    );
    Ok(())
}

/// As many attempts as before, and not just one.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_requeued_message_can_fail_as_often_as_a_new_one(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let admin = pgqrs::admin(&store);
    let thrice = QueueOptions::builder().max_attempts(3).build();
    admin.configure_queue("tasks", thrice).await?;
    let id = send(&store, &[1]).await?[0];
    for _ in 0..2 {
        for attempt in 1..=3 {
            let delivery = one(&store).await?;
            assert_eq!(delivery.attempt(), attempt);
            delivery.retry_in(Duration::ZERO, &store).await?;
        }
        assert_eq!(places(&pool).await?, (0, 1, 0));
        assert!(admin.requeue("tasks", id).await?.back == 1);
    }
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn only_dead_letters_can_be_requeued(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let admin = pgqrs::admin(&store);
    let acked = send(&store, &[1]).await?[0];
    one(&store).await?.ack(&store).await?;
    let archived = archived(&store, &[2]).await?[0];
    let held = send(&store, &[3]).await?[0];
    let _held = one(&store).await?;
    let ready = send(&store, &[4]).await?[0];
    let before = everything(&pool).await?;
    for id in [acked, archived, held, ready, MessageId::from(i64::MAX)] {
        assert!(admin.requeue("tasks", id).await?.back == 0, "{id}");
    }
    assert_eq!(admin.requeue_all("tasks", Duration::ZERO).await?.back, 0);
    assert_eq!(everything(&pool).await?, before);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn dead_letters_are_requeued_all_or_by_age(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks", "other"]).await?;
    let admin = pgqrs::admin(&store);
    let ids = dead(&store, &[1, 2, 3, 4, 5]).await?;
    an_hour_later(&pool, &ids[..2]).await?;
    assert_eq!(admin.requeue_all("other", Duration::ZERO).await?.back, 0);
    assert_eq!(admin.requeue_all("tasks", HALF_AN_HOUR).await?.back, 2);
    let back: Vec<_> = claim(&store, 10).await?.iter().map(Delivery::id).collect();
    assert_eq!(back, ids[..2]);
    let a_century = HALF_AN_HOUR * 2 * 24 * 36_525;
    assert_eq!(admin.requeue_all("tasks", a_century).await?.back, 0);
    assert_eq!(admin.requeue_all("tasks", Duration::ZERO).await?.back, 3);
    let back: Vec<_> = claim(&store, 10).await?.iter().map(Delivery::id).collect();
    assert_eq!(back, ids[2..]);
    assert_eq!(admin.dead_letter_count("tasks").await?, 0);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn of_eight_requeues_at_once_one_succeeds(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let store = connect(&pool).await?;
    for round in 0..10 {
        let id = dead(&store, &[round]).await?[0];
        let requeuing: Vec<_> = (0..8)
            .map(|_| {
                let admin = pgqrs::admin(&store);
                tokio::spawn(async move { admin.requeue("tasks", id).await })
            })
            .collect();
        let mut requeued = 0;
        for requeuing in requeuing {
            requeued += requeuing.await??.back;
        }
        assert_eq!((requeued, places(&pool).await?), (1, (1, 0, 0)));
        one(&store).await?.ack(&store).await?;
    }
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn dead_letters_are_purged_by_age(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks", "other"]).await?;
    let admin = pgqrs::admin(&store);
    let ids = dead(&store, &[1, 2, 3]).await?;
    archived(&store, &[4]).await?;
    send(&store, &[5]).await?;
    an_hour_later(&pool, &ids[1..]).await?;
    assert_eq!(admin.purge_dead_letters("other", Duration::ZERO).await?, 0);
    assert_eq!(admin.purge_dead_letters("tasks", HALF_AN_HOUR).await?, 2);
    assert_eq!(
        admin.dead_letters("tasks", Page::default()).await?[0].id,
        ids[0]
    );
    assert_eq!(admin.purge_dead_letters("tasks", Duration::ZERO).await?, 1);
    assert_eq!(places(&pool).await?, (1, 0, 1));
    Ok(())
}
