//! `admin()`: queues and what they hold.

mod dead_letters;
mod queues;
mod search;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use chrono::TimeDelta;
use pgqrs::{
    Delivery, Enqueued, Error, MessageId, Page, Priority, QueueName, QueueOptions, Store, Worker,
    WorkerFilter, WorkerId,
};
use sqlx::PgPool;

use crate::support::{
    TestResult, age, blocked_backend, changes, claim, connect, count, everything, expire, now, one,
    places, send, url, with_queues,
};

/// Sends messages, and makes all that is ready in `tasks` dead letters.
async fn dead(store: &Store, payloads: &[u32]) -> pgqrs::Result<Enqueued> {
    let ids = send(store, payloads).await?;
    for delivery in claim(store, 10_000).await? {
        delivery.dead_letter("in a test", store).await?;
    }
    Ok(ids)
}

/// Sends messages, and archives all that is ready in `tasks`.
async fn archived(store: &Store, payloads: &[u32]) -> pgqrs::Result<Enqueued> {
    let ids = send(store, payloads).await?;
    for delivery in claim(store, 10_000).await? {
        delivery.archive(store).await?;
    }
    Ok(ids)
}

/// Lets an hour pass for what died, or was archived.
async fn an_hour_later(pool: &PgPool, ids: &[MessageId]) -> TestResult {
    for update in [
        "update pgqrs.dead_letters set died_at = died_at - interval '1 hour' where id = any ($1)",
        "update pgqrs.archive set archived_at = archived_at - interval '1 hour' where id = any ($1)",
    ] {
        let ids: Vec<_> = ids.iter().map(|id| id.get()).collect();
        sqlx::query(update).bind(ids).execute(pool).await?;
    }
    Ok(())
}

