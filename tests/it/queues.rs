//! Queues while they are in use: paused, closed, configured, and cleared of what is old.

mod archive;
mod retention;

use std::time::Duration;

use chrono::TimeDelta;
use pgqrs::{Delivery, Error, Outcome, QueueOptions, RetryPolicy, Store};
use serde_json::Value;
use sqlx::PgPool;

use crate::support::{
    TestResult, claim, connect,
    consumers::{Seen, consumer, drained, gate, pass, start},
    count, now, one, places, send, until, with_queues,
};

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn from_a_paused_queue_nothing_is_claimed_by_anyone_until_it_is_resumed(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(&pool, &["tasks", "others"]).await?;
    let (elsewhere, admin) = (connect(&pool).await?, pgqrs::admin(&store));
    let ids = send(&store, &[1, 2]).await?;
    let held = one(&elsewhere).await?;
    admin.pause_queue("tasks").await?;
    let paused = admin.queue("tasks").await?;
    assert!(paused.is_paused && paused.paused_until.is_none());
    assert!(!admin.queue("others").await?.is_paused);

    // It would not poll before the test times out.
    let seen = Seen::default();
    let patient = consumer().poll_interval(Duration::from_secs(3_600));
    let running = start(patient.create(&store).await?, seen.handler());
    send(&store, &[3]).await?;
    for by in [&store, &elsewhere] {
        assert!(claim(by, 10).await?.is_empty());
    }
    // What is held already is worked off.
    held.extend(Duration::from_secs(60)).await?;
    held.ack(&elsewhere).await?;
    assert_eq!((count(&pool).await?, seen.len()), (2, 0));
    assert_eq!(ids.len(), 2);

    // From another process, so that only a NOTIFY can wake the consumer.
    pgqrs::admin(&elsewhere).resume_queue("tasks").await?;
    drained(&pool).await;
    assert_eq!(running.stop().await?.done, 2);
    assert!(!admin.queue("tasks").await?.is_paused);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_pause_ends_at_its_time_and_what_became_ready_meanwhile_is_delivered_in_order(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let admin = pgqrs::admin(&store);
    let until_then = now(&pool).await? + TimeDelta::hours(1);
    admin.pause_until("tasks", until_then).await?;
    assert_eq!(admin.queue("tasks").await?.paused_until, Some(until_then));
    let ids = send(&store, &[1, 2, 3]).await?;
    for _ in 0..3 {
        assert!(claim(&store, 10).await?.is_empty());
    }
    // The hour passes.
    admin
        .pause_until("tasks", until_then - TimeDelta::hours(2))
        .await?;
    let info = admin.queue("tasks").await?;
    assert_eq!((info.is_paused, info.paused_until), (false, None));
    // Beyond PostgreSQL's calendar, and to the end of chrono's.
    let farthest = chrono::DateTime::<chrono::Utc>::MAX_UTC;
    admin.pause_until("tasks", farthest).await?;
    assert!(admin.queue("tasks").await?.is_paused);
    let longest_ago = chrono::DateTime::<chrono::Utc>::MIN_UTC;
    admin.pause_until("tasks", longest_ago).await?;
    assert!(!admin.queue("tasks").await?.is_paused);
    // At once, and not by a rescan: this store has read the queue while it was paused.
    let claimed: Vec<_> = claim(&store, 10).await?.iter().map(Delivery::id).collect();
    assert_eq!(claimed, &*ids);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn what_a_consumer_has_prefetched_is_worked_off_during_a_pause(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    send(&store, &[0; 20]).await?;
    let (entered, leave) = (gate(), gate());
    let (at, there) = (entered.clone(), leave.clone());
    let running = start(
        consumer().concurrency(4).create(&store).await?,
        move |_: Delivery<Value>| {
            let (at, there) = (at.clone(), there.clone());
            async move {
                at.add_permits(1);
                pass(&there).await;
                Outcome::Done
            }
        },
    );
    for _ in 0..4 {
        pass(&entered).await;
    }
    let held: i64 =
        sqlx::query_scalar("select count(*) from pgqrs.messages where lease_token <> 0")
            .fetch_one(&pool)
            .await?;
    pgqrs::admin(&store).pause_queue("tasks").await?;
    leave.add_permits(1_000);
    until("what was held is done", async || {
        count(&pool).await.is_ok_and(|left| left == 20 - held)
    })
    .await;
    assert_eq!(running.stop().await?.done, held.unsigned_abs());
    Ok(())
}

/// Sends on each way, and returns their errors.
async fn refusals(store: &Store, pool: &PgPool) -> Result<Vec<Error>, Box<dyn std::error::Error>> {
    let one = || pgqrs::enqueue().message(&1).to("tasks");
    let with_header = || one().header("key", "value");
    let mut transaction = pool.begin().await?;
    let mut import = pgqrs::enqueue().to("tasks").import(0..10);
    let batch = vec![1; 1_500];
    let batch = pgqrs::enqueue().messages(&batch).to("tasks");
    let mut errors = vec![
        one().execute(store).await.err(),
        with_header().execute(store).await.err(),
        batch.execute(store).await.err(),
        one().execute(pool).await.err(),
        one().execute(&mut transaction).await.err(),
        with_header().execute(&mut transaction).await.err(),
        import.next(store).await.err(),
    ];
    transaction.commit().await?;
    let statement = one().statement()?;
    let rows: Vec<i64> = sqlx::query_scalar(sqlx::AssertSqlSafe(statement.sql()))
        .bind(statement.queue().as_str())
        .bind(statement.priority())
        .bind(statement.not_before())
        .bind(statement.delay())
        .bind(statement.producer().map(i64::from))
        .bind(statement.payloads())
        .bind(statement.headers())
        .fetch_all(pool)
        .await?;
    errors.push(statement.check(rows).err());
    Ok(errors.into_iter().flatten().collect())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_closed_queue_refuses_sends_on_each_way_and_is_worked_off(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks", "others"]).await?;
    let admin = pgqrs::admin(&store);
    send(&store, &["retried", "done"]).await?;
    let producer = pgqrs::producer("my-service", 3000, "tasks");
    let producer = producer.create(&store).await?;
    admin.close_queue("tasks").await?;
    let closed_at = admin.queue("tasks").await?.closed_at;
    assert!(closed_at.is_some());
    admin.close_queue("tasks").await?;
    assert_eq!(admin.queue("tasks").await?.closed_at, closed_at);
    let mut errors = refusals(&store, &pool).await?;
    assert_eq!(errors.len(), 8);
    let through = producer.enqueue().message(&1);
    errors.push(through.execute(&store).await.unwrap_err());
    for error in errors {
        assert!(
            matches!(&error, Error::QueueClosed { queue } if queue.as_str() == "tasks"),
            "{error:?}"
        );
        assert!(!error.is_retryable() && !error.aborted_transaction());
    }
    producer.suspend().await?;
    let refused = producer.enqueue().message(&1).execute(&store).await;
    assert!(
        matches!(refused, Err(Error::WorkerSuspended { .. })),
        "{refused:?}"
    );

    // Sends that share a statement: those to other queues are stored.
    let sends = (0..200).map(|place| {
        let store = store.clone();
        let queue = if place % 2 == 0 { "tasks" } else { "others" };
        tokio::spawn(async move {
            pgqrs::enqueue()
                .message(&place)
                .to(queue)
                .execute(&store)
                .await
        })
    });
    for (place, sent) in sends.collect::<Vec<_>>().into_iter().enumerate() {
        match sent.await? {
            Ok(_) => assert_eq!(place % 2, 1),
            Err(error) => assert!(place % 2 == 0 && matches!(error, Error::QueueClosed { .. })),
        }
    }
    assert_eq!(count(&pool).await?, 102);

    let running = start(
        consumer().create(&store).await?,
        async |delivery: Delivery<Value>| match (delivery.raw_payload(), delivery.attempt()) {
            (r#""retried""#, 1) => Outcome::Retry("again".to_owned()),
            _ => Outcome::Done,
        },
    );
    until("the closed queue is empty", async || {
        count(&pool).await.is_ok_and(|left| left == 100)
    })
    .await;
    let report = running.stop().await?;
    assert_eq!((report.done, report.retried), (2, 1));
    admin.reopen_queue("tasks").await?;
    assert_eq!(admin.queue("tasks").await?.closed_at, None);
    send(&store, &[1]).await?;
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn settings_of_a_queue_reach_running_consumers_with_their_next_claim(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let admin = pgqrs::admin(&store);
    // As it says itself, a failed message would not come back before the test times out.
    let own = RetryPolicy::fixed(Duration::from_secs(3_600));
    let running = start(
        consumer().retry(own).create(&store).await?,
        async |delivery: Delivery<Value>| match delivery.attempt() {
            1 => Outcome::Retry("again".to_owned()),
            _ => Outcome::Done,
        },
    );
    send(&store, &["before"]).await?;
    let waits = "select extract(epoch from visible_at - now())::float8 from pgqrs.messages where visible_at > now()";
    until("it waits as the consumer says", async || {
        let wait: Option<f64> = sqlx::query_scalar(waits)
            .fetch_optional(&pool)
            .await
            .expect("read");
        wait.is_some_and(|wait| wait > 3_000.0)
    })
    .await;
    sqlx::query("delete from pgqrs.messages")
        .execute(&pool)
        .await?;
    let options = QueueOptions::builder()
        .retry_max(Duration::ZERO)
        .archive_on_ack(true)
        .build();
    let configured = admin.configure_queue("tasks", options).await?;
    assert_eq!(configured.retry_max, Some(Duration::ZERO));
    assert!(configured.archive_on_ack);
    send(&store, &["after"]).await?;
    until("it is retried at once, and archived", async || {
        places(&pool).await.is_ok_and(|places| places == (0, 0, 1))
    })
    .await;
    let report = running.stop().await?;
    assert_eq!((report.retried, report.archived, report.done), (2, 1, 0));

    // `None` leaves it to the consumers again.
    let options = QueueOptions::builder().retry_max(None).build();
    let configured = admin.configure_queue("tasks", options).await?;
    assert_eq!(
        (configured.retry_max, configured.archive_on_ack),
        (None, true)
    );
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_queue_is_sensitive_from_when_on_it_says_so(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let admin = pgqrs::admin(&store);
    assert!(!admin.queue("tasks").await?.sensitive);
    let configure = async |sensitive: Option<bool>| {
        let builder = QueueOptions::builder().max_attempts(3);
        let options = match sensitive {
            Some(sensitive) => builder.sensitive(sensitive).build(),
            None => builder.build(),
        };
        admin.configure_queue("tasks", options).await
    };
    assert!(configure(Some(true)).await?.sensitive);
    assert!(configure(None).await?.sensitive, "other settings leave it");
    assert!(!configure(Some(false)).await?.sensitive);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn settings_of_a_queue_hold_for_dequeues_too(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks", "others"]).await?;
    let admin = pgqrs::admin(&store);
    let options = QueueOptions::builder()
        .lease(Duration::from_secs(300))
        .retry_min(Duration::from_secs(600))
        .archive_on_ack(true)
        .build();
    admin.configure_queue("tasks", options).await?;
    send(&store, &[1, 2, 3]).await?;
    pgqrs::enqueue()
        .message(&4)
        .to("others")
        .execute(&store)
        .await?;
    let mut claimed = claim(&store, 3).await?;
    let lease = claimed[0].lease_expires_at() - now(&pool).await?;
    assert!(lease > TimeDelta::seconds(200), "{lease}");
    claimed.remove(0).ack(&store).await?;
    assert_eq!(places(&pool).await?, (3, 0, 1));
    let nacked = claimed.remove(0);
    let id = nacked.id();
    nacked.nack(&store).await?;
    let visible = admin.messages("tasks", pgqrs::Page::default()).await?;
    let visible = visible
        .iter()
        .find(|message| message.id == id)
        .expect("there");
    let wait = visible.visible_at - now(&pool).await?;
    assert!(wait > TimeDelta::seconds(400), "{wait}");
    // Of two queues, of which one archives.
    let other = pgqrs::dequeue().from("others").execute(&store).await?;
    claimed.extend(other);
    assert!(pgqrs::ack_all(claimed, &store).await?.is_empty());
    assert_eq!(places(&pool).await?, (1, 0, 2));
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_shorter_lease_of_a_queue_is_extended_in_time(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let admin = pgqrs::admin(&store);
    let lease = QueueOptions::builder()
        .lease(Duration::from_millis(600))
        .build();
    admin.configure_queue("tasks", lease).await?;
    send(&store, &[1]).await?;
    let leave = gate();
    let there = leave.clone();
    let running = start(
        consumer().create(&store).await?,
        move |_: Delivery<Value>| {
            let there = there.clone();
            async move {
                pass(&there).await;
                Outcome::Done
            }
        },
    );
    let leases = "select lease_until from pgqrs.messages where lease_token <> 0";
    let mut seen = std::collections::BTreeSet::new();
    until("it was extended twice", async || {
        let lease: Option<chrono::DateTime<chrono::Utc>> = sqlx::query_scalar(leases)
            .fetch_optional(&pool)
            .await
            .expect("read");
        seen.extend(lease);
        seen.len() == 3
    })
    .await;
    leave.add_permits(1);
    drained(&pool).await;
    assert_eq!(running.stop().await?.done, 1);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn settings_that_make_no_sense_are_refused(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let admin = pgqrs::admin(&store);
    let seconds = Duration::from_secs;
    let before = admin.queue("tasks").await?;
    for lease in [Duration::ZERO, seconds(100_000)] {
        let options = QueueOptions::builder().lease(lease).build();
        let refused = admin.configure_queue("tasks", options).await;
        assert!(
            matches!(refused, Err(Error::LeaseOutOfRange { .. })),
            "{refused:?}"
        );
    }
    let options = QueueOptions::builder()
        .retry_min(seconds(2))
        .retry_max(seconds(1));
    let refused = admin.configure_queue("tasks", options.build()).await;
    let is_refused = |refused: &pgqrs::Result<pgqrs::QueueInfo>| {
        matches!(
            refused,
            Err(Error::InvalidSetting {
                setting: "retry_max",
                ..
            })
        )
    };
    assert!(is_refused(&refused), "{refused:?}");
    assert_eq!(admin.queue("tasks").await?, before);
    // One after the other.
    let options = QueueOptions::builder().retry_min(seconds(2)).build();
    admin.configure_queue("tasks", options).await?;
    let options = QueueOptions::builder().retry_max(seconds(1)).build();
    let refused = admin.configure_queue("tasks", options).await;
    assert!(is_refused(&refused), "{refused:?}");
    // Beyond PostgreSQL's calendar.
    let options = QueueOptions::builder()
        .archive_for(Duration::MAX)
        .dead_letters_for(Duration::ZERO)
        .build();
    let configured = admin.configure_queue("tasks", options).await?;
    assert!(configured.archive_for > Some(seconds(30_000_000_000)));
    assert_eq!(configured.dead_letters_for, Some(Duration::ZERO));
    let _: Vec<Delivery<Value, pgqrs::Unchecked>> = claim(&store, 1).await?;
    Ok(())
}
