//! Limits of how many attempts start within a time, over all consumers.

mod slow_down;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use pgqrs::{Delivery, Error, Outcome, QueueInfo, QueueOptions, Rate, Store};
use serde_json::Value;
use sqlx::{AssertSqlSafe, PgPool};

use crate::support::{
    TestResult, claim, connect,
    consumers::{Seen, consumer, drained, gate, pass, prepare, start},
    count, database, expire,
    notes::Notes,
    one, send, until, with_queues,
};

const HOUR: Duration = Duration::from_secs(3_600);
const SECOND: Duration = Duration::from_secs(1);

/// The queue `tasks`, with this rate.
async fn rated(pool: &PgPool, rate: Rate) -> pgqrs::Result<Store> {
    let store = with_queues(pool, &["tasks"]).await?;
    configure(pool, rate).await?;
    Ok(store)
}

/// As the owner of the schema, who alone may.
async fn configure(pool: &PgPool, rate: impl Into<Option<Rate>>) -> pgqrs::Result<QueueInfo> {
    let options = QueueOptions::builder().rate(rate).build();
    let owner = Store::from(pool.clone());
    pgqrs::admin(&owner).configure_queue("tasks", options).await
}

async fn claimed(store: &Store) -> pgqrs::Result<usize> {
    Ok(claim(store, 100).await?.len())
}

/// Has time pass for the bucket.
async fn wait(pool: &PgPool, time: Duration) -> TestResult {
    sqlx::query("update pgqrs.rates set arrives_at = arrives_at - $1 * interval '1 second'")
        .bind(time.as_secs_f64())
        .execute(pool)
        .await?;
    Ok(())
}

