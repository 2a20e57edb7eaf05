//! Only the database's clock is used. Here its clock and that of its clients are an hour apart, and nothing is
//! different for it.
//!
//! It is the server's clock that is moved: ahead of `pg_catalog` stands a schema with functions of our own.

use std::{sync::Arc, time::Duration};

use chrono::{TimeDelta, Utc};
use pgqrs::{Delivery, Error, Outcome, Page, QueueOptions, RetryPolicy, Store, Worker};
use serde_json::Value;
use sqlx::{PgPool, postgres::PgPoolOptions};

use crate::support::{
    TestResult, claim, connect,
    consumers::{Seen, consumer, drained, gate, pass, start},
    expire, now, one, places, send, until,
};

/// A pool on the test's database whose server's clock goes wrong by so much, with the schema installed.
async fn with_clock(pool: &PgPool, off_by: &str) -> Result<PgPool, Box<dyn std::error::Error>> {
    sqlx::raw_sql("create schema shifted").execute(pool).await?;
    set_clock(pool, off_by).await?;
    let first = "do $$ begin
        execute format(
            'alter database %I set search_path = shifted, pg_catalog, public', current_database()
        );
    end $$";
    sqlx::raw_sql(first).execute(pool).await?;
    let options = (*pool.connect_options()).clone();
    let shifted = PgPoolOptions::new()
        .max_connections(5)
        .connect_with(options)
        .await?;
    pgqrs::admin(&Store::from(shifted.clone()))
        .install()
        .await?;
    // The schema's functions have a search path of their own.
    let functions = "do $$ declare function regprocedure; begin
        for function in select oid from pg_proc where pronamespace = 'pgqrs'::regnamespace loop
            execute format('alter function %s set search_path = shifted, pg_catalog, pg_temp', function);
        end loop;
    end $$";
    sqlx::raw_sql(functions).execute(&shifted).await?;
    Ok(shifted)
}

/// From now on the server's clock goes wrong by so much.
async fn set_clock(pool: &PgPool, off_by: &str) -> sqlx::Result<()> {
    let mut script = String::new();
    for (function, volatility) in [
        ("now", "stable"),
        ("transaction_timestamp", "stable"),
        ("statement_timestamp", "stable"),
        ("clock_timestamp", "volatile"),
    ] {
        script += &format!(
            "create or replace function shifted.{function}() returns timestamptz language sql {volatility}
             as $$ select pg_catalog.{function}() + interval '{off_by}' $$;\n"
        );
    }
    sqlx::raw_sql(sqlx::AssertSqlSafe(script))
        .execute(pool)
        .await?;
    Ok(())
}

