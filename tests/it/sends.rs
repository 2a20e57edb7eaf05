//! Sends through a store: they share statements and commits, and each is stored exactly once, whatever breaks
//! on the way to the server.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use pgqrs::{ConnectOptions, Error, MessageId, Priority, Store};
use serde_json::{Value, json};
use sqlx::{PgPool, Postgres, Transaction};
use tokio::{
    task::{JoinHandle, JoinSet},
    time::timeout,
};

use crate::support::{
    TestResult, blocked_backend, claim, connect, count, now, server::Server, stall::Stall, stored,
    terminate, until, url, with_queues,
};

type Sending = JoinHandle<pgqrs::Result<MessageId>>;

/// Longer than anything may take that the test says is bounded.
const BOUND: Duration = Duration::from_secs(20);

async fn single(store: &Store, payload: &Value) -> pgqrs::Result<MessageId> {
    let enqueue = pgqrs::enqueue().message(payload).to("tasks");
    Ok(enqueue.execute(store).await?[0])
}

/// A send on a task of its own.
fn sending(store: &Store, payload: Value) -> Sending {
    let store = store.clone();
    tokio::spawn(async move { single(&store, &payload).await })
}

/// With one writer, so that what waits goes into its next statement.
async fn with_one_writer(pool: &PgPool) -> pgqrs::Result<Store> {
    let options = ConnectOptions::builder().url(url(pool)).max_connections(2);
    pgqrs::connect_with(options.build()).await
}

/// Holds up all sends, until the transaction ends.
async fn hold_up(pool: &PgPool) -> sqlx::Result<Transaction<'static, Postgres>> {
    let mut holder = pool.begin().await?;
    sqlx::query("lock table pgqrs.messages in share mode")
        .execute(&mut *holder)
        .await?;
    Ok(holder)
}

/// Holds up all sends, with one that has been taken by the store's only writer.
async fn hold_up_behind(
    store: &Store,
    pool: &PgPool,
) -> Result<(Transaction<'static, Postgres>, Sending), Box<dyn std::error::Error>> {
    let holder = hold_up(pool).await?;
    let taken = sending(store, json!("taken"));
    blocked_backend(pool, "advanced").await;
    Ok((holder, taken))
}

/// A number out of what `Debug` says about the store.
fn told(store: &Store, field: &str) -> usize {
    let debug = format!("{store:?}");
    let (_, after) = debug
        .split_once(&format!(" {field}: "))
        .expect("the field is there");
    let digits: String = after.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().expect("a number")
}

async fn waiting(store: &Store, many: usize) {
    until("so many sends wait", async || {
        told(store, "waiting") == many
    })
    .await;
}

/// How many transactions have stored what is there.
async fn commits(pool: &PgPool) -> sqlx::Result<i64> {
    sqlx::query_scalar("select count(distinct xmin::text) from pgqrs.messages")
        .fetch_one(pool)
        .await
}

/// Sends of which one payload makes a trigger raise.
async fn poison(pool: &PgPool, payload: &str, does: &str) -> sqlx::Result<()> {
    let trigger = format!(
        "create function poison() returns trigger language plpgsql as
             $$ begin if new.payload::text = '{payload}' then {does}; end if; return new; end $$;
         create trigger poison before insert on pgqrs.messages
             for each row execute function poison();"
    );
    alter(pool, &trigger).await
}

async fn set(pool: &PgPool, setting: &str) -> sqlx::Result<()> {
    let database: String = sqlx::query_scalar("select quote_ident(current_database())")
        .fetch_one(pool)
        .await?;
    alter(pool, &format!("alter database {database} {setting}")).await
}

async fn alter(pool: &PgPool, statement: &str) -> sqlx::Result<()> {
    sqlx::raw_sql(sqlx::AssertSqlSafe(statement.to_owned()))
        .execute(pool)
        .await?;
    Ok(())
}