/// From now on, notes of each attempt when its token was drawn, by the database's clock and in the claim's transaction.
async fn note_starts(pool: &PgPool) -> TestResult {
    sqlx::raw_sql(
        "create table public.starts (drawn_at timestamptz not null);
         create function public.note_start() returns trigger language plpgsql security definer as $$
         begin
             insert into public.starts
             select r.asked_at from pgqrs.rates r where r.queue_id = new.queue_id;
             return null;
         end
         $$;
         create trigger note_start after update of attempt on pgqrs.messages for each row
             when (new.attempt > old.attempt) execute function public.note_start();",
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// The most attempts that have started within this time, wherever it begins.
async fn most_within(pool: &PgPool, time: Duration) -> sqlx::Result<usize> {
    let starts =
        "select (extract(epoch from drawn_at) * 1000000)::bigint from public.starts order by 1";
    let starts: Vec<i64> = sqlx::query_scalar(starts).fetch_all(pool).await?;
    let length = i64::try_from(time.as_micros()).expect("not long");
    let within = starts.iter().enumerate().map(|(first, start)| {
        let later = starts[first..].iter();
        later.take_while(|other| **other < start + length).count()
    });
    Ok(within.max().unwrap_or_default())
}

/// New sessions have this isolation level.
async fn isolate(pool: &PgPool, level: &str) -> TestResult {
    let database = database(pool);
    sqlx::query(AssertSqlSafe(format!(
        "alter database \"{database}\" set default_transaction_isolation = '{level}'"
    )))
    .execute(pool)
    .await?;
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn concurrent_claims_keep_the_rate_at_each_isolation_level_and_if_sessions_are_killed(
    pool: PgPool,
) -> TestResult {
    const MESSAGES: usize = 150;
    let even = Rate::new(1, Duration::from_millis(2));
    let in_bursts = Rate::new(50, Duration::from_millis(250));
    let store = rated(&pool, even).await?;
    note_starts(&pool).await?;
    for (level, rate) in [
        ("read committed", even),
        ("read committed", in_bursts),
        ("repeatable read", in_bursts),
        ("serializable", even),
    ] {
        configure(&pool, rate).await?;
        send(&store, &[0; MESSAGES]).await?;
        isolate(&pool, level).await?;
        let is_done = Arc::new(AtomicBool::new(false));
        let mut tasks = Vec::new();
        for _ in 0..6 {
            let (store, is_done) = (connect(&pool).await?, Arc::clone(&is_done));
            tasks.push(tokio::spawn(async move {
                while !is_done.load(Ordering::SeqCst) {
                    // Never settled: what a killed claim has leased counts like the rest.
                    let dequeue = pgqrs::dequeue().from("tasks").limit(40).lease(HOUR);
                    if let Err(error) = dequeue.execute(&store).await {
                        // At a stricter level claims conflict, and sessions are killed.
                        assert!(error.is_retryable(), "{error:?}");
                    }
                }
            }));
        }
        let started = "select count(*) from public.starts";
        until("all have started", async || {
            kill_a_claim(&pool).await.expect("killed");
            let started: i64 = sqlx::query_scalar(started)
                .fetch_one(&pool)
                .await
                .expect("counted");
            started == i64::try_from(MESSAGES).expect("not many")
        })
        .await;
        is_done.store(true, Ordering::SeqCst);
        for task in tasks {
            task.await?;
        }
        let allowed = rate.messages() + rate.burst() - 1;
        let most = most_within(&pool, rate.per()).await?;
        assert!(most <= allowed as usize, "{most} of {rate:?} at {level}");
        sqlx::raw_sql("delete from pgqrs.messages; delete from public.starts")
            .execute(&pool)
            .await?;
    }
    Ok(())
}

/// Ends a session that claims right now, if there is one.
async fn kill_a_claim(pool: &PgPool) -> TestResult {
    sqlx::query(
        "select pg_terminate_backend(pid) from (
             select pid from pg_stat_activity
             where datname = current_database() and state = 'active' and strpos(query, 'free_tokens') > 0
                 and pid <> pg_backend_pid()
             limit 1
         ) claiming",
    )
    .execute(pool)
    .await?;
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn what_was_not_used_is_saved_up_to_one_burst(pool: PgPool) -> TestResult {
    for (rate, burst) in [
        (Rate::new(1, HOUR), 1),
        (Rate::new(100, 100 * SECOND), 1),
        (Rate::new(150, 50 * SECOND), 3),
        (Rate::new(7, SECOND), 7),
        (Rate::new(12, Duration::from_millis(1)), 12),
    ] {
        let store = rated(&pool, rate).await?;
        send(&store, &[0; 60]).await?;
        // At first, and after any time in which nothing has started.
        for idle in [Duration::ZERO, HOUR, 1_000 * HOUR] {
            wait(&pool, idle).await?;
            let limited = claimed(&store).await?;
            assert_eq!(limited, burst, "{rate:?} after {idle:?}");
            assert_eq!(u32::try_from(limited)?, rate.burst());
        }
        let owner = Store::from(pool.clone());
        pgqrs::admin(&owner).purge_queue("tasks").await?;
        pgqrs::admin(&owner).delete_queue("tasks").await?;
        let left: i64 = sqlx::query_scalar("select count(*) from pgqrs.rates")
            .fetch_one(&pool)
            .await?;
        assert_eq!(left, 0, "a queue is deleted with its bucket");
    }
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_rate_is_changed_and_removed_while_messages_are_claimed(pool: PgPool) -> TestResult {
    let store = rated(&pool, Rate::new(1, 24 * HOUR)).await?;
    send(&store, &[0; 30]).await?;
    assert_eq!(claimed(&store).await?, 1);
    assert_eq!(claimed(&store).await?, 0);
    assert_eq!(claimed(&connect(&pool).await?).await?, 0);
    // A higher one counts at once: not after the day that the lower one would have waited.
    let rate = Rate::new(10, SECOND);
    assert_eq!(configure(&pool, rate).await?.rate, Some(rate));
    until("a message is claimed", async || {
        claimed(&store).await.expect("a claim") > 0
    })
    .await;
    assert_eq!(configure(&pool, None).await?.rate, None);
    assert!(claimed(&store).await? > 0, "all that are left, at once");
    assert_eq!(claimed(&store).await?, 0);
    for wrong in [
        Rate::new(0, SECOND),
        Rate::new(1, Duration::ZERO),
        Rate::new(1 << 31, SECOND),
    ] {
        let refused = configure(&pool, wrong).await;
        assert!(
            matches!(refused, Err(Error::InvalidSetting { .. })),
            "{wrong:?}"
        );
    }
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_claim_that_fails_or_finds_nothing_takes_no_token(pool: PgPool) -> TestResult {
    let store = rated(&pool, Rate::new(1, HOUR)).await?;
    assert_eq!(claimed(&store).await?, 0);
    send(&store, &[0; 2]).await?;
    sqlx::raw_sql(
        "create function public.refuse() returns trigger language plpgsql as $$
         begin
             raise exception 'refused';
         end
         $$;
         create trigger refuse after update on pgqrs.messages for each row execute function public.refuse();",
    )
    .execute(&pool)
    .await?;
    assert!(claimed(&store).await.is_err());
    sqlx::raw_sql("drop trigger refuse on pgqrs.messages")
        .execute(&pool)
        .await?;
    assert_eq!(claimed(&store).await?, 1);
    assert_eq!(claimed(&store).await?, 0);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn each_attempt_takes_a_token_and_a_message_that_is_over_takes_none(
    pool: PgPool,
) -> TestResult {
    let store = rated(&pool, Rate::new(1, HOUR)).await?;
    send(&store, &[1]).await?;
    let first = one(&store).await?;
    let id = first.id();
    expire(&pool, id).await?;
    assert_eq!(
        claimed(&store).await?,
        0,
        "a delivery after a lost lease is an attempt"
    );
    wait(&pool, HOUR).await?;
    let second = one(&store).await?;
    assert_eq!((second.id(), second.attempt()), (id, 2));
    second.retry_in(Duration::ZERO, &store).await?;
    wait(&pool, HOUR).await?;
    // It becomes a dead letter, and the next one is claimed with the token.
    sqlx::query("update pgqrs.messages set max_attempts = 2")
        .execute(&pool)
        .await?;
    let next = send(&store, &[2]).await?[0];
    let claimed: Vec<_> = claim(&store, 10).await?;
    assert_eq!(claimed.len(), 1);
    assert_eq!(claimed[0].id(), next);
    assert_eq!(pgqrs::admin(&store).queue_stats("tasks").await?.dead, 1);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_rate_and_a_limit_of_what_runs_both_hold(pool: PgPool) -> TestResult {
    let store = rated(&pool, Rate::new(10, SECOND)).await?;
    let owner = Store::from(pool.clone());
    let limit = QueueOptions::builder().max_running(4).build();
    pgqrs::admin(&owner).configure_queue("tasks", limit).await?;
    send(&store, &[0; 30]).await?;
    let held = claim(&store, 100).await?;
    assert_eq!(held.len(), 4);
    assert_eq!(claimed(&store).await?, 0);
    configure(&pool, Rate::new(1, HOUR)).await?;
    wait(&pool, HOUR).await?;
    for delivery in held {
        delivery.ack(&store).await?;
    }
    assert_eq!(claimed(&store).await?, 1);
    assert_eq!(claimed(&store).await?, 0);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn consumers_of_several_processes_share_the_rate_and_come_for_each_token(
    pool: PgPool,
) -> TestResult {
    const MESSAGES: usize = 120;
    // Two at once, and then one every 4 ms.
    let rate = Rate::new(2, Duration::from_millis(8));
    let store = rated(&pool, rate).await?;
    note_starts(&pool).await?;
    let seen = Seen::default();
    let mut runs = Vec::new();
    for port in 1..=3 {
        let elsewhere = connect(&pool).await?;
        let consumer = pgqrs::consumer("tasks").identity("host", port);
        // It would not poll before the test times out.
        let consumer = prepare(consumer).poll_interval(HOUR);
        runs.push(start(consumer.create(&elsewhere).await?, seen.handler()));
    }
    // Some while they wait for a message, and some while they wait for a token.
    let payloads: Vec<_> = (0..MESSAGES).collect();
    for part in payloads.chunks(MESSAGES / 3) {
        send(&store, part).await?;
    }
    drained(&pool).await;
    let mut done = 0;
    for run in runs {
        done += run.stop().await?.done;
    }
    assert_eq!((done, seen.len()), (MESSAGES as u64, MESSAGES));
    let most = most_within(&pool, rate.per()).await?;
    assert!(most <= 3, "{most} within 8 ms");
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_consumer_claims_nothing_ahead_of_a_rate(pool: PgPool) -> TestResult {
    let store = rated(&pool, Rate::new(5, SECOND)).await?;
    let gate = gate();
    let running = start(consumer().concurrency(2).create(&store).await?, {
        let gate = Arc::clone(&gate);
        move |_: Delivery<Value>| {
            let gate = Arc::clone(&gate);
            async move {
                pass(&gate).await;
                Outcome::Done
            }
        }
    });
    // After this number of messages, a consumer of a queue without a rate would claim ahead.
    send(&store, &[0; 20]).await?;
    gate.add_permits(10);
    until("ten are done", async || {
        count(&pool).await.expect("counted") == 10
    })
    .await;
    until("both handlers have their next", async || {
        let stats = pgqrs::admin(&store).queue_stats("tasks").await;
        stats.expect("counted").leased == 2
    })
    .await;
    gate.add_permits(10);
    drained(&pool).await;
    running.stop().await?;
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_queue_without_a_rate_has_no_bucket(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    send(&store, &[0; 3]).await?;
    assert_eq!(claimed(&store).await?, 3);
    let buckets: i64 = sqlx::query_scalar("select count(*) from pgqrs.rates")
        .fetch_one(&pool)
        .await?;
    assert_eq!(buckets, 0);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_consumer_s_log_says_that_messages_wait_for_the_rate_and_when_none_does(
    pool: PgPool,
) -> TestResult {
    let store = rated(&pool, Rate::new(1, HOUR)).await?;
    let (notes, _guard) = Notes::start();
    let handler = async |_: Delivery<Value>| Outcome::Done;
    send(&store, &[0; 3]).await?;
    let consumer = consumer().concurrency(3).create(&store).await?;
    let running = start(consumer, handler);
    let worker = running.handle.id();
    notes.until("wait for the rate", 1).await;
    wait(&pool, HOUR).await?;
    until("another one has started", async || {
        count(&pool).await.expect("counted") == 1
    })
    .await;
    wait(&pool, HOUR).await?;
    drained(&pool).await;
    notes.until("wait for the rate", 2).await;
    running.stop().await?;
    let of = format!("queue=\"tasks\" worker_id={worker}");
    assert_eq!(
        notes.lines("wait for the rate"),
        [
            format!("INFO  ready messages wait for the rate of their queue {of} at_least=2"),
            format!("INFO  no messages wait for the rate of their queue any more {of}"),
        ]
    );
    Ok(())
}
