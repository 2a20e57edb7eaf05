//! `admin()`: queues and what they hold.

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
    TestResult, age, blocked_backend, changes, claim, connect, count, everything, expire, newcomer,
    now, one, places, send, url, with_queues,
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
async fn creating_a_queue_twice_is_refused_and_the_store_returns_it(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &[]).await?;
    let admin = pgqrs::admin(&store);
    let created = admin.create_queue("tasks").await?;
    assert_eq!(created.name.as_str(), "tasks");
    assert_eq!(created.max_attempts, 20);
    let refused = admin.create_queue("tasks").await;
    assert!(matches!(&refused, Err(Error::QueueExists { queue }) if queue.as_str() == "tasks"));
    assert_eq!(store.queue("tasks").await?.name().as_str(), "tasks");
    assert_eq!(admin.queue("tasks").await?, created);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn queues_are_listed_by_name(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["b", "a", "C"]).await?;
    let queues = pgqrs::admin(&store).queues().await?;
    assert_eq!(
        queues
            .iter()
            .map(|queue| queue.name.as_str())
            .collect::<Vec<_>>(),
        ["C", "a", "b"]
    );
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn eight_calls_at_once_for_a_queue_all_return_it(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &[]).await?;
    let wanting = (0..8).map(|_| {
        let store = store.clone();
        tokio::spawn(async move { store.queue("tasks").await })
    });
    for wanting in wanting.collect::<Vec<_>>() {
        assert_eq!(wanting.await??.name().as_str(), "tasks");
    }
    assert_eq!(pgqrs::admin(&store).queues().await?.len(), 1);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn calls_on_an_unknown_queue_name_it(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &[]).await?;
    let admin = pgqrs::admin(&store);
    let missing = QueueName::new("missing")?;
    let (page, id) = (Page::default(), MessageId::from(1));
    let refusals = [
        admin.queue("missing").await.unwrap_err(),
        admin.delete_queue("missing").await.unwrap_err(),
        admin.purge_queue("missing").await.unwrap_err(),
        admin.queue_stats("missing").await.unwrap_err(),
        admin
            .configure_queue("missing", QueueOptions::default())
            .await
            .unwrap_err(),
        admin.dead_letter_count("missing").await.unwrap_err(),
        admin
            .requeue("missing", MessageId::from(1))
            .await
            .unwrap_err(),
        admin
            .requeue_all("missing", Duration::ZERO)
            .await
            .unwrap_err(),
        admin
            .purge_dead_letters("missing", Duration::ZERO)
            .await
            .unwrap_err(),
        admin
            .purge_archive("missing", Duration::ZERO)
            .await
            .unwrap_err(),
        admin.messages("missing", page).await.unwrap_err(),
        admin.dead_letters("missing", page).await.unwrap_err(),
        admin.archived("missing", page).await.unwrap_err(),
        admin.cancel("missing", id).await.unwrap_err(),
        admin
            .reschedule("missing", id, chrono::Utc::now())
            .await
            .unwrap_err(),
    ];
    for refused in refusals {
        assert!(
            matches!(&refused, Error::QueueNotFound { queue } if *queue == missing),
            "{refused:?}"
        );
    }
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_queue_with_messages_is_not_deleted_and_a_purged_one_is(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks", "other"]).await?;
    let admin = pgqrs::admin(&store);
    pgqrs::enqueue()
        .messages(&[1, 2])
        .to("tasks")
        .execute(&store)
        .await?;
    pgqrs::enqueue()
        .message(&3)
        .to("tasks")
        .delay(60)
        .execute(&store)
        .await?;
    pgqrs::enqueue()
        .message(&4)
        .to("other")
        .execute(&store)
        .await?;
    let _leased = pgqrs::dequeue().from("tasks").execute(&store).await?;

    let refused = admin.delete_queue("tasks").await;
    assert!(
        matches!(refused, Err(Error::QueueNotEmpty { messages: 3, .. })),
        "{refused:?}"
    );
    assert_eq!(count(&pool).await?, 4);
    assert_eq!(admin.purge_queue("tasks").await?, 3);
    admin.delete_queue("tasks").await?;
    assert!(matches!(
        admin.queue("tasks").await,
        Err(Error::QueueNotFound { .. })
    ));
    assert_eq!(count(&pool).await?, 1);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn deleting_a_queue_loses_no_message_that_is_on_its_way(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    // An enqueue whose transaction is still open: the deletion waits for it, and then sees its message.
    let mut tx = pool.begin().await?;
    pgqrs::enqueue()
        .message(&1)
        .to("tasks")
        .execute(&mut tx)
        .await?;
    let deletion = tokio::spawn({
        let store = store.clone();
        async move { pgqrs::admin(&store).delete_queue("tasks").await }
    });
    blocked_backend(&pool, "lock table pgqrs.messages").await;
    tx.commit().await?;
    let refused = deletion.await?;
    assert!(
        matches!(refused, Err(Error::QueueNotEmpty { messages: 1, .. })),
        "{refused:?}"
    );
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn an_enqueue_that_waits_for_a_deletion_finds_no_queue(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let mut deletion = pool.begin().await?;
    sqlx::raw_sql(
        "lock table pgqrs.messages in share row exclusive mode; delete from pgqrs.queues",
    )
    .execute(&mut *deletion)
    .await?;
    let enqueue = tokio::spawn({
        let store = store.clone();
        async move {
            pgqrs::enqueue()
                .message(&1)
                .to("tasks")
                .execute(&store)
                .await
        }
    });
    blocked_backend(&pool, "insert into pgqrs.messages").await;
    deletion.commit().await?;
    let refused = enqueue.await?;
    assert!(
        matches!(refused, Err(Error::QueueNotFound { .. })),
        "{refused:?}"
    );
    assert_eq!(count(&pool).await?, 0);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_deletion_gives_up_behind_a_transaction_that_stays_open(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let mut tx = pool.begin().await?;
    pgqrs::enqueue()
        .message(&1)
        .to("tasks")
        .execute(&mut tx)
        .await?;
    let refused = pgqrs::admin(&store)
        .delete_queue("tasks")
        .await
        .unwrap_err();
    assert!(
        matches!(refused, Error::Database(_)) && refused.is_retryable(),
        "{refused:?}"
    );
    // Nobody is held up any more.
    pgqrs::enqueue()
        .message(&2)
        .to("tasks")
        .execute(&store)
        .await?;
    tx.commit().await?;
    assert_eq!(count(&pool).await?, 2);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn stats_follow_enqueue_delivery_and_ack_exactly(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let admin = pgqrs::admin(&store);
    let counts = async || {
        let stats = admin.queue_stats("tasks").await?;
        Ok::<_, pgqrs::Error>((stats.ready, stats.delayed, stats.leased))
    };
    assert_eq!(counts().await?, (0, 0, 0));
    assert_eq!(admin.queue_stats("tasks").await?.oldest_ready, None);

    let ids = pgqrs::enqueue()
        .messages(&[1, 2, 3])
        .to("tasks")
        .execute(&store)
        .await?;
    pgqrs::enqueue()
        .messages(&[4, 5])
        .to("tasks")
        .delay(60)
        .execute(&store)
        .await?;
    assert_eq!(counts().await?, (3, 2, 0));
    age(&pool, ids[1], Duration::from_secs(600)).await?;
    let stats = admin.queue_stats("tasks").await?;
    let oldest = stats.oldest_ready.expect("three are ready");
    assert!((600..660).contains(&oldest.as_secs()), "{oldest:?}");
    assert_eq!(stats.total(), 5);

    let mut deliveries = pgqrs::dequeue()
        .from("tasks")
        .limit(2)
        .execute(&store)
        .await?;
    assert_eq!(counts().await?, (1, 2, 2));
    deliveries.pop().expect("two").ack(&store).await?;
    assert_eq!(counts().await?, (1, 2, 1));
    // The lease of the other one runs out: it is ready again.
    age(&pool, deliveries[0].id(), Duration::from_secs(60)).await?;
    assert_eq!(counts().await?, (2, 2, 0));
    Ok(())
}

/// Messages are sent, and acknowledged, by the ten: so every exact count is a multiple of ten, and lies
/// between what had surely been done before it and what may have been done by its end.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn stats_are_exact_under_load(pool: PgPool) -> TestResult {
    const PRODUCERS: u64 = 3;
    const BATCHES: u64 = 60;
    with_queues(&pool, &["tasks"]).await?;
    let store = connect(&pool).await?;
    let watcher = connect(&pool).await?;
    let [sending, sent, acking, acked]: [Arc<AtomicU64>; 4] = Default::default();
    let mut working = Vec::new();
    for _ in 0..PRODUCERS {
        let (store, sending, sent) = (store.clone(), Arc::clone(&sending), Arc::clone(&sent));
        working.push(tokio::spawn(async move {
            for _ in 0..BATCHES {
                sending.fetch_add(10, Ordering::SeqCst);
                send(&store, &[0; 10]).await?;
                sent.fetch_add(10, Ordering::SeqCst);
            }
            Ok::<_, Error>(())
        }));
    }
    for _ in 0..3 {
        let (store, acking, acked) = (store.clone(), Arc::clone(&acking), Arc::clone(&acked));
        working.push(tokio::spawn(async move {
            let mut held = Vec::new();
            for _ in 0..BATCHES {
                while held.len() < 10 {
                    held.extend(claim(&store, 10).await?);
                }
                let ten: Vec<_> = held.drain(..10).collect();
                acking.fetch_add(10, Ordering::SeqCst);
                assert!(pgqrs::ack_all(ten, &store).await?.is_empty());
                acked.fetch_add(10, Ordering::SeqCst);
            }
            // What is left over goes to the others.
            for delivery in held {
                delivery.retry_in(Duration::ZERO, &store).await?;
            }
            Ok(())
        }));
    }
    let admin = pgqrs::admin(&watcher);
    let mut looked = 0;
    while !working.iter().all(|working| working.is_finished()) {
        let (surely_sent, surely_acked) =
            (sent.load(Ordering::SeqCst), acked.load(Ordering::SeqCst));
        let stats = admin.queue_stats("tasks").await?;
        let (may_be_sent, may_be_acked) = (
            sending.load(Ordering::SeqCst),
            acking.load(Ordering::SeqCst),
        );
        assert_eq!(stats.total() % 10, 0, "{stats:?}");
        assert!(stats.total() <= may_be_sent - surely_acked, "{stats:?}");
        assert!(stats.total() + may_be_acked >= surely_sent, "{stats:?}");
        assert_eq!(stats.delayed, 0);
        looked += 1;
    }
    for working in working {
        working.await??;
    }
    assert!(looked > 10, "it only looked {looked} times");
    assert_eq!(admin.queue_stats("tasks").await?.total(), 0);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn reading_writes_nothing(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let consumer = pgqrs::consumer("tasks").identity("my-service", 3001);
    let consumer = consumer.create(&store).await?;
    dead(&store, &[1, 2]).await?;
    archived(&store, &[3]).await?;
    send(&store, &[4, 5]).await?;
    let _held = consumer.dequeue().execute(&store).await?;
    let id = consumer.id();
    drop(consumer);
    let url = url(&pool);
    pool.close().await;
    let tables = ["queues", "messages", "workers", "dead_letters", "archive"];
    let mut before = Vec::new();
    for table in tables {
        before.push(changes(&url, table).await?);
    }
    let store = pgqrs::connect(&url).await?;
    let admin = pgqrs::admin(&store);
    let page = Page::builder().payload(true).build();
    for _ in 0..10 {
        admin.queue("tasks").await?;
        admin.queues().await?;
        assert_eq!(admin.queue_stats("tasks").await?.total(), 2);
        assert_eq!(admin.messages("tasks", page).await?.len(), 2);
        assert_eq!(admin.dead_letters("tasks", page).await?.len(), 2);
        assert_eq!(admin.dead_letter_count("tasks").await?, 2);
        assert_eq!(admin.archived("tasks", page).await?.len(), 1);
        assert_eq!(admin.workers(&WorkerFilter::default()).await?.len(), 1);
        assert_eq!(admin.worker(id).await?.id, id);
        assert_eq!(admin.held_messages(id).await?.len(), 1);
        admin.verify().await?;
        store.queue("tasks").await?;
    }
    store.pool().close().await;
    let mut after = Vec::new();
    for table in tables {
        after.push(changes(&url, table).await?);
    }
    assert_eq!(before, after);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_queues_options_can_be_set_and_what_is_not_named_stays(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks", "other"]).await?;
    let admin = pgqrs::admin(&store);
    let thrice = QueueOptions::builder().max_attempts(3).build();
    assert_eq!(
        admin.configure_queue("tasks", thrice).await?.max_attempts,
        3
    );
    let unchanged = QueueOptions::default();
    assert_eq!(
        admin
            .configure_queue("tasks", unchanged)
            .await?
            .max_attempts,
        3
    );
    assert_eq!(admin.queue("tasks").await?.max_attempts, 3);
    assert_eq!(admin.queue("other").await?.max_attempts, 20);
    for attempts in [0, u32::MAX] {
        let options = QueueOptions::builder().max_attempts(attempts).build();
        let refused = admin.configure_queue("tasks", options).await.unwrap_err();
        assert!(
            matches!(refused, Error::InvalidSetting { .. }),
            "{refused:?}"
        );
        assert_eq!(
            refused.to_string(),
            format!("`max_attempts` is {attempts}, and must be from 1 to 2147483647")
        );
    }
    assert_eq!(admin.queue("tasks").await?.max_attempts, 3);
    Ok(())
}

/// Also for messages that were there before, and have had more attempts than that.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn fewer_attempts_count_at_once(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let id = send(&store, &[1]).await?[0];
    for _ in 0..3 {
        one(&store).await?.retry_in(Duration::ZERO, &store).await?;
    }
    let admin = pgqrs::admin(&store);
    let twice = QueueOptions::builder().max_attempts(2).build();
    admin.configure_queue("tasks", twice).await?;
    assert!(claim(&store, 1).await?.is_empty());
    let letters = admin.dead_letters("tasks", Page::default()).await?;
    assert_eq!((letters[0].id, letters[0].attempt), (id, 3));
    assert_eq!(places(&pool).await?, (0, 1, 0));
    Ok(())
}

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
    assert!(!admin.requeue("other", id).await?, "it is of another queue");
    let before = now(&pool).await?;
    assert!(admin.requeue("tasks", id).await?);
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
        !admin.requeue("tasks", id).await?,
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
        assert!(admin.requeue("tasks", id).await?);
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
        assert!(!admin.requeue("tasks", id).await?, "{id}");
    }
    assert_eq!(admin.requeue_all("tasks", Duration::ZERO).await?, 0);
    assert_eq!(everything(&pool).await?, before);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn dead_letters_are_requeued_all_or_by_age(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks", "other"]).await?;
    let admin = pgqrs::admin(&store);
    let ids = dead(&store, &[1, 2, 3, 4, 5]).await?;
    an_hour_later(&pool, &ids[..2]).await?;
    assert_eq!(admin.requeue_all("other", Duration::ZERO).await?, 0);
    assert_eq!(admin.requeue_all("tasks", HALF_AN_HOUR).await?, 2);
    let back: Vec<_> = claim(&store, 10).await?.iter().map(Delivery::id).collect();
    assert_eq!(back, ids[..2]);
    let a_century = HALF_AN_HOUR * 2 * 24 * 36_525;
    assert_eq!(admin.requeue_all("tasks", a_century).await?, 0);
    assert_eq!(admin.requeue_all("tasks", Duration::ZERO).await?, 3);
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
            requeued += i32::from(requeuing.await??);
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
    assert_eq!((stats.ready, stats.leased), (5, 3));
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
async fn cancel_deletes_what_is_not_leased(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks", "other"]).await?;
    let admin = pgqrs::admin(&store);
    let ids = send(&store, &[0, 1, 2]).await?;
    let held = one(&store).await?;
    let delayed = pgqrs::enqueue().message(&3).to("tasks").delay(60);
    let delayed = delayed.execute(&store).await?[0];
    let before = everything(&pool).await?;
    assert!(
        !admin.cancel("tasks", held.id()).await?,
        "it may be handled already"
    );
    assert!(
        !admin.cancel("other", ids[1]).await?,
        "it is of another queue"
    );
    assert_eq!(everything(&pool).await?, before);

    assert!(admin.cancel("tasks", ids[1]).await?);
    assert!(admin.cancel("tasks", delayed).await?);
    assert!(!admin.cancel("tasks", delayed).await?, "it is gone");
    // One whose consumer has crashed, and one that waits for another attempt.
    expire(&pool, held.id()).await?;
    assert!(admin.cancel("tasks", held.id()).await?);
    let lost = held.ack(&store).await.unwrap_err();
    assert!(matches!(lost, Error::LeaseLost { .. }), "{lost:?}");
    one(&store).await?.nack(&store).await?;
    assert!(admin.cancel("tasks", ids[2]).await?);
    assert_eq!(places(&pool).await?, (0, 0, 0));
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_message_is_cancelled_or_delivered_and_never_both(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let mut cancellations = 0;
    for round in 0..100 {
        let id = send(&store, &[round]).await?[0];
        let (admin, there) = (pgqrs::admin(&store), newcomer(&pool));
        let cancelling = tokio::spawn(async move { admin.cancel("tasks", id).await });
        let claiming = tokio::spawn(async move { claim(&there, 1).await });
        let (cancelled, claimed) = (cancelling.await??, claiming.await??);
        assert_eq!(cancelled, claimed.is_empty(), "{claimed:?}");
        cancellations += i32::from(cancelled);
        for delivery in claimed {
            delivery.ack(&store).await?;
        }
        assert_eq!(count(&pool).await?, 0);
    }
    println!("{cancellations} of 100 were cancelled in time");
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
    assert_eq!(admin.requeue_all("tasks", Duration::MAX).await?, 0);
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