/// Ends all sessions of stores that `connect` has made.
async fn end_sessions(pool: &PgPool) -> TestResult {
    sqlx::query(
        "select pg_terminate_backend(pid, 5000) from pg_stat_activity
         where datname = current_database() and application_name = 'pgqrs'",
    )
    .execute(pool)
    .await?;
    Ok(())
}

fn source(error: &Error) -> &Error {
    match error {
        Error::NotStored { source, .. } | Error::OutcomeUnknown { source, .. } => source,
        error => error,
    }
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn concurrent_sends_share_commits_and_each_gets_its_own_id(pool: PgPool) -> TestResult {
    with_queues(pool.clone(), &["tasks"]).await?;
    for (coalesce, sends) in [(true, 512), (false, 64)] {
        sqlx::query("delete from pgqrs.messages")
            .execute(&pool)
            .await?;
        let options = ConnectOptions::builder().url(url(&pool)).coalesce(coalesce);
        let store = pgqrs::connect_with(options.build()).await?;
        let calls: Vec<_> = (0..sends)
            .map(|n| (n, sending(&store, json!({ "n": n }))))
            .collect();
        let mut payloads = HashMap::new();
        for (n, call) in calls {
            payloads.insert(call.await??.get(), json!({ "n": n }).to_string());
        }
        assert_eq!(payloads.len(), sends);
        let stored = stored(&pool).await?;
        let stored: HashMap<_, _> = stored.into_iter().map(|m| (m.id, m.payload)).collect();
        assert_eq!(stored, payloads);
        let commits = commits(&pool).await?;
        match coalesce {
            true => assert!(commits < 64, "{commits} commits"),
            false => assert_eq!(commits, 64),
        }
    }
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn who_sends_one_after_the_other_uses_one_writer(pool: PgPool) -> TestResult {
    with_queues(pool.clone(), &["tasks"]).await?;
    let store = connect(&pool).await?;
    let mut ids = Vec::new();
    for n in 0..300 {
        ids.push(single(&store, &json!(n)).await?);
    }
    assert!(ids.is_sorted());
    let tokens: i64 = sqlx::query_scalar("select count(*) from pgqrs.writers")
        .fetch_one(&pool)
        .await?;
    assert_eq!(tokens, 1);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn queues_priorities_times_and_producers_mix_in_one_statement(pool: PgPool) -> TestResult {
    with_queues(pool.clone(), &["tasks", "emails"]).await?;
    let store = with_one_writer(&pool).await?;
    let producer = pgqrs::producer("host", 3000, "emails");
    let producer = producer.create(&store).await?;
    let at: DateTime<Utc> = "2040-02-29T12:34:56.789012Z".parse()?;
    let delay = Duration::from_micros(90_000_001);
    let (holder, taken) = hold_up_behind(&store, &pool).await?;
    let urgent = pgqrs::enqueue().message(&"urgent").to("tasks");
    let delayed = pgqrs::enqueue()
        .message(&"delayed")
        .to("emails")
        .delay(delay);
    let at_once = pgqrs::enqueue().message(&"past").to("tasks");
    let batch = pgqrs::enqueue().messages(&["a", "b", "c"]).to("emails");
    let all = async {
        tokio::try_join!(
            urgent.priority(Priority::Urgent).execute(&store),
            delayed.execute(&store),
            pgqrs::enqueue()
                .message(&"at")
                .to("tasks")
                .at(at)
                .execute(&store),
            at_once
                .at("1999-12-31T23:59:59Z".parse().expect("a time"))
                .execute(&store),
            producer.enqueue().message(&"produced").execute(&store),
            batch.priority(Priority::Low).delay(delay).execute(&store),
        )
    };
    let release = async {
        waiting(&store, 6).await;
        holder.rollback().await
    };
    let (all, released) = tokio::join!(all, release);
    released?;
    taken.await??;
    let (urgent, delayed, at_time, past, produced, batch) = all?;
    assert_eq!(commits(&pool).await?, 2);
    let stored: HashMap<_, _> = stored(&pool)
        .await?
        .into_iter()
        .map(|m| (m.id, m))
        .collect();
    assert_eq!(stored.len(), 1 + 5 + 3);
    let message = |id: MessageId| {
        let stored = &stored[&id.get()];
        let delay = (stored.visible_at - stored.enqueued_at).to_std();
        let payload = stored.payload.trim_matches('"');
        (
            &*stored.queue,
            payload,
            stored.priority,
            delay.expect("none is in the past"),
        )
    };
    let normal = message(past[0]).2;
    let none = Duration::ZERO;
    assert_eq!(message(urgent[0]).1, "urgent");
    assert!(message(urgent[0]).2 < normal);
    assert_eq!(message(urgent[0]).3, none);
    assert_eq!(message(delayed[0]), ("emails", "delayed", normal, delay));
    assert_eq!(stored[&at_time[0].get()].visible_at, at);
    assert_eq!(message(past[0]), ("tasks", "past", normal, none));
    assert_eq!(message(produced[0]), ("emails", "produced", normal, none));
    assert!(batch.is_sorted());
    for (id, payload) in batch.iter().zip(["a", "b", "c"]) {
        let low = message(*id).2;
        assert!(low > normal);
        assert_eq!(message(*id), ("emails", payload, low, delay));
    }
    let through: Vec<(i64, i64)> =
        sqlx::query_as("select id, producer_id from pgqrs.messages where producer_id is not null")
            .fetch_all(&pool)
            .await?;
    assert_eq!(through, [(produced[0].get(), producer.id().get())]);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_batch_of_several_statements_has_one_time_and_keeps_its_order(
    pool: PgPool,
) -> TestResult {
    with_queues(pool.clone(), &["tasks"]).await?;
    let store = connect(&pool).await?;
    let payloads: Vec<_> = (0..2_500).collect();
    let (before, delay) = (now(&pool).await?, Duration::from_secs(60));
    let batch = pgqrs::enqueue()
        .messages(&payloads)
        .to("tasks")
        .delay(delay);
    let ids = batch.execute(&store).await?;
    assert_eq!(ids.len(), 2_500);
    assert!(ids.is_sorted());
    let stored = stored(&pool).await?;
    let visible_at = stored[0].visible_at;
    assert!(visible_at >= before + delay && visible_at <= now(&pool).await? + delay);
    for (n, (message, id)) in stored.iter().zip(ids.iter()).enumerate() {
        assert_eq!((message.id, &*message.payload), (id.get(), &*n.to_string()));
        assert_eq!(message.visible_at, visible_at);
    }
    assert_eq!(commits(&pool).await?, 1);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn what_is_refused_fails_alone(pool: PgPool) -> TestResult {
    let direct = with_queues(pool.clone(), &["tasks"]).await?;
    let store = with_one_writer(&pool).await?;
    let suspended = pgqrs::producer("host", 3000, "tasks")
        .create(&store)
        .await?;
    let suspended_id = suspended.id();
    suspended.suspend().await?;
    // Whichever code a trigger raises.
    for (round, code) in ["P0001", "22012", "QZ001"].into_iter().enumerate() {
        poison(
            &pool,
            "13",
            &format!("raise 'poisoned' using errcode = '{code}'"),
        )
        .await?;
        let (holder, taken) = hold_up_behind(&store, &pool).await?;
        let calls: Vec<_> = (0..40).map(|n| sending(&store, json!(n))).collect();
        let unknown = pgqrs::enqueue().message(&1).to("nowhere");
        let poisoned = pgqrs::enqueue().messages(&[12, 13, 14]).to("tasks");
        let refused = async {
            tokio::join!(
                unknown.execute(&store),
                suspended.enqueue().message(&1).execute(&store),
                poisoned.execute(&store),
            )
        };
        let release = async {
            waiting(&store, 43).await;
            holder.rollback().await
        };
        let ((unknown, by_suspended, poisoned), released) = tokio::join!(refused, release);
        released?;
        taken.await??;
        assert!(
            matches!(&unknown, Err(Error::QueueNotFound { queue }) if queue.as_str() == "nowhere")
        );
        assert!(
            matches!(by_suspended, Err(Error::WorkerSuspended { worker }) if worker == suspended_id),
            "{by_suspended:?}"
        );
        assert!(
            matches!(poisoned, Err(Error::Database(_))),
            "{code}: {poisoned:?}"
        );
        for (n, call) in calls.into_iter().enumerate() {
            let outcome = call.await?;
            match n {
                13 => assert!(
                    matches!(outcome, Err(Error::Database(_))),
                    "{code}: {outcome:?}"
                ),
                _ => assert!(outcome.is_ok(), "{code} {n}: {outcome:?}"),
            }
        }
        assert_eq!(count(&pool).await?, 40 * (round as i64 + 1));
        alter(
            &pool,
            "drop trigger poison on pgqrs.messages; drop function poison",
        )
        .await?;
    }
    drop(direct);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn who_leaves_before_its_message_was_taken_sends_nothing(pool: PgPool) -> TestResult {
    with_queues(pool.clone(), &["tasks"]).await?;
    let store = with_one_writer(&pool).await?;
    let (holder, taken) = hold_up_behind(&store, &pool).await?;
    let mut calls: Vec<_> = (0..10).map(|n| sending(&store, json!(n))).collect();
    waiting(&store, 10).await;
    // Of this one it can't be said.
    taken.abort();
    for left in calls.drain(..5) {
        left.abort();
        assert!(left.await.unwrap_err().is_cancelled());
    }
    holder.rollback().await?;
    for call in calls {
        call.await??;
    }
    let mut stored: Vec<_> = stored(&pool)
        .await?
        .into_iter()
        .map(|m| m.payload)
        .collect();
    stored.sort();
    assert_eq!(stored, ["\"taken\"", "5", "6", "7", "8", "9"]);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn sends_that_wait_complete_when_the_last_handle_is_dropped(pool: PgPool) -> TestResult {
    with_queues(pool.clone(), &["tasks"]).await?;
    let store = with_one_writer(&pool).await?;
    let (holder, taken) = hold_up_behind(&store, &pool).await?;
    let calls: Vec<_> = (0..10).map(|n| sending(&store, json!(n))).collect();
    waiting(&store, 10).await;
    drop(store);
    holder.rollback().await?;
    taken.await??;
    for call in calls {
        call.await??;
    }
    assert_eq!(count(&pool).await?, 11);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn who_waits_for_a_writer_whose_runtime_ends_is_told(pool: PgPool) -> TestResult {
    with_queues(pool.clone(), &["tasks"]).await?;
    let store = with_one_writer(&pool).await?;
    let other = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let holder = hold_up(&pool).await?;
    let on_other = store.clone();
    other.spawn(async move { single(&on_other, &json!("other")).await });
    blocked_backend(&pool, "advanced").await;
    let calls: Vec<_> = (0..10).map(|n| sending(&store, json!(n))).collect();
    waiting(&store, 10).await;
    other.shutdown_background();
    for call in calls {
        let told = timeout(BOUND, call).await??;
        assert!(matches!(told, Err(Error::Closed)), "{told:?}");
    }
    holder.rollback().await?;
    // The store itself goes on.
    timeout(BOUND, single(&store, &json!("after"))).await??;
    let stored = stored(&pool).await?;
    let payloads: HashSet<_> = stored.iter().map(|m| &*m.payload).collect();
    assert_eq!(payloads.len(), stored.len(), "each once");
    assert!(payloads.is_subset(&HashSet::from(["\"other\"", "\"after\""])));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_a_server_that_is_away_takes_bounded_memory() -> TestResult {
    let server = Server::start().await?;
    let installed = ConnectOptions::builder().url(server.url()).install(true);
    pgqrs::connect_with(installed.build())
        .await?
        .queue("tasks")
        .await?;
    let options = |retry_for| {
        ConnectOptions::builder()
            .url(server.url())
            .acquire_timeout(Duration::from_millis(300))
            .retry_for(retry_for)
            .build()
    };
    let hasty = pgqrs::connect_with(options(Duration::from_secs(1))).await?;
    let patient = pgqrs::connect_with(options(Duration::from_secs(60))).await?;
    server.down("fast")?;
    let payload = json!("x".repeat(2 << 20));
    let start =
        |store: &Store| -> Vec<_> { (0..100).map(|_| sending(store, payload.clone())).collect() };

    let started = Instant::now();
    let calls = start(&hasty);
    let mut most = 0;
    until("all sends have ended", async || {
        most = most.max(told(&hasty, "waiting_bytes"));
        calls.iter().all(JoinHandle::is_finished)
    })
    .await;
    assert!(most <= 64 << 20, "{most} bytes");
    assert!(most > 8 << 20, "{most} bytes");
    assert!(started.elapsed() < BOUND);
    for call in calls {
        let failed = call.await?.unwrap_err();
        assert!(
            matches!(
                failed,
                Error::NotStored { .. } | Error::AcquireTimeout { .. }
            ),
            "{failed:?}"
        );
    }

    let calls = start(&patient);
    until("as many wait as there is room for", async || {
        told(&patient, "waiting_bytes") > 40 << 20
    })
    .await;
    server.up()?;
    let mut ids = HashSet::new();
    for call in calls {
        assert!(told(&patient, "waiting_bytes") <= 64 << 20);
        ids.insert(call.await??);
    }
    assert_eq!(ids.len(), 100);
    let direct = PgPool::connect(&server.url()).await?;
    assert_eq!(count(&direct).await?, 100);
    direct.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn restarts_of_the_server_lose_nothing_and_store_nothing_twice() -> TestResult {
    let server = Arc::new(Server::start().await?);
    let options = ConnectOptions::builder().url(server.url()).install(true);
    let store = pgqrs::connect_with(options.build()).await?;
    store.queue("tasks").await?;
    alter(
        store.pool(),
        "create table log (id bigint, payload text);
         create function log() returns trigger language plpgsql as
             $$ begin insert into public.log values (new.id, new.payload::text); return new; end $$;
         create trigger log after insert on pgqrs.messages for each row execute function log();",
    )
    .await?;
    let (over, stored) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let flows = async |stored: &AtomicUsize| {
        let before = stored.load(Ordering::Relaxed);
        until("sends go on", async || {
            stored.load(Ordering::Relaxed) > before + 100
        })
        .await;
    };
    let mut senders = JoinSet::new();
    for sender in 0..16 {
        let (store, over, stored) = (store.clone(), Arc::clone(&over), Arc::clone(&stored));
        senders.spawn(async move {
            let mut sent = Vec::new();
            for n in 0.. {
                if over.load(Ordering::Relaxed) {
                    break;
                }
                let payload = json!([sender, n]);
                let id = single(&store, &payload).await?;
                sent.push((id.get(), payload.to_string()));
                stored.fetch_add(1, Ordering::Relaxed);
            }
            Ok::<_, Error>(sent)
        });
    }
    for mode in ["fast", "immediate"] {
        flows(&stored).await;
        let server = Arc::clone(&server);
        tokio::task::spawn_blocking(move || {
            server
                .down(mode)
                .and_then(|()| server.up())
                .map_err(|error| error.to_string())
        })
        .await??;
    }
    flows(&stored).await;
    over.store(true, Ordering::Relaxed);
    let mut sent = Vec::new();
    while let Some(of_sender) = senders.join_next().await {
        sent.extend(of_sender??);
    }
    let mut log: Vec<(i64, String)> = sqlx::query_as("select id, payload from log")
        .fetch_all(store.pool())
        .await?;
    sent.sort();
    log.sort();
    assert!(sent.len() > 100);
    assert_eq!(log, sent);
    Ok(())
}
