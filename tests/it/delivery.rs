//! `Delivery`: settled once, or not at all.

pub(crate) mod ack_statement;
mod batch;
mod lost;

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use pgqrs::{
    Delivery, Error, Executor, MessageId, Page, Priority, Queue, QueueOptions, RetryPolicy,
    Unchecked, Unsettled,
};
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::support::{
    TestResult, blocked_backend, claim, connect, count, everything, expire, newcomer, now, one,
    places, send, terminate, until, with_queues,
};

/// Each way to settle.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Verb {
    Ack,
    Archive,
    Nack,
    RetryIn,
    Later,
    DeadLetter,
}

const VERBS: [Verb; 6] = [
    Verb::Ack,
    Verb::Archive,
    Verb::Nack,
    Verb::RetryIn,
    Verb::Later,
    Verb::DeadLetter,
];

impl Verb {
    async fn settle(
        self,
        delivery: Delivery<Value, Unchecked>,
        on: impl Executor,
    ) -> Result<(), Unsettled<Value, Unchecked>> {
        match self {
            Self::Ack => delivery.try_ack(on).await,
            Self::Archive => delivery.try_archive(on).await,
            Self::Nack => delivery.try_nack(on).await,
            Self::RetryIn => delivery.try_retry_in(Duration::from_secs(60), on).await,
            Self::Later => delivery.try_later(Duration::from_secs(60), on).await,
            Self::DeadLetter => delivery.try_dead_letter("no such customer", on).await,
        }
    }

    /// Where it leaves a message that was the only one: messages, dead letters, archive.
    fn leaves(self) -> (i64, i64, i64) {
        match self {
            Self::Ack => (0, 0, 0),
            Self::Archive => (0, 0, 1),
            Self::Nack | Self::RetryIn | Self::Later => (1, 0, 0),
            Self::DeadLetter => (0, 1, 0),
        }
    }
}

/// When the only message can be delivered, and whether it is leased.
async fn visible(pool: &PgPool) -> sqlx::Result<(DateTime<Utc>, bool)> {
    sqlx::query_as(
        "select greatest(visible_at, lease_until), lease_until > now() from pgqrs.messages",
    )
    .fetch_one(pool)
    .await
}

