//! Strict order under concurrency, and with sessions that are killed.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use pgqrs::Outcome;
use rand::{RngExt, seq::SliceRandom};
use tokio::task::JoinSet;

use super::*;
use crate::support::{
    consumers::{consumer, start},
    until_within, url,
};

/// What handlers have seen: of each group, whose messages are running and which were begun.
#[derive(Debug, Default)]
struct Seen {
    running: HashMap<String, u32>,
    most: u32,
    begun: HashMap<String, Vec<i64>>,
}

async fn run(pool: &PgPool, limit: u32, kills: bool) -> TestResult {
    const SENDERS: u32 = 6;
    const EACH: u32 = 60;
    with_groups(pool, at_once(limit)).await?;
    let options = pgqrs::ConnectOptions::builder()
        .url(url(pool))
        .max_connections(6)
        .retry_for(Duration::from_secs(60))
        .build();
    let store = pgqrs::connect_with(options).await?;
    let seen = Arc::new(Mutex::new(Seen::default()));
    let mut consumers = Vec::new();
    for port in 0..3 {
        let seen = Arc::clone(&seen);
        let registered = pgqrs::consumer("tasks").identity("order", 4000 + port);
        let registered = crate::support::consumers::prepare(registered)
            .concurrency(4)
            .poll_interval(Duration::from_millis(20))
            // Long, so that no message is delivered again while its handler is at work.
            .lease(Duration::from_secs(60))
            .create(&store)
            .await?;
        consumers.push(start(registered, move |delivery: Delivery<Value>| {
            let seen = Arc::clone(&seen);
            async move {
                let group = delivery.group().unwrap_or_default().to_owned();
                {
                    let mut seen = seen.lock().expect("no panic");
                    let running = seen.running.entry(group.clone()).or_default();
                    *running += 1;
                    let running = *running;
                    seen.most = seen.most.max(running);
                    let begun = seen.begun.entry(group.clone()).or_default();
                    begun.push(delivery.id().get());
                }
                // Its work: long enough for others to begin meanwhile.
                tokio::time::sleep(Duration::from_millis(3)).await;
                let fails = rand::rng().random_bool(0.1);
                let mut seen = seen.lock().expect("no panic");
                *seen.running.entry(group).or_default() -= 1;
                if fails {
                    return Outcome::RetryIn(Duration::ZERO, "again".into());
                }
                Outcome::Done
            }
        }));
    }
    let is_over = Arc::new(AtomicBool::new(false));
    let mut sending = JoinSet::new();
    for sender in 0..SENDERS {
        let store = store.clone();
        sending.spawn(async move {
            for payload in 0..EACH {
                let group = format!("group-{}", rand::rng().random_range(0..5));
                if sender % 2 == 0 {
                    send(&store, &group, payload).await?;
                } else {
                    let by = |payload: &u32| format!("group-{}", payload % 5);
                    let batch = [payload, payload + 1, payload + 5, payload + 2];
                    let enqueue = pgqrs::enqueue().to("tasks").group_by(by);
                    enqueue.messages(&batch).execute(&store).await?;
                }
            }
            Ok::<_, Error>(())
        });
    }
    let killing = tokio::spawn({
        let (pool, is_over) = (pool.clone(), Arc::clone(&is_over));
        async move {
            let mut killed = 0_i64;
            while kills && !is_over.load(Ordering::Relaxed) {
                let one = "select count(pg_terminate_backend(pid)) from (
                               select pid from pg_stat_activity
                               where datname = current_database() and pid <> pg_backend_pid()
                                   and state = 'active' and query ilike '%pgqrs.%'
                               order by random() limit 1
                           ) victim";
                killed += sqlx::query_scalar::<_, i64>(one).fetch_one(&pool).await?;
                tokio::time::sleep(Duration::from_millis(15)).await;
            }
            Ok::<_, sqlx::Error>(killed)
        }
    });
    while let Some(sent) = sending.join_next().await {
        sent??;
    }
    // In this order they were committed, whatever has become of them since.
    until("all are handled", async || {
        count(pool).await.is_ok_and(|left| left == 0)
    })
    .await;
    is_over.store(true, Ordering::Relaxed);
    let killed = killing.await??;
    assert!(!kills || killed > 2, "{killed}");
    for consumer in consumers {
        consumer.stop().await?;
    }
    assert_counted(pool).await?;
    let places: Vec<(i64, i64)> = sqlx::query_as("select id, place from public.places")
        .fetch_all(pool)
        .await?;
    let place: HashMap<_, _> = places.into_iter().collect();
    let seen = seen.lock().expect("no panic");
    assert_eq!(
        seen.most, limit,
        "at most this many of a group ran, and so many did"
    );
    for (group, begun) in &seen.begun {
        if limit == 1 {
            let places: Vec<_> = begun.iter().map(|id| place[id]).collect();
            let expected = places.iter().copied().fold(Vec::new(), |mut all, place| {
                if all.last() != Some(&place) {
                    all.push(place);
                }
                all
            });
            assert!(
                expected.windows(2).all(|pair| pair[0] < pair[1]),
                "{group} is handled in its order: {expected:?}"
            );
        }
    }
    let begun: std::collections::HashSet<_> = seen.begun.values().flatten().collect();
    assert_eq!(begun.len(), place.len(), "each was handled");
    Ok(())
}

