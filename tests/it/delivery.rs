//! `Delivery`: settled once, or not at all.

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
    DeadLetter,
}

const VERBS: [Verb; 5] = [
    Verb::Ack,
    Verb::Archive,
    Verb::Nack,
    Verb::RetryIn,
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
            Self::DeadLetter => delivery.try_dead_letter("no such customer", on).await,
        }
    }

    /// Where it leaves a message that was the only one: messages, dead letters, archive.
    fn leaves(self) -> (i64, i64, i64) {
        match self {
            Self::Ack => (0, 0, 0),
            Self::Archive => (0, 0, 1),
            Self::Nack | Self::RetryIn => (1, 0, 0),
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
async fn extend_after_the_message_went_to_another_is_lease_lost(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let id = send(&store, &[1]).await?[0];
    let late = one(&store).await?;
    let ended = late.lease_expires_at();
    expire(&pool, id).await?;
    let holder = one(&store).await?;
    let before = everything(&pool).await?;
    let lost = late.extend(Duration::from_secs(3_600)).await;
    assert!(
        matches!(lost, Err(Error::LeaseLost { message }) if message == id),
        "{lost:?}"
    );
    assert_eq!(late.lease_expires_at(), ended);
    assert_eq!(everything(&pool).await?, before);
    holder.extend(Duration::from_secs(3_600)).await?;

    pgqrs::admin(&store).purge_queue("tasks").await?;
    let lost = holder.extend(Duration::from_secs(60)).await;
    assert!(matches!(lost, Err(Error::LeaseLost { .. })), "{lost:?}");
    Ok(())
}

/// While no other consumer has claimed the message, its holder may settle it.
/// As if a handler extends its lease while the loop does.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn an_extension_that_meets_another_waits_and_is_made(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    send(&store, &[1]).await?;
    let delivery = one(&store).await?;
    let mut other = pool.begin().await?;
    sqlx::query("update pgqrs.messages set lease_until = lease_until + interval '1 second'")
        .execute(&mut *other)
        .await?;
    let extending = tokio::spawn(async move {
        let extended = delivery.extend(Duration::from_secs(3_600)).await;
        extended.map(|()| delivery)
    });
    blocked_backend(&pool, "update pgqrs.messages").await;
    other.commit().await?;
    let delivery = extending.await??;
    assert!(delivery.lease_expires_at() > now(&pool).await? + TimeDelta::minutes(50));
    delivery.ack(&store).await?;
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_lease_that_ran_out_unnoticed_can_be_extended_and_settled(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    for verb in VERBS {
        let id = send(&store, &[1]).await?[0];
        let delivery = one(&store).await?;
        expire(&pool, id).await?;
        delivery.extend(Duration::from_secs(60)).await?;
        assert!(claim(&newcomer(&pool), 1).await?.is_empty());
        expire(&pool, id).await?;
        verb.settle(delivery, &store).await?;
        assert_eq!(places(&pool).await?, verb.leaves(), "{verb:?}");
        clear(&pool).await?;
    }
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
async fn after_the_message_went_to_another_each_verb_is_lease_lost_and_changes_nothing(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    for verb in VERBS {
        let id = send(&store, &[1]).await?[0];
        let late = one(&store).await?;
        expire(&pool, id).await?;
        let holder = one(&store).await?;
        let before = everything(&pool).await?;

        let unsettled = verb.settle(late, &store).await.unwrap_err();
        assert!(
            matches!(unsettled.error(), Error::LeaseLost { message } if *message == id),
            "{unsettled:?}"
        );
        assert!(!unsettled.error().is_retryable());
        // In a transaction too, which goes on.
        let mut tx = pool.begin().await?;
        let again = verb
            .settle(unsettled.into_delivery(), &mut tx)
            .await
            .unwrap_err();
        assert!(
            matches!(again.error(), Error::LeaseLost { .. }),
            "{again:?}"
        );
        tx.commit().await?;
        assert_eq!(again.into_delivery().id(), id);
        assert_eq!(everything(&pool).await?, before, "{verb:?}");

        verb.settle(holder, &store).await?;
        assert_eq!(places(&pool).await?, verb.leaves(), "{verb:?}");
        clear(&pool).await?;
    }
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn of_a_purged_message_each_verb_says_that_it_is_gone(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    for verb in VERBS {
        send(&store, &[1]).await?;
        let delivery = one(&store).await?;
        assert_eq!(pgqrs::admin(&store).purge_queue("tasks").await?, 1);
        let lost: Error = verb.settle(delivery, &store).await.unwrap_err().into();
        assert!(
            matches!(lost, Error::LeaseLost { .. }),
            "{verb:?}: {lost:?}"
        );
        assert!(lost.to_string().contains("gone"), "{lost}");
        assert_eq!(places(&pool).await?, (0, 0, 0), "{verb:?}");
    }
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn when_the_connection_breaks_the_delivery_is_returned_for_a_retry(
    pool: PgPool,
) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let store = connect(&pool).await?;
    for verb in VERBS {
        send(&store, &[1]).await?;
        let delivery = one(&store).await?;
        let before = everything(&pool).await?;
        let mut blocker = pool.begin().await?;
        let lock = "lock table pgqrs.messages in share mode";
        sqlx::query(lock).execute(&mut *blocker).await?;
        let call = tokio::spawn({
            let store = store.clone();
            async move { verb.settle(delivery, &store).await }
        });
        terminate(&pool, blocked_backend(&pool, "pgqrs.messages").await).await?;
        let unsettled = call.await?.unwrap_err();
        assert!(unsettled.error().is_retryable(), "{unsettled:?}");
        blocker.rollback().await?;
        assert_eq!(everything(&pool).await?, before, "{verb:?}");
        verb.settle(unsettled.into_delivery(), &store).await?;
        assert_eq!(places(&pool).await?, verb.leaves(), "{verb:?}");
        clear(&pool).await?;
    }
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn when_a_transactions_connection_breaks_the_delivery_is_handed_back_too(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    for verb in VERBS {
        send(&store, &[1]).await?;
        let delivery = one(&store).await?;
        let mut tx = pool.begin().await?;
        let backend: i32 = sqlx::query_scalar("select pg_backend_pid()")
            .fetch_one(&mut *tx)
            .await?;
        terminate(&pool, backend).await?;
        let unsettled = verb.settle(delivery, &mut tx).await.unwrap_err();
        assert!(
            !matches!(unsettled.error(), Error::LeaseLost { .. }),
            "{unsettled:?}"
        );
        drop(tx);
        verb.settle(unsettled.into_delivery(), &store).await?;
        assert_eq!(places(&pool).await?, verb.leaves(), "{verb:?}");
        clear(&pool).await?;
    }
    Ok(())
}

/// The late one and the holder settle at the same moment, on connections of their own: it is the holder's
/// word that counts, whatever the late one says.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn of_two_consumers_that_settle_at_once_the_holder_wins(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    for late_verb in VERBS {
        for verb in VERBS {
            let id = send(&store, &[1]).await?[0];
            let late = one(&store).await?;
            expire(&pool, id).await?;
            let holder = one(&store).await?;
            let (store, other) = (store.clone(), newcomer(&pool));
            let late = tokio::spawn(async move { late_verb.settle(late, &other).await });
            let holder = tokio::spawn(async move { verb.settle(holder, &store).await });
            let lost = late.await?.unwrap_err();
            assert!(matches!(lost.error(), Error::LeaseLost { .. }), "{lost:?}");
            holder.await??;
            assert_eq!(
                places(&pool).await?,
                verb.leaves(),
                "{late_verb:?} against {verb:?}"
            );
            clear(&pool).await?;
        }
    }
    Ok(())
}

/// An acknowledgement that comes at the moment when the lease is over and another consumer claims.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn of_an_ack_and_a_claim_at_once_exactly_one_gets_the_message(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let mut acked = 0;
    for round in 0..100 {
        let id = send(&store, &[round]).await?[0];
        let delivery = one(&store).await?;
        expire(&pool, id).await?;
        let (here, there) = (store.clone(), newcomer(&pool));
        let late = async move { delivery.ack(&here).await };
        let claiming = async move { claim(&there, 1).await };
        // The task that is spawned first has a head start.
        let (late, claiming) = match round % 2 {
            0 => (tokio::spawn(late), tokio::spawn(claiming)),
            _ => {
                let claiming = tokio::spawn(claiming);
                (tokio::spawn(late), claiming)
            }
        };
        let claimed = claiming.await??;
        match late.await? {
            Ok(()) => {
                assert!(claimed.is_empty(), "both had it: {claimed:?}");
                acked += 1;
            }
            Err(unsettled) => {
                assert!(
                    matches!(unsettled, Error::LeaseLost { .. }),
                    "{unsettled:?}"
                );
                // The claim steps over a row that the acknowledgement is just locking, but then it is gone.
                assert_eq!(claimed.len(), 1, "neither had it");
                assert_eq!(claimed[0].attempt(), 2);
            }
        }
        clear(&pool).await?;
    }
    println!("{acked} of 100 acknowledgements came first");
    Ok(())
}

/// The acknowledgement's transaction is open while the lease ends: no other consumer gets the message meanwhile.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_message_that_is_being_acknowledged_is_not_delivered_although_its_lease_is_over(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let id = send(&store, &[1]).await?[0];
    let delivery = one(&store).await?;
    expire(&pool, id).await?;
    let mut tx = pool.begin().await?;
    delivery.ack(&mut tx).await?;
    let others = newcomer(&pool);
    assert!(claim(&others, 1).await?.is_empty());
    tx.rollback().await?;
    assert_eq!(claim(&newcomer(&pool), 1).await?[0].attempt(), 2);
    Ok(())
}

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

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn headers_are_as_they_were_stored(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let ids = send(&store, &["with", "without"]).await?;
    sqlx::query("update pgqrs.messages set headers = $2::json where id = $1")
        .bind(ids[0].get())
        .bind(r#"{"traceparent":  "00-0af7", "n": 1.0}"#)
        .execute(&pool)
        .await?;
    let deliveries = claim(&store, 2).await?;
    let headers: Vec<_> = deliveries
        .iter()
        .map(|delivery| delivery.headers().map(|headers| headers.get()))
        .collect();
    assert_eq!(
        headers,
        [Some(r#"{"traceparent":  "00-0af7", "n": 1.0}"#), None]
    );
    Ok(())
}

/// With the message, wherever it goes.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn headers_go_along_to_the_archive_and_to_the_dead_letters_and_back(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let ids = send(&store, &[1, 2]).await?;
    sqlx::query(r#"update pgqrs.messages set headers = '{"n":1}'"#)
        .execute(&pool)
        .await?;
    one(&store).await?.archive(&store).await?;
    one(&store).await?.dead_letter("no", &store).await?;
    let archived: Option<String> = sqlx::query_scalar("select headers::text from pgqrs.archive")
        .fetch_one(&pool)
        .await?;
    assert_eq!(archived.as_deref(), Some(r#"{"n":1}"#));
    assert!(pgqrs::admin(&store).requeue("tasks", ids[1]).await?);
    let again = one(&store).await?;
    assert_eq!(
        again.headers().map(|headers| headers.get()),
        Some(r#"{"n":1}"#)
    );
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