async fn clear(pool: &PgPool) -> TestResult {
    sqlx::query("truncate pgqrs.messages, pgqrs.dead_letters, pgqrs.archive")
        .execute(pool)
        .await?;
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn ack_consumes_the_message_and_no_other(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let ids = send(&store, &[1, 2]).await?;
    let delivery = one(&store).await?;
    assert_eq!(delivery.id(), ids[0]);
    delivery.ack(&store).await?;
    assert_eq!(places(&pool).await?, (1, 0, 0));
    assert_eq!(one(&store).await?.id(), ids[1]);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn archive_keeps_the_message_as_it_was(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let batch = pgqrs::enqueue()
        .message(&json!({"a": [null], "b": 1}))
        .priority(Priority::High);
    let ids = batch.to("tasks").execute(&store).await?;
    let delivery = one(&store).await?;
    let enqueued_at = delivery.enqueued_at();
    let before = now(&pool).await?;
    delivery.archive(&store).await?;

    assert_eq!(places(&pool).await?, (0, 0, 1));
    let with_payload = Page::builder().payload(true).build();
    let archived = &pgqrs::admin(&store).archived("tasks", with_payload).await?[0];
    assert_eq!(
        (
            archived.id,
            archived.priority,
            archived.attempt,
            archived.enqueued_at
        ),
        (ids[0], Priority::High, 1, enqueued_at)
    );
    assert_eq!(archived.payload.as_deref(), Some(r#"{"a":[null],"b":1}"#));
    assert!((before..now(&pool).await?).contains(&archived.archived_at));
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn nack_waits_by_the_default_policy_longer_each_time(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let id = send(&store, &[1]).await?[0];
    let policy = RetryPolicy::default();
    for attempt in 1..=5 {
        let delivery = one(&store).await?;
        assert_eq!(delivery.attempt(), attempt);
        let before = now(&pool).await?;
        delivery.nack(&store).await?;
        let after = now(&pool).await?;
        let (visible_at, leased) = visible(&pool).await?;
        let (longest, shortest) = (policy.delay(attempt), policy.delay(attempt).mul_f64(0.75));
        assert!(
            (before + shortest..=after + longest).contains(&visible_at),
            "attempt {attempt}: {visible_at} between {before} and {after}"
        );
        assert!(!leased);
        assert!(claim(&store, 1).await?.is_empty());
        expire(&pool, id).await?;
    }
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn nack_with_its_attempts_used_up_is_a_dead_letter(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let admin = pgqrs::admin(&store);
    let twice = QueueOptions::builder().max_attempts(2).build();
    admin.configure_queue("tasks", twice).await?;
    for last in [Verb::Nack, Verb::RetryIn] {
        let id = send(&store, &["hopeless"]).await?[0];
        one(&store).await?.nack(&store).await?;
        assert_eq!(places(&pool).await?, (1, 0, 0), "{last:?}");
        expire(&pool, id).await?;
        last.settle(one(&store).await?, &store).await?;
        assert_eq!(places(&pool).await?, (0, 1, 0), "{last:?}");
        let with_payload = Page::builder().payload(true).build();
        let dead = &admin.dead_letters("tasks", with_payload).await?[0];
        assert_eq!(
            (
                dead.id,
                dead.attempt,
                dead.reason.as_str(),
                dead.payload.as_deref()
            ),
            (id, 2, "attempts used up", Some(r#""hopeless""#))
        );
        clear(&pool).await?;
    }
    Ok(())
}

/// At any moment each message is in just one place.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn on_its_way_to_the_dead_letters_a_message_is_neither_lost_nor_doubled(
    pool: PgPool,
) -> TestResult {
    const MESSAGES: i64 = 200;
    let store = with_queues(&pool, &["tasks"]).await?;
    let once = QueueOptions::builder().max_attempts(1).build();
    pgqrs::admin(&store).configure_queue("tasks", once).await?;
    send(&store, &[0; MESSAGES as usize]).await?;
    let failing = tokio::spawn({
        let store = store.clone();
        async move {
            for delivery in claim(&store, MESSAGES as u32).await? {
                delivery.nack(&store).await?;
            }
            Ok::<_, Error>(())
        }
    });
    let mut halfway = 0;
    until("all are dead", async || {
        let (messages, dead, _) = places(&pool).await.expect("counted");
        assert_eq!(messages + dead, MESSAGES);
        halfway += i32::from(messages > 0 && dead > 0);
        dead == MESSAGES
    })
    .await;
    failing.await??;
    assert!(halfway > 0, "no query ran in the meantime");
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn retry_in_waits_for_its_duration(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let id = send(&store, &[1]).await?[0];
    for wait in [
        Duration::from_millis(1_500),
        Duration::from_secs(86_400 * 30),
    ] {
        let delivery = one(&store).await?;
        let before = now(&pool).await?;
        delivery.retry_in(wait, &store).await?;
        let after = now(&pool).await?;
        let (visible_at, leased) = visible(&pool).await?;
        assert!((before + wait..=after + wait).contains(&visible_at) && !leased);
        assert!(claim(&store, 1).await?.is_empty());
        expire(&pool, id).await?;
    }
    one(&store).await?.retry_in(Duration::ZERO, &store).await?;
    assert_eq!(one(&store).await?.attempt(), 4);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_wait_beyond_the_calendar_hands_the_delivery_back(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    send(&store, &[1]).await?;
    let delivery = one(&store).await?;
    let before = everything(&pool).await?;
    let unsettled = delivery
        .try_retry_in(Duration::MAX, &store)
        .await
        .unwrap_err();
    assert!(
        matches!(unsettled.error(), Error::DelayTooLong { .. }),
        "{unsettled:?}"
    );
    assert_eq!(everything(&pool).await?, before);
    unsettled.into_delivery().ack(&store).await?;
    assert_eq!(count(&pool).await?, 0);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn dead_letter_keeps_the_reason_whatever_attempts_are_left(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let id = send(&store, &["to no one"]).await?[0];
    let delivery = one(&store).await?;
    let enqueued_at = delivery.enqueued_at();
    // A zero character is what PostgreSQL's text doesn't hold.
    delivery.dead_letter("no such\0customer: ☹", &store).await?;
    assert_eq!(places(&pool).await?, (0, 1, 0));
    let with_payload = Page::builder().payload(true).build();
    let dead = &pgqrs::admin(&store)
        .dead_letters("tasks", with_payload)
        .await?[0];
    assert_eq!(
        (
            dead.id,
            dead.attempt,
            dead.enqueued_at,
            dead.last_error.as_deref()
        ),
        (id, 1, enqueued_at, None)
    );
    assert_eq!(dead.reason, "no such\u{fffd}customer: ☹");
    assert_eq!(dead.payload.as_deref(), Some(r#""to no one""#));
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn extend_moves_the_lease_from_now_on(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    send(&store, &[1]).await?;
    let delivery = one(&store).await?;
    // Forwards and back: it is from now on, not in addition to what is left.
    for lease in [3_600, 60, 86_400].map(Duration::from_secs) {
        let before = now(&pool).await?;
        delivery.extend(lease).await?;
        let after = now(&pool).await?;
        let ends = delivery.lease_expires_at();
        assert!((before + lease..=after + lease).contains(&ends), "{ends}");
        assert_eq!(visible(&pool).await?, (ends, true));
    }
    assert!(claim(&store, 1).await?.is_empty());
    delivery.ack(&store).await?;
    assert_eq!(count(&pool).await?, 0);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn extend_by_nothing_or_by_more_than_a_day_is_refused(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    send(&store, &[1]).await?;
    let delivery = one(&store).await?;
    let before = everything(&pool).await?;
    for lease in [Duration::ZERO, Duration::from_secs(86_401), Duration::MAX] {
        let refused = delivery.extend(lease).await;
        assert!(
            matches!(refused, Err(Error::LeaseOutOfRange { .. })),
            "{refused:?}"
        );
    }
    assert_eq!(everything(&pool).await?, before);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn in_a_transaction_it_is_settled_with_the_work_or_not_at_all(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    sqlx::query("create table work (verb text)")
        .execute(&pool)
        .await?;
    for (done, verb) in (1..).zip(VERBS) {
        let id = send(&store, &[1]).await?[0];
        let delivery = one(&store).await?;
        let before = everything(&pool).await?;
        let mut tx = pool.begin().await?;
        let work = "insert into work values ($1)";
        sqlx::query(work)
            .bind(format!("{verb:?}"))
            .execute(&mut *tx)
            .await?;
        verb.settle(delivery, &mut tx).await?;
        // Nobody else sees anything of it yet.
        assert_eq!(everything(&pool).await?, before, "{verb:?}");
        tx.rollback().await?;
        assert_eq!(everything(&pool).await?, before, "{verb:?}");

        expire(&pool, id).await?;
        let delivery = one(&store).await?;
        assert_eq!(delivery.attempt(), 2, "{verb:?}");
        let mut tx = pool.begin().await?;
        sqlx::query(work)
            .bind(format!("{verb:?}"))
            .execute(&mut *tx)
            .await?;
        verb.settle(delivery, &mut tx).await?;
        tx.commit().await?;
        assert_eq!(places(&pool).await?, verb.leaves(), "{verb:?}");
        let worked: i64 = sqlx::query_scalar("select count(*) from work")
            .fetch_one(&pool)
            .await?;
        assert_eq!(worked, done, "{verb:?}");
        clear(&pool).await?;
    }
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_payload_of_another_shape_is_a_typed_error_and_the_delivery_stays_usable(
    pool: PgPool,
) -> TestResult {
    const NUMBERS: Queue<u32> = Queue::new("tasks");
    let store = with_queues(&pool, &["tasks"]).await?;
    let ids = send(&store, &[json!({"not": "a number"})]).await?;
    let delivery = pgqrs::dequeue()
        .from(NUMBERS)
        .execute(&store)
        .await?
        .pop()
        .expect("one");
    let undecoded = delivery.decoded().unwrap_err();
    assert!(matches!(undecoded.error(), Error::Decode { message, .. } if *message == ids[0]));
    let delivery = undecoded.into_delivery();
    let error = delivery.payload().unwrap_err();
    let Error::Decode { message, source } = &error else {
        panic!("{error:?}")
    };
    assert_eq!(*message, ids[0]);
    assert!(source.to_string().contains("expected u32"), "{source}");
    assert_eq!(delivery.raw_payload(), r#"{"not":"a number"}"#);
    delivery.dead_letter("not a number", &store).await?;
    assert_eq!(places(&pool).await?, (0, 1, 0));
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_delivery_shows_no_payload_in_a_log(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    send(&store, &["secret"]).await?;
    let delivery = one(&store).await?;
    assert!(!format!("{delivery:?}").contains("secret"));
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_dequeued_delivery_becomes_one_as_a_handler_gets_it(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    send(&store, &["hello"]).await?;
    let decoded = one(&store).await?.decoded()?;
    assert_eq!(decoded.payload(), "hello");
    assert_eq!(decoded.into_payload(), json!("hello"));
    // It was dropped, and so not settled.
    assert_eq!(count(&pool).await?, 1);
    Ok(())
}