/// Notes the place that each message had in its group's commits.
async fn note_places(pool: &PgPool) -> TestResult {
    sqlx::raw_sql(
        "create sequence public.commits;
         create table public.places (id bigint, place bigint);
         create function public.note() returns trigger language plpgsql as $$ begin
             insert into public.places values (new.id, nextval('public.commits'));
             return null;
         end $$;
         -- At the end of the transaction, while it still holds its groups.
         create constraint trigger note after insert on pgqrs.messages
             deferrable initially deferred for each row execute function public.note()",
    )
    .execute(pool)
    .await?;
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn concurrent_senders_and_consumers_keep_the_order_of_each_group(pool: PgPool) -> TestResult {
    note_places(&pool).await?;
    run(&pool, 1, false).await
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn sessions_that_are_killed_change_neither_order_nor_counts(pool: PgPool) -> TestResult {
    note_places(&pool).await?;
    run(&pool, 1, true).await
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn no_more_than_the_limit_of_a_group_run_at_a_time(pool: PgPool) -> TestResult {
    note_places(&pool).await?;
    run(&pool, 3, true).await
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn batches_with_the_same_groups_in_any_order_don_t_deadlock(pool: PgPool) -> TestResult {
    let store = with_groups(&pool, Groups::default()).await?;
    let mut tasks = JoinSet::new();
    let is_over = Arc::new(AtomicBool::new(false));
    for _ in 0..4 {
        let pool = pool.clone();
        tasks.spawn(async move {
            for _ in 0..40 {
                let mut payloads: Vec<u32> = (0..30).collect();
                payloads.shuffle(&mut rand::rng());
                let by = |payload: &u32| format!("group-{payload}");
                let enqueue = pgqrs::enqueue().to("tasks").group_by(by);
                // Not through a store, which would put them together.
                enqueue.messages(&payloads).execute(&pool).await?;
            }
            Ok::<_, Error>(())
        });
    }
    let mut settling = JoinSet::new();
    for _ in 0..4 {
        let (store, is_over) = (store.clone(), Arc::clone(&is_over));
        settling.spawn(async move {
            while !is_over.load(Ordering::Relaxed) {
                let mut deliveries = claim(&store, 100).await?;
                deliveries.shuffle(&mut rand::rng());
                pgqrs::ack_all(deliveries, &store).await?;
            }
            Ok::<_, Error>(())
        });
    }
    while let Some(sent) = tasks.join_next().await {
        sent??;
    }
    until("all are settled", async || {
        count(&pool).await.is_ok_and(|left| left == 0)
    })
    .await;
    is_over.store(true, Ordering::Relaxed);
    while let Some(settled) = settling.join_next().await {
        settled??;
    }
    assert_counted(&pool).await?;
    let deadlocks: i64 = sqlx::query_scalar(
        "select deadlocks from pg_stat_database where datname = current_database()",
    )
    .fetch_one(&pool)
    .await?;
    assert_eq!(deadlocks, 0);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_long_line_is_worked_off_in_order(pool: PgPool) -> TestResult {
    let store = with_groups(&pool, Groups::default()).await?;
    let payloads: Vec<u32> = (0..700).collect();
    let enqueue = pgqrs::enqueue().messages(&payloads).to("tasks").group("a");
    enqueue.execute(&store).await?;
    let handled = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&handled);
    let registered = consumer().concurrency(8).create(&store).await?;
    let running = start(registered, move |delivery: Delivery<Value>| {
        let seen = Arc::clone(&seen);
        async move {
            seen.lock().expect("no panic").push(number(&delivery));
            Outcome::Done
        }
    });
    // One after the other: with other tests beside, that takes a while.
    let all = until_within(Duration::from_secs(120), async || {
        count(&pool).await.is_ok_and(|left| left == 0)
    });
    assert!(all.await, "not all are handled");
    running.stop().await?;
    let handled = handled.lock().expect("no panic");
    assert!(handled.iter().copied().eq(0..700));
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn batches_that_begin_the_same_groups_at_the_same_time_are_all_counted(
    pool: PgPool,
) -> TestResult {
    const ROUNDS: usize = 25;
    const GROUPS: usize = 80;
    let store = with_groups(&pool, at_once(1)).await?;
    let mut tasks = JoinSet::new();
    for sender in 0..4 {
        let store = crate::support::connect(&pool).await?;
        tasks.spawn(async move {
            for round in 0..ROUNDS {
                // Each has groups of its own among them, before and after those of others.
                let groups = (0..GROUPS).map(|n| match n % 4 {
                    0 => format!("{round}-{n:02}-{sender}"),
                    _ => format!("{round}-{n:02}"),
                });
                let messages = groups.map(|group| pgqrs::message(&sender).group(group));
                let batch = pgqrs::enqueue().to("tasks").batch(messages);
                // In a caller's transaction, too: it goes on after the groups were found to be begun.
                if round % 5 == 4 {
                    let mut tx = store.begin().await?;
                    batch.execute(&mut tx).await?;
                    tx.commit().await?;
                } else {
                    batch.execute(&store).await?;
                }
            }
            Ok::<_, Error>(())
        });
    }
    while let Some(task) = tasks.join_next().await {
        task??;
    }
    assert_counted(&pool).await?;
    let own = ROUNDS * GROUPS / 4;
    assert_eq!(count(&pool).await?, i64::try_from(4 * ROUNDS * GROUPS)?);
    let groups: i64 = sqlx::query_scalar("select count(*) from pgqrs.groups")
        .fetch_one(&pool)
        .await?;
    assert_eq!(groups, i64::try_from(4 * own + 3 * own)?);
    let places: i64 =
        sqlx::query_scalar("select count(distinct (group_key, group_place)) from pgqrs.messages")
            .fetch_one(&pool)
            .await?;
    assert_eq!(places, i64::try_from(4 * ROUNDS * GROUPS)?);
    drop(store);
    Ok(())
}