/// What depends on time, from the enqueue to the dead letters.
async fn check_messages(pool: &PgPool, store: &Store) -> TestResult {
    let admin = pgqrs::admin(store);
    // Ready at once.
    send(store, &[1]).await?;
    let stats = admin.queue_stats("tasks").await?;
    assert!(
        stats
            .oldest_ready
            .is_some_and(|age| age < Duration::from_secs(60)),
        "{stats:?}"
    );
    let before = now(pool).await?;
    let delivery = one(store).await?;
    let lease = Duration::from_secs(30);
    assert!((before + lease..=now(pool).await? + lease).contains(&delivery.lease_expires_at()));
    assert!((before - TimeDelta::minutes(1)..=before).contains(&delivery.enqueued_at()));
    assert!(claim(store, 1).await?.is_empty());
    assert_eq!(admin.queue_stats("tasks").await?.leased, 1);

    // Extended, put back by the policy, and delivered again.
    let lease = Duration::from_secs(600);
    let before = now(pool).await?;
    delivery.extend(lease).await?;
    assert!((before + lease..=now(pool).await? + lease).contains(&delivery.lease_expires_at()));
    let id = delivery.id();
    delivery.nack(store).await?;
    let waits = admin.messages("tasks", Page::default()).await?[0].visible_at - before;
    assert!((0..60).contains(&waits.num_seconds()), "{waits}");
    expire(pool, id).await?;
    one(store).await?.ack(store).await?;

    // Delayed, by a span and until a time.
    let delay = Duration::from_secs(600);
    let before = now(pool).await?;
    pgqrs::enqueue()
        .message(&2)
        .to("tasks")
        .delay(delay)
        .execute(store)
        .await?;
    pgqrs::enqueue()
        .message(&3)
        .to("tasks")
        .at(before + delay)
        .execute(store)
        .await?;
    let after = now(pool).await?;
    assert!(claim(store, 1).await?.is_empty());
    let delayed = admin.messages("tasks", Page::default()).await?;
    assert!((before + delay..=after + delay).contains(&delayed[0].visible_at));
    assert_eq!(delayed[1].visible_at, before + delay);
    assert!(admin.reschedule("tasks", delayed[0].id, before).await?);
    assert!(admin.cancel("tasks", delayed[1].id).await?.is_some());
    one(store).await?.ack(store).await?;

    // A lease runs out when it should: not an hour before, and not after.
    send(store, &[4]).await?;
    let short = pgqrs::dequeue()
        .from("tasks")
        .lease(Duration::from_millis(50));
    let late = short.execute(store).await?.pop().expect("one is ready");
    let mut again = None;
    until("the lease has run out", async || {
        again = claim(store, 1).await.expect("claimed").pop();
        again.is_some()
    })
    .await;
    let again = again.expect("just seen");
    assert_eq!(again.attempt(), 2);
    assert!(now(pool).await? >= late.lease_expires_at());
    let lost = late.ack(store).await.expect_err("another has it");
    assert!(matches!(lost, Error::LeaseLost { .. }), "{lost:?}");

    // What has just died, or was archived, is not an hour old.
    let before = now(pool).await?;
    again.dead_letter("in a test", store).await?;
    send(store, &[5]).await?;
    one(store).await?.archive(store).await?;
    let died_at = admin.dead_letters("tasks", Page::default()).await?[0].died_at;
    assert!((before..=now(pool).await?).contains(&died_at));
    let half_an_hour = Duration::from_secs(1_800);
    assert_eq!(admin.purge_dead_letters("tasks", half_an_hour).await?, 0);
    assert_eq!(admin.requeue_all("tasks", half_an_hour).await?.back, 0);
    assert_eq!(admin.purge_archive("tasks", half_an_hour).await?, 0);
    assert_eq!(admin.requeue_all("tasks", Duration::ZERO).await?.back, 1);
    one(store).await?.ack(store).await?;
    assert_eq!(admin.purge_archive("tasks", Duration::ZERO).await?, 1);
    assert_eq!(places(pool).await?, (0, 0, 0));
    Ok(())
}

/// A live worker lives, and one that has been silent for too long doesn't.
async fn check_workers(pool: &PgPool, store: &Store) -> TestResult {
    let admin = pgqrs::admin(store);
    let worker = pgqrs::producer("my-service", 3000, "tasks")
        .create(store)
        .await?;
    worker.heartbeat().await?;
    assert!(worker.is_healthy(Duration::from_secs(60)).await?);
    assert!(!admin.worker(worker.id()).await?.stale);
    let second = pgqrs::producer("my-service", 3000, "tasks")
        .create(store)
        .await;
    assert!(
        matches!(second, Err(Error::WorkerExists { .. })),
        "{second:?}"
    );
    assert_eq!(admin.remove_ended_workers(Duration::ZERO).await?, 0);
    sqlx::query("update pgqrs.workers set heartbeat_at = heartbeat_at - interval '90 seconds'")
        .execute(pool)
        .await?;
    assert!(admin.worker(worker.id()).await?.stale);
    let second = pgqrs::producer("my-service", 3000, "tasks")
        .create(store)
        .await?;
    second.shutdown().await?;
    Ok(())
}

/// Handlers take longer than their leases, and some fail: each is done once, or dies after its attempts.
async fn check_consumer(pool: &PgPool, store: &Store) -> TestResult {
    let admin = pgqrs::admin(store);
    let twice = QueueOptions::builder().max_attempts(2).build();
    admin.configure_queue("tasks", twice).await?;
    send(store, &(0..50).collect::<Vec<_>>()).await?;
    let lease = Duration::from_secs(2);
    let retry = RetryPolicy::fixed(Duration::from_millis(20));
    let steady = consumer().lease(lease).retry(retry).create(store).await?;
    let seen = Seen::default();
    let gate = gate();
    let running = start(steady, {
        let (seen, gate) = (seen.clone(), Arc::clone(&gate));
        move |delivery: Delivery<Value>| {
            let (seen, gate) = (seen.clone(), Arc::clone(&gate));
            async move {
                seen.note(delivery.raw_payload());
                match delivery.payload().as_u64() {
                    Some(7) => {
                        pass(&gate).await;
                        Outcome::Done
                    }
                    Some(13) => Outcome::Retry("again".to_owned()),
                    _ => Outcome::Done,
                }
            }
        }
    });
    let since = now(pool).await?;
    until("the lease was extended again and again", async || {
        let messages = admin
            .messages("tasks", Page::default())
            .await
            .expect("listed");
        messages
            .iter()
            .all(|message| message.lease_expires_at > Some(since + lease * 2))
    })
    .await;
    gate.add_permits(1);
    drained(pool).await;
    let report = running.stop().await?;
    assert_eq!(
        (report.done, report.retried, report.dead, report.lost),
        (49, 1, 1, 0)
    );
    let times = seen.times();
    assert!(
        times
            .iter()
            .all(|(n, times)| *times == if n == "13" { 2 } else { 1 }),
        "{times:?}"
    );
    assert_eq!(admin.dead_letter_count("tasks").await?, 1);
    Ok(())
}