const HALF_AN_HOUR: Duration = Duration::from_secs(1_800);

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn messages_are_listed_in_pages_and_payloads_only_if_requested(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks", "other"]).await?;
    let admin = pgqrs::admin(&store);
    let consumer = pgqrs::consumer("tasks").identity("my-service", 3001);
    let consumer = consumer.create(&store).await?;
    let producer = pgqrs::producer("my-service", 3000, "tasks");
    let producer = producer.create(&store).await?;
    let first = producer
        .enqueue()
        .message(&"first")
        .priority(Priority::Urgent);
    let first = first.execute(&store).await?[0];
    let delayed = pgqrs::enqueue().message(&"delayed").to("tasks").delay(60);
    let delayed = delayed.execute(&store).await?[0];
    let rest = send(&store, &vec![0; 150]).await?;
    pgqrs::enqueue()
        .message(&1)
        .to("other")
        .execute(&store)
        .await?;
    let held = consumer.dequeue().execute(&store).await?;

    let page = admin.messages("tasks", Page::default()).await?;
    assert_eq!(page.len(), 100);
    assert!(page.iter().all(|message| message.payload.is_none()));
    let (is_first, is_delayed, other) = (&page[0], &page[1], &page[2]);
    assert_eq!(
        (is_first.id, is_delayed.id, other.id),
        (first, delayed, rest[0])
    );
    assert_eq!((is_first.priority, is_first.attempt), (Priority::Urgent, 1));
    assert_eq!(
        (is_delayed.lease_expires_at, other.lease_expires_at),
        (None, None)
    );
    assert_eq!(is_first.producer, Some(producer.id()));
    assert_eq!(is_first.consumer, Some(consumer.id()));
    assert_eq!(is_first.lease_expires_at, Some(held[0].lease_expires_at()));
    assert_eq!(
        (is_first.enqueued_at, &is_first.last_error),
        (held[0].enqueued_at(), &None)
    );
    assert_eq!((other.priority, other.attempt), (Priority::Normal, 0));
    assert_eq!((other.producer, other.consumer), (None, None));
    let waits = is_delayed.visible_at - is_delayed.enqueued_at;
    assert_eq!(waits, TimeDelta::seconds(60));

    let next = Page::builder().after(page[99].id).build();
    let next = admin.messages("tasks", next).await?;
    assert_eq!(next.len(), 52);
    let listed: Vec<_> = page.iter().chain(&next).map(|message| message.id).collect();
    assert_eq!(listed, [&[first, delayed], &*rest].concat());
    let last = Page::builder().after(next[51].id).build();
    assert!(admin.messages("tasks", last).await?.is_empty());

    let two = Page::builder().limit(2).payload(true).build();
    let payloads = admin.messages("tasks", two).await?;
    let payloads: Vec<_> = payloads
        .iter()
        .map(|message| message.payload.as_deref())
        .collect();
    assert_eq!(payloads, [Some(r#""first""#), Some(r#""delayed""#)]);
    let nothing = Page::builder().limit(0).build();
    assert!(admin.messages("tasks", nothing).await?.is_empty());

    expire(&pool, first).await?;
    assert!(
        admin.messages("tasks", two).await?[0]
            .lease_expires_at
            .is_none()
    );
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn payloads_that_were_read_are_in_no_debug_output(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let admin = pgqrs::admin(&store);
    archived(&store, &[987_654_321]).await?;
    dead(&store, &[987_654_321]).await?;
    send(&store, &[987_654_321]).await?;
    let page = Page::builder().payload(true).build();
    let queued = admin.messages("tasks", page).await?;
    let letters = admin.dead_letters("tasks", page).await?;
    let archived = admin.archived("tasks", page).await?;
    let payloads = [
        &queued[0].payload,
        &letters[0].payload,
        &archived[0].payload,
    ];
    assert_eq!(payloads.map(Option::as_deref), [Some("987654321"); 3]);
    let infos = admin.message("tasks", queued[0].id).await?;
    let shown = format!("{queued:?} {letters:?} {archived:?} {infos:?}");
    assert!(!shown.contains("987654321"), "{shown}");
    assert_eq!(
        shown.matches("payload_bytes: Some(9)").count(),
        3,
        "{shown}"
    );
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn the_archive_is_listed_in_pages_and_purged_by_age(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks", "other"]).await?;
    let admin = pgqrs::admin(&store);
    let ids = archived(&store, &(0..110).collect::<Vec<_>>()).await?;
    dead(&store, &[1]).await?;
    let page = admin.archived("tasks", Page::default()).await?;
    assert_eq!(page.len(), 100);
    assert!(page.iter().all(|message| message.payload.is_none()));
    let next = Page::builder().after(page[99].id).payload(true).build();
    let next = admin.archived("tasks", next).await?;
    let listed: Vec<_> = page.iter().chain(&next).map(|message| message.id).collect();
    assert_eq!(listed, *ids);
    assert_eq!(next[9].payload.as_deref(), Some("109"));
    assert!(admin.archived("other", Page::default()).await?.is_empty());

    an_hour_later(&pool, &ids[..100]).await?;
    assert_eq!(admin.purge_archive("other", Duration::ZERO).await?, 0);
    assert_eq!(admin.purge_archive("tasks", HALF_AN_HOUR).await?, 100);
    assert_eq!(
        admin.archived("tasks", Page::default()).await?[0].id,
        ids[100]
    );
    assert_eq!(admin.purge_archive("tasks", Duration::ZERO).await?, 10);
    assert_eq!(places(&pool).await?, (0, 1, 0));
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn release_frees_what_a_worker_holds_and_nothing_else(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let admin = pgqrs::admin(&store);
    let dead = pgqrs::consumer("tasks")
        .identity("my-service", 1)
        .create(&store)
        .await?;
    let alive = pgqrs::consumer("tasks")
        .identity("my-service", 2)
        .create(&store)
        .await?;
    let ids = send(&store, &[0; 8]).await?;
    let held_by_dead = dead.dequeue().limit(4).execute(&store).await?;
    let held_by_alive = alive.dequeue().limit(2).execute(&store).await?;
    let held_by_nobody = one(&store).await?;
    // One of its leases has run out by itself.
    expire(&pool, ids[0]).await?;

    assert_eq!(admin.release(dead.id()).await?, 3);
    assert_eq!(admin.release(dead.id()).await?, 0);
    let stats = admin.queue_stats("tasks").await?;
    assert_eq!((stats.ready.value, stats.leased.value), (5, 3));
    assert!(admin.held_messages(dead.id()).await?.is_empty());
    for delivery in held_by_dead.into_iter().skip(1) {
        let lost = delivery.ack(&store).await.unwrap_err();
        assert!(matches!(lost, Error::LeaseLost { .. }), "{lost:?}");
    }
    // They were leased, so that the attempt counts.
    let attempts: Vec<_> = claim(&store, 10)
        .await?
        .iter()
        .map(Delivery::attempt)
        .collect();
    assert_eq!(attempts, [1, 2, 2, 2, 2]);
    assert!(pgqrs::ack_all(held_by_alive, &store).await?.is_empty());
    held_by_nobody.ack(&store).await?;

    let missing = admin.release(WorkerId::from(i64::MAX)).await;
    assert!(
        matches!(missing, Err(Error::WorkerNotFound { .. })),
        "{missing:?}"
    );
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn reschedule_moves_what_is_not_leased(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks", "other"]).await?;
    let admin = pgqrs::admin(&store);
    let ids = send(&store, &[0, 1]).await?;
    let held = one(&store).await?;
    let later = now(&pool).await? + TimeDelta::days(7);
    let before = everything(&pool).await?;
    assert!(
        !admin.reschedule("tasks", held.id(), later).await?,
        "it is leased"
    );
    assert!(
        !admin.reschedule("other", ids[1], later).await?,
        "it is of another queue"
    );
    assert_eq!(everything(&pool).await?, before);

    assert!(admin.reschedule("tasks", ids[1], later).await?);
    assert_eq!(
        admin.messages("tasks", Page::default()).await?[1].visible_at,
        later
    );
    assert!(claim(&store, 2).await?.is_empty());
    // The past is now: not ahead of what has waited since before.
    let first = send(&store, &[2]).await?[0];
    let long_ago = later - TimeDelta::days(700);
    assert!(admin.reschedule("tasks", ids[1], long_ago).await?);
    let order: Vec<_> = claim(&store, 2).await?.iter().map(Delivery::id).collect();
    assert_eq!(order, [first, ids[1]]);

    // Its consumer has crashed: the lease is lost, and the attempt counts.
    expire(&pool, held.id()).await?;
    assert!(admin.reschedule("tasks", held.id(), long_ago).await?);
    let lost = held.ack(&store).await.unwrap_err();
    assert!(matches!(lost, Error::LeaseLost { .. }), "{lost:?}");
    assert_eq!(one(&store).await?.attempt(), 2);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn an_age_beyond_the_calendar_is_more_than_any_message_has(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let admin = pgqrs::admin(&store);
    send(&store, &[1, 2]).await?;
    one(&store).await?.archive(&store).await?;
    one(&store).await?.dead_letter("broken", &store).await?;
    let producer = pgqrs::producer("host", 1, "tasks").create(&store).await?;
    assert!(producer.is_healthy(Duration::MAX).await?);
    producer.shutdown().await?;
    let before = everything(&pool).await?;
    assert_eq!(admin.purge_archive("tasks", Duration::MAX).await?, 0);
    assert_eq!(admin.purge_dead_letters("tasks", Duration::MAX).await?, 0);
    assert_eq!(admin.requeue_all("tasks", Duration::MAX).await?.back, 0);
    assert_eq!(admin.remove_ended_workers(Duration::MAX).await?, 0);
    assert_eq!(everything(&pool).await?, before);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_store_in_an_arc_is_a_store_and_ids_are_read_from_text(pool: PgPool) -> TestResult {
    let store = std::sync::Arc::new(with_queues(&pool, &["tasks"]).await?);
    let enqueue = pgqrs::enqueue().message(&1).to("tasks");
    let id = enqueue.execute(&store).await?[0];
    let listed = pgqrs::admin(&store)
        .messages("tasks", Page::default())
        .await?;
    assert_eq!(listed[0].id.to_string().parse::<MessageId>()?, id);
    assert!("seven".parse::<WorkerId>().is_err());
    assert_eq!("7".parse::<WorkerId>()?, WorkerId::from(7));
    let json = serde_json::to_value(&listed[0])?;
    assert_eq!(json["id"], id.get());
    Ok(())
}