/// A schedule's times are the server's, and none is fired early or counts as missed.
async fn check_schedules(pool: &PgPool, store: &Store) -> TestResult {
    let admin = pgqrs::admin(store);
    admin.purge_queue("tasks").await?;
    let before = now(pool).await?;
    let often = pgqrs::schedule("often", "tasks").every(Duration::from_millis(500));
    often.message(&7).install(store).await?;
    let scheduler = store.scheduler().await?;
    until("two times are over", async || {
        places(pool).await.is_ok_and(|(waiting, ..)| waiting >= 2)
    })
    .await;
    admin.pause_schedule("often").await?;
    drop(scheduler);
    let in_time: Vec<bool> = sqlx::query_scalar(
        "select (headers ->> 'pgqrs-scheduled-for')::timestamptz between $1 and enqueued_at from pgqrs.messages",
    )
    .bind(before)
    .fetch_all(pool)
    .await?;
    assert!(
        in_time.len() >= 2 && in_time.iter().all(|is| *is),
        "{in_time:?}"
    );
    admin.delete_schedule("often").await?;
    Ok(())
}

async fn check(pool: PgPool, off_by: &str, minutes: std::ops::Range<i64>) -> TestResult {
    let pool = with_clock(&pool, off_by).await?;
    let off = now(&pool).await? - Utc::now();
    assert!(
        minutes.contains(&off.num_minutes()),
        "the clocks are {off} apart"
    );
    let store = connect(&pool).await?;
    store.queue("tasks").await?;
    check_messages(&pool, &store).await?;
    check_workers(&pool, &store).await?;
    check_consumer(&pool, &store).await?;
    check_schedules(&pool, &store).await?;
    store.pool().close().await;
    pool.close().await;
    Ok(())
}

#[sqlx::test(migrations = false)]
async fn a_server_an_hour_ahead_of_its_clients_changes_nothing(pool: PgPool) -> TestResult {
    check(pool, "1 hour", 55..65).await
}

#[sqlx::test(migrations = false)]
async fn a_server_an_hour_behind_its_clients_changes_nothing(pool: PgPool) -> TestResult {
    check(pool, "-1 hour", -64..-54).await
}

/// As after a fail-over to a server with another clock.
#[sqlx::test(migrations = false)]
async fn a_key_s_time_is_by_the_clock_that_the_server_has_now(pool: PgPool) -> TestResult {
    let pool = with_clock(&pool, "0 hours").await?;
    let store = connect(&pool).await?;
    store.queue("tasks").await?;
    let half_an_hour = Duration::from_secs(1_800);
    let send = async || {
        let enqueue = pgqrs::enqueue().message(&1).to("tasks");
        let sent = enqueue
            .once_within("request", half_an_hour)
            .execute(&store)
            .await?;
        let new = sent.outcomes().all(|sent| sent.new);
        Ok::<_, Error>((sent[0], new))
    };
    let (first, _) = send().await?;
    // Behind: the key is taken for longer, and by the same message.
    set_clock(&pool, "-1 hour").await?;
    assert_eq!(send().await?, (first, false));
    set_clock(&pool, "29 minutes").await?;
    assert_eq!(send().await?, (first, false));
    // Ahead: its time is over sooner, and the next message has all of its own.
    set_clock(&pool, "1 hour").await?;
    let (second, new) = send().await?;
    assert!(new && second != first);
    set_clock(&pool, "89 minutes").await?;
    assert_eq!(send().await?, (second, false));
    set_clock(&pool, "-1 hour").await?;
    assert_eq!(send().await?, (second, false));
    assert_eq!(places(&pool).await?, (2, 0, 0));
    store.pool().close().await;
    pool.close().await;
    Ok(())
}
