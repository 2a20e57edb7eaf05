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
use pgqrs::{ConnectOptions, Error, MessageId, Page, Priority, QueueOptions, Store, WorkerFilter};
use serde_json::{Value, json};
use sqlx::{PgPool, Postgres, Transaction};
use tokio::{
    task::{JoinHandle, JoinSet},
    time::timeout,
};

use crate::support::{
    TestResult, blocked_backend, blocked_backends, claim, connect,
    consumers::{Seen, consumer, drained, prepare, start},
    count, now,
    proxy::Proxy,
    server::Server,
    stored, terminate, until, until_within, url, warm, with_queues,
};

pub(crate) type Sending = JoinHandle<pgqrs::Result<MessageId>>;

/// Longer than anything may take that the test says is bounded.
pub(crate) const BOUND: Duration = Duration::from_secs(60);

async fn single(store: &Store, payload: &Value) -> pgqrs::Result<MessageId> {
    let enqueue = pgqrs::enqueue().message(payload).to("tasks");
    Ok(enqueue.execute(store).await?[0])
}

/// A send on a task of its own.
pub(crate) fn sending(store: &Store, payload: Value) -> Sending {
    let store = store.clone();
    tokio::spawn(async move { single(&store, &payload).await })
}

/// With one writer, so that what waits goes into its next statement.
pub(crate) async fn with_one_writer(pool: &PgPool) -> pgqrs::Result<Store> {
    let options = ConnectOptions::builder().url(url(pool)).max_connections(2);
    pgqrs::connect_with(options.build()).await
}

/// Holds up all sends, until the transaction ends.
pub(crate) async fn hold_up(pool: &PgPool) -> sqlx::Result<Transaction<'static, Postgres>> {
    let mut holder = pool.begin().await?;
    sqlx::query("lock table pgqrs.messages in share mode")
        .execute(&mut *holder)
        .await?;
    Ok(holder)
}

/// Holds up all sends, with one whose caller is its own writer, and one that has been taken by the store's only
/// other.
pub(crate) async fn hold_up_behind(
    store: &Store,
    pool: &PgPool,
) -> Result<(Transaction<'static, Postgres>, [Sending; 2]), Box<dyn std::error::Error>> {
    let holder = hold_up(pool).await?;
    let alone = sending(store, json!("alone"));
    blocked_backends(pool, "advanced", 1).await;
    let taken = sending(store, json!("taken"));
    blocked_backends(pool, "advanced", 2).await;
    Ok((holder, [alone, taken]))
}

pub(crate) async fn done(taken: [Sending; 2]) -> TestResult {
    for send in taken {
        send.await??;
    }
    Ok(())
}

async fn is_blocked(pool: &PgPool) -> bool {
    sqlx::query_scalar(
        "select exists (
             select from pg_stat_activity
             where datname = current_database() and wait_event_type = 'Lock'
         )",
    )
    .fetch_one(pool)
    .await
    .expect("pg_stat_activity can be read")
}

/// A number in the store's `Debug` output.
fn debug_field(store: &Store, field: &str) -> usize {
    let debug = format!("{store:?}");
    let (_, after) = debug
        .split_once(&format!(" {field}: "))
        .expect("the field is there");
    let digits: String = after.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().expect("a number")
}

pub(crate) async fn waiting(store: &Store, many: usize) {
    until("the expected number of sends wait", async || {
        debug_field(store, "waiting") == many
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

pub(crate) async fn alter(pool: &PgPool, statement: &str) -> sqlx::Result<()> {
    sqlx::raw_sql(sqlx::AssertSqlSafe(statement.to_owned()))
        .execute(pool)
        .await?;
    Ok(())
}

/// Ends all sessions of stores that `connect` has made.
pub(crate) async fn end_sessions(pool: &PgPool) -> TestResult {
    sqlx::query(
        "select pg_terminate_backend(pid, 5000) from pg_stat_activity
         where datname = current_database() and application_name = 'pgqrs'",
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// Until a session waits for this.
async fn in_wait(pool: &PgPool, what: &str, event: &str) {
    until(what, async || {
        let waiting: i64 = sqlx::query_scalar(
            "select count(*) from pg_stat_activity
             where datname = current_database() and wait_event = $1",
        )
        .bind(event)
        .fetch_one(pool)
        .await
        .expect("counted");
        waiting == 1
    })
    .await;
}

pub(crate) fn source(error: &Error) -> &Error {
    match error {
        Error::NotStored { source, .. } | Error::OutcomeUnknown { source, .. } => source,
        error => error,
    }
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn concurrent_sends_share_commits_and_each_gets_its_own_id(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
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
        if coalesce {
            assert!(commits < 64, "{commits} commits")
        } else {
            assert_eq!(commits, 64)
        }
    }
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn sends_one_after_the_other_use_one_writer(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
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
    with_queues(&pool, &["tasks", "emails"]).await?;
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
    done(taken).await?;
    let (urgent, delayed, at_time, past, produced, batch) = all?;
    assert_eq!(commits(&pool).await?, 3);
    let stored: HashMap<_, _> = stored(&pool)
        .await?
        .into_iter()
        .map(|m| (m.id, m))
        .collect();
    assert_eq!(stored.len(), 2 + 5 + 3);
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
    with_queues(&pool, &["tasks"]).await?;
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
    let direct = with_queues(&pool, &["tasks"]).await?;
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
        done(taken).await?;
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
        assert_eq!(count(&pool).await?, 41 * (round as i64 + 1));
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
async fn a_send_dropped_before_a_writer_takes_it_stores_nothing(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let store = with_one_writer(&pool).await?;
    let (holder, taken) = hold_up_behind(&store, &pool).await?;
    let mut calls: Vec<_> = (0..10).map(|n| sending(&store, json!(n))).collect();
    waiting(&store, 10).await;
    // Of these it can't be said.
    taken.iter().for_each(JoinHandle::abort);
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
    let waited = stored.iter().filter(|payload| !payload.starts_with('"'));
    assert_eq!(waited.collect::<Vec<_>>(), ["5", "6", "7", "8", "9"]);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_send_that_is_not_polled_delays_no_other(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let store = with_one_writer(&pool).await?;
    let unpolled = json!("unpolled");
    let mut unpolled = Box::pin(single(&store, &unpolled));
    // Under way, and then forgotten for a while.
    let holder = hold_up(&pool).await?;
    until("it is under way", async || {
        let polled = timeout(Duration::from_millis(1), &mut unpolled).await;
        assert!(polled.is_err(), "it ended");
        is_blocked(&pool).await
    })
    .await;
    holder.rollback().await?;
    for n in 0..10 {
        timeout(BOUND, single(&store, &json!(n))).await??;
    }
    timeout(BOUND, unpolled).await??;
    assert_eq!(count(&pool).await?, 11);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_send_dropped_under_way_leaves_the_store_usable(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let store = connect(&pool).await?;
    for n in 0..5 {
        let holder = hold_up(&pool).await?;
        let left = sending(&store, json!("left"));
        blocked_backends(&pool, "advanced", 1).await;
        left.abort();
        assert!(left.await.unwrap_err().is_cancelled());
        holder.rollback().await?;
        timeout(BOUND, single(&store, &json!(n))).await??;
    }
    let stored = stored(&pool).await?;
    let left = stored.iter().filter(|m| m.payload == "\"left\"").count();
    assert_eq!(stored.len() - left, 5);
    assert!(left <= 5);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn an_idle_writer_releases_its_connection(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let options = ConnectOptions::builder().url(url(&pool)).max_connections(4);
    let store = pgqrs::connect_with(options.build()).await?;
    for n in 0..3 {
        let calls: Vec<_> = (0..20).map(|m| sending(&store, json!([n, m]))).collect();
        for call in calls {
            call.await??;
        }
        until("all connections are back", async || {
            store.pool().num_idle() == store.pool().size() as usize
        })
        .await;
    }
    timeout(BOUND, store.pool().close()).await?;
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_writer_whose_row_is_gone_stores_all_the_same(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks", "emails"]).await?;
    let store = connect(&pool).await?;
    let emails = pgqrs::enqueue().message(&"mixed").to("emails");
    for n in 0..3 {
        sqlx::query("delete from pgqrs.writers")
            .execute(&pool)
            .await?;
        single(&store, &json!(n)).await?;
    }
    let payload = json!(3);
    let (alone, mixed) = tokio::join!(single(&store, &payload), emails.execute(&store));
    alone?;
    mixed?;
    let refused = pgqrs::enqueue().message(&1).to("nowhere");
    sqlx::query("delete from pgqrs.writers")
        .execute(&pool)
        .await?;
    let refused = refused.execute(&store).await;
    assert!(matches!(refused, Err(Error::QueueNotFound { .. })));
    assert_eq!(count(&pool).await?, 5);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn sends_that_wait_complete_when_the_last_handle_is_dropped(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let store = with_one_writer(&pool).await?;
    let (holder, taken) = hold_up_behind(&store, &pool).await?;
    let calls: Vec<_> = (0..10).map(|n| sending(&store, json!(n))).collect();
    waiting(&store, 10).await;
    drop(store);
    holder.rollback().await?;
    done(taken).await?;
    for call in calls {
        call.await??;
    }
    assert_eq!(count(&pool).await?, 12);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_runtime_that_ends_takes_only_its_own_sends_along(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let store = with_one_writer(&pool).await?;
    let other = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let holder = hold_up(&pool).await?;
    for (place, payload) in ["alone", "other"].into_iter().enumerate() {
        let on_other = store.clone();
        other.spawn(async move { single(&on_other, &json!(payload)).await });
        blocked_backends(&pool, "advanced", place as i64 + 1).await;
    }
    let on_other = store.clone();
    let pending = other.spawn(async move { single(&on_other, &json!("pending")).await });
    waiting(&store, 1).await;
    let calls: Vec<_> = (0..10).map(|n| sending(&store, json!(n))).collect();
    other.shutdown_background();
    // That task is gone with its runtime; this runtime's sends go on.
    assert!(timeout(BOUND, pending).await?.is_err());
    holder.rollback().await?;
    for call in calls {
        timeout(BOUND, call).await???;
    }
    timeout(BOUND, single(&store, &json!("after"))).await??;
    let stored = stored(&pool).await?;
    let payloads: HashSet<_> = stored.iter().map(|m| &*m.payload).collect();
    assert_eq!(payloads.len(), stored.len(), "each once");
    assert!((0..10).all(|n| payloads.contains(&*n.to_string())));
    assert!(payloads.contains("\"after\""));
    assert!(!payloads.contains("\"pending\""), "it was not sent");
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
    let ended = until_within(BOUND * 3, async || {
        most = most.max(debug_field(&hasty, "waiting_bytes"));
        calls.iter().all(JoinHandle::is_finished)
    })
    .await;
    assert!(ended, "sends still wait after {:?}", started.elapsed());
    assert!(most <= 64 << 20, "{most} bytes");
    assert!(most > 8 << 20, "{most} bytes");
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
        debug_field(&patient, "waiting_bytes") > 40 << 20
    })
    .await;
    server.up()?;
    let mut ids = HashSet::new();
    for call in calls {
        assert!(debug_field(&patient, "waiting_bytes") <= 64 << 20);
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
        server.restart_beside(mode).await?;
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

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn an_answer_that_is_lost_for_ever_is_an_unknown_outcome_with_the_ids(
    pool: PgPool,
) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let (proxy, url) = Proxy::before(&pool).await?;
    let options = ConnectOptions::builder()
        .url(url)
        .acquire_timeout(Duration::from_millis(300))
        .retry_for(Duration::from_millis(1_200));
    let store = pgqrs::connect_with(options.build()).await?;
    // Its connection knows the statement: the answer to preparing it would be lost, too.
    let batch = pgqrs::enqueue().messages(&["", ""]).to("tasks").delay(60);
    batch.execute(&store).await?;
    warm(&store).await?;
    proxy.swallow();
    let started = Instant::now();
    let batch = pgqrs::enqueue().messages(&["a", "b"]).to("tasks");
    let unknown = batch.execute(&store).await.unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(6));
    let Error::OutcomeUnknown { ids, .. } = &unknown else {
        panic!("{unknown:?}");
    };
    let stored = stored(&pool).await?;
    let stored: Vec<_> = stored[3..].iter().map(|m| (m.id, &*m.payload)).collect();
    let ids: Vec<_> = ids.iter().map(|id| id.get()).collect();
    assert_eq!(stored, [(ids[0], "\"a\""), (ids[1], "\"b\"")]);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn without_time_to_retry_there_is_one_try(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    alter(&pool, "create sequence tries").await?;
    let raise = "perform nextval(''tries''); raise using errcode = ''40001''".replace("''", "'");
    poison(&pool, "13", &raise).await?;
    let tries = async || -> sqlx::Result<i64> {
        sqlx::query_scalar("select last_value from tries")
            .fetch_one(&pool)
            .await
    };
    for (retry_for, expected) in [(0, 1..=1), (300, 3..=50)] {
        let retry_for = Duration::from_millis(retry_for);
        let options = ConnectOptions::builder()
            .url(url(&pool))
            .retry_for(retry_for);
        let store = pgqrs::connect_with(options.build()).await?;
        alter(&pool, "alter sequence tries restart").await?;
        let failed = single(&store, &json!(13)).await.unwrap_err();
        assert!(matches!(failed, Error::NotStored { .. }), "{failed:?}");
        assert!(matches!(source(&failed), Error::Database(_)), "{failed:?}");
        let tries = tries().await?;
        assert!(expected.contains(&tries), "{tries} tries");
    }
    assert_eq!(count(&pool).await?, 0);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn rows_of_writers_long_gone_are_pruned_by_the_next_new_one(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let gone = connect(&pool).await?;
    single(&gone, &json!(1)).await?;
    alter(
        &pool,
        "insert into pgqrs.writers (token, sequence) select n, 2 from generate_series(1, 999) n;
         update pgqrs.writers set created_at = created_at - interval '25 hours';
         insert into pgqrs.writers (token, sequence) values (0, 2);",
    )
    .await?;
    let next = connect(&pool).await?;
    single(&next, &json!(2)).await?;
    until("only what is of today is left", async || {
        let left: i64 = sqlx::query_scalar("select count(*) from pgqrs.writers")
            .fetch_one(&pool)
            .await
            .expect("counted");
        left == 2
    })
    .await;
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn ids_that_are_taken_are_drawn_anew(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let before = connect(&pool).await?;
    let ids: Vec<i64> = {
        let batch = pgqrs::enqueue().messages(&[0; 100]).to("tasks");
        let ids = batch.execute(&before).await?;
        ids.iter().map(|id| id.get()).collect()
    };
    // As on a server that lost the tail of what another one had.
    alter(&pool, "alter sequence pgqrs.messages_id_seq restart").await?;
    let store = connect(&pool).await?;
    let calls: Vec<_> = (0..20).map(|n| sending(&store, json!(n))).collect();
    for call in calls {
        assert!(!ids.contains(&call.await??.get()));
    }
    assert_eq!(count(&pool).await?, 120);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn sends_and_consumers_work_at_every_default_isolation_level(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    for level in ["serializable", "repeatable read"] {
        set(
            &pool,
            &format!("set default_transaction_isolation = '{level}'"),
        )
        .await?;
        let store = connect(&pool).await?;
        let seen = Seen::default();
        let consumers = [consumer().create(&store).await?, {
            let other = prepare(pgqrs::consumer("tasks").identity("my-service", 3002));
            other.create(&connect(&pool).await?).await?
        }];
        let running = consumers.map(|consumer| start(consumer, seen.handler()));
        let calls: Vec<_> = (0..64).map(|n| sending(&store, json!(n))).collect();
        for call in calls {
            timeout(BOUND, call).await???;
        }
        drained(&pool).await;
        for consumer in running {
            consumer.stop().await?;
        }
        assert_eq!(seen.len(), 64);
        assert_eq!(count(&pool).await?, 0, "{level}");
        // Claims beside each other, by hand.
        crate::support::send(&store, &[1; 40]).await?;
        let claims: Vec<_> = (0..8)
            .map(|_| {
                let store = store.clone();
                tokio::spawn(async move { claim(&store, 5).await })
            })
            .collect();
        let mut ids = HashSet::new();
        for each in claims {
            ids.extend(each.await??.iter().map(pgqrs::Delivery::id));
        }
        assert_eq!(ids.len(), 40, "{level}");
        pgqrs::admin(&store).purge_queue("tasks").await?;
    }
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_send_waits_while_the_server_only_reads(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    // This session can still write.
    let mut writable = pool.acquire().await?;
    let options = ConnectOptions::builder().url(url(&pool));
    let options = options.acquire_timeout(Duration::from_millis(500)).build();
    let store = pgqrs::connect_with(options).await?;
    single(&store, &json!("before")).await?;
    set(&pool, "set default_transaction_read_only = on").await?;
    end_sessions(&pool).await?;
    let mut call = sending(&store, json!("during"));
    let early = timeout(Duration::from_millis(500), &mut call).await;
    assert!(early.is_err(), "{early:?}");
    let (database,): (String,) = sqlx::query_as("select quote_ident(current_database())")
        .fetch_one(&mut *writable)
        .await?;
    let reset = format!("alter database {database} reset default_transaction_read_only");
    sqlx::raw_sql(sqlx::AssertSqlSafe(reset))
        .execute(&mut *writable)
        .await?;
    timeout(BOUND, call).await???;
    assert_eq!(count(&pool).await?, 2);
    Ok(())
}

/// A role of the test's own, with the limits, and with the privileges of a store.
pub(crate) async fn user(pool: &PgPool) -> Result<(String, String), Box<dyn std::error::Error>> {
    let user = format!("user_{}", rand::random::<u32>());
    let create = format!(
        "create role {user} login password 'secret';
         grant usage on schema pgqrs to {user};
         grant all on all tables in schema pgqrs to {user};
         grant all on all sequences in schema pgqrs to {user};"
    );
    alter(pool, &create).await?;
    let mut to: url::Url = url(pool).parse()?;
    to.set_username(&user).map_err(|()| "a URL with a user")?;
    to.set_password(Some("secret"))
        .map_err(|()| "a URL with a password")?;
    Ok((user, to.into()))
}

pub(crate) async fn forget(pool: &PgPool, user: &str) -> TestResult {
    Ok(alter(pool, &format!("drop owned by {user}; drop role {user}")).await?)
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_server_without_a_connection_to_spare_is_waited_for(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let (user, to) = user(&pool).await?;
    let options = |retry_for| {
        ConnectOptions::builder()
            .url(to.clone())
            .acquire_timeout(Duration::from_millis(300))
            .retry_for(retry_for)
            .build()
    };
    let hasty = pgqrs::connect_with(options(Duration::from_secs(1))).await?;
    let patient = pgqrs::connect_with(options(Duration::from_secs(30))).await?;
    // Neither has a connection yet: of a send whose connection breaks the outcome would be unknown.
    alter(&pool, &format!("alter role {user} connection limit 0")).await?;
    let waits = sending(&patient, json!(2));
    let started = Instant::now();
    let calls: Vec<_> = (0..20).map(|n| sending(&hasty, json!(n))).collect();
    for call in calls {
        let failed = call.await?.unwrap_err();
        let why = source(&failed);
        assert!(
            failed.is_retryable()
                && matches!(why, Error::AcquireTimeout { .. } | Error::Connect(_)),
            "{failed:?}"
        );
    }
    assert!(started.elapsed() < Duration::from_secs(5));
    assert!(!waits.is_finished());
    alter(&pool, &format!("alter role {user} connection limit -1")).await?;
    timeout(BOUND, waits).await???;
    assert_eq!(count(&pool).await?, 1);
    hasty.pool().close().await;
    patient.pool().close().await;
    forget(&pool, &user).await
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_refused_login_is_reported_at_once(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let (user, to) = user(&pool).await?;
    let fresh = pgqrs::connect(&to).await?;
    let warm = pgqrs::connect(&to).await?;
    single(&warm, &json!(1)).await?;
    alter(&pool, &format!("alter role {user} nologin")).await?;
    end_sessions(&pool).await?;
    let started = Instant::now();
    let refused = single(&fresh, &json!(2)).await.unwrap_err();
    assert!(matches!(refused, Error::Connect(_)), "{refused:?}");
    // Its connection broke under the send, and no new one is accepted to query the outcome.
    let refused = single(&warm, &json!(3)).await.unwrap_err();
    assert!(matches!(source(&refused), Error::Connect(_)), "{refused:?}");
    assert!(started.elapsed() < Duration::from_secs(8));
    assert_eq!(count(&pool).await?, 1);
    forget(&pool, &user).await
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_dropped_database_is_reported_at_once(pool: PgPool) -> TestResult {
    let other = format!("other_{}", rand::random::<u32>());
    alter(&pool, &format!("create database {other}")).await?;
    let mut to: url::Url = url(&pool).parse()?;
    to.set_path(&other);
    let options = ConnectOptions::builder().url(to.as_str()).install(true);
    let store = pgqrs::connect_with(options.build()).await?;
    store.queue("tasks").await?;
    single(&store, &json!(1)).await?;
    alter(&pool, &format!("drop database {other} with (force)")).await?;
    let started = Instant::now();
    for n in 0..3 {
        let refused = single(&store, &json!(n)).await.unwrap_err();
        assert!(matches!(source(&refused), Error::Connect(_)), "{refused:?}");
    }
    assert!(started.elapsed() < Duration::from_secs(8));
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn what_fails_in_the_middle_of_a_large_batch_leaves_nothing_of_it(
    pool: PgPool,
) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    poison(&pool, "4321", "raise 'poisoned'").await?;
    let store = connect(&pool).await?;
    let payloads: Vec<_> = (0..5_000).collect();
    let batch = async |store: &Store| {
        let batch = pgqrs::enqueue().messages(&payloads).to("tasks");
        batch.execute(store).await
    };
    let failed = batch(&store).await.unwrap_err();
    assert!(matches!(failed, Error::Database(_)), "{failed:?}");
    assert_eq!(count(&pool).await?, 0);

    alter(
        &pool,
        "drop trigger poison on pgqrs.messages; drop function poison",
    )
    .await?;
    poison(&pool, "4321", "perform pg_sleep(60)").await?;
    set(&pool, "set statement_timeout = '300ms'").await?;
    let options = ConnectOptions::builder().url(url(&pool));
    let options = options.retry_for(Duration::from_millis(500)).build();
    let failed = batch(&pgqrs::connect_with(options).await?)
        .await
        .unwrap_err();
    assert!(matches!(failed, Error::NotStored { .. }), "{failed:?}");
    assert!(matches!(source(&failed), Error::Database(_)), "{failed:?}");
    assert_eq!(count(&pool).await?, 0);

    alter(
        &pool,
        "drop trigger poison on pgqrs.messages; drop function poison",
    )
    .await?;
    assert_eq!(batch(&store).await?.len(), 5_000);
    assert_eq!(count(&pool).await?, 5_000);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn on_what_is_the_callers_own_there_is_one_try(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let own = PgPool::connect(&url(&pool)).await?;
    let to = |queue: &'static str| pgqrs::enqueue().message(&1).to(queue);

    // Refused: nothing is stored, and it says so.
    let mut connection = own.acquire().await?;
    let refused = to("nowhere").execute(&own).await;
    assert!(matches!(refused, Err(Error::QueueNotFound { .. })));
    let refused = to("nowhere").execute(&mut connection).await;
    assert!(matches!(refused, Err(Error::QueueNotFound { .. })));
    assert_eq!(count(&pool).await?, 0);

    // Lost: it may be stored, and it says so.
    let holder = hold_up(&pool).await?;
    let by_pool = tokio::spawn({
        let own = own.clone();
        async move { pgqrs::enqueue().message(&1).to("tasks").execute(&own).await }
    });
    terminate(&pool, blocked_backend(&pool, "insert into pgqrs").await).await?;
    let lost = by_pool.await?.unwrap_err();
    assert!(matches!(lost, Error::ConnectionLost(_)), "{lost:?}");
    let by_connection = tokio::spawn(async move {
        let enqueue = pgqrs::enqueue().message(&1).to("tasks");
        enqueue.execute(&mut connection).await
    });
    terminate(&pool, blocked_backend(&pool, "insert into pgqrs").await).await?;
    let lost = by_connection.await?.unwrap_err();
    assert!(matches!(lost, Error::ConnectionLost(_)), "{lost:?}");
    holder.rollback().await?;
    assert_eq!(count(&pool).await?, 0);

    // In a transaction the caller decides.
    let mut tx = own.begin().await?;
    to("tasks").execute(&mut tx).await?;
    tx.rollback().await?;
    assert_eq!(count(&pool).await?, 0);
    let mut tx = own.begin().await?;
    to("tasks").execute(&mut tx).await?;
    assert_eq!(count(&pool).await?, 0);
    tx.commit().await?;
    assert_eq!(count(&pool).await?, 1);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_send_outlives_a_silent_server_again_and_again(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let (proxy, url) = Proxy::before(&pool).await?;
    let options = ConnectOptions::builder()
        .url(url)
        .max_connections(2)
        .retry_for(Duration::from_secs(10))
        .acquire_timeout(Duration::from_secs(2));
    let store = pgqrs::connect_with(options.build()).await?;
    let mut ids = Vec::new();
    for n in 0..4 {
        ids.push(single(&store, &json!(n)).await?.get());
        proxy.stall();
        let started = Instant::now();
        ids.push(single(&store, &json!(n)).await?.get());
        assert!(started.elapsed() < Duration::from_secs(10));
    }
    let stored: Vec<_> = stored(&pool).await?.iter().map(|m| m.id).collect();
    ids.sort_unstable();
    assert_eq!(stored, ids);
    Ok(())
}

/// Time stands still meanwhile, but for the jump to whatever is due next.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn every_call_ends_on_a_silent_server_and_the_pool_recovers(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks", "emails"]).await?;
    let (proxy, url) = Proxy::before(&pool).await?;
    let options = ConnectOptions::builder().url(url).max_connections(2);
    let store = pgqrs::connect_with(options.build()).await?;
    let admin = pgqrs::admin(&store);
    let numbers: Vec<_> = (0..20).collect();
    crate::support::send(&store, &numbers).await?;
    let mut deliveries = claim(&store, 10).await?;
    let mut delivery = || deliveries.pop().expect("there are enough");
    let (message, age) = (delivery().id(), Duration::ZERO);
    let producer = pgqrs::producer("host", 1, "tasks").create(&store).await?;
    let consumer = pgqrs::consumer("tasks")
        .identity("host", 1)
        .create(&store)
        .await?;
    let worker = producer.id();
    let (page, all) = (Page::default(), WorkerFilter::default());

    // As long as any call may take.
    const LONGEST: Duration = Duration::from_secs(31 * 60);
    macro_rules! each_ends {
        ($($call:expr;)+) => {$(
            // Its connection is there, and warm.
            drop(store.pool().acquire().await?);
            until("it is back", async || store.pool().num_idle() > 0).await;
            proxy.stall();
            let call = $call;
            tokio::time::pause();
            let ended = timeout(LONGEST, call).await;
            tokio::time::resume();
            let error = match ended {
                Ok(result) => Error::from(result.err().ok_or(stringify!($call))?),
                Err(_) => panic!("it hangs: {}", stringify!($call)),
            };
            let lost = matches!(error, Error::ConnectionLost(_));
            assert!(lost, "{}: {error:?}", stringify!($call));
        )+};
    }
    each_ends! {
        claim(&store, 1);
        consumer.dequeue().execute(&store);
        delivery().ack(&store);
        delivery().archive(&store);
        delivery().nack(&store);
        delivery().retry_in(age, &store);
        delivery().dead_letter("a reason", &store);
        pgqrs::ack_all(vec![delivery(), delivery()], &store);
        store.queue("tasks");
        admin.verify();
        admin.create_queue("reports");
        admin.queue("tasks");
        admin.queues();
        admin.delete_queue("emails");
        admin.purge_queue("emails");
        admin.queue_stats("tasks");
        admin.configure_queue("tasks", QueueOptions::default());
        admin.messages("tasks", page);
        admin.cancel("tasks", message);
        admin.reschedule("tasks", message, Utc::now());
        admin.dead_letters("tasks", page);
        admin.dead_letter_count("tasks");
        admin.requeue("tasks", message);
        admin.requeue_all("tasks", age);
        admin.purge_dead_letters("tasks", age);
        admin.archived("tasks", page);
        admin.purge_archive("tasks", age);
        admin.workers(&all);
        admin.worker(worker);
        admin.suspend_worker(worker);
        admin.resume_worker(worker);
        admin.stop_worker(worker);
        admin.remove_worker(worker);
        admin.remove_ended_workers(age);
        admin.held_messages(worker);
        admin.release(worker);
        producer.status();
        producer.is_healthy(age);
        producer.heartbeat();
        producer.suspend();
        producer.resume();
        producer.shutdown();
        pgqrs::producer("host", 2, "tasks").create(&store);
        pgqrs::consumer("tasks").identity("host", 2).create(&store);
    }
    let last = delivery();
    each_ends! {
        last.extend(Duration::from_secs(60));
    }

    for n in 0..10 {
        timeout(BOUND, single(&store, &json!(n))).await??;
        timeout(BOUND, claim(&store, 1)).await??;
    }
    // These connect by themselves.
    proxy.swallow();
    tokio::time::pause();
    let installed = timeout(LONGEST, admin.install()).await;
    tokio::time::resume();
    let installed = installed.expect("it ends");
    assert!(
        matches!(installed, Err(Error::AcquireTimeout { .. })),
        "{installed:?}"
    );
    Ok(())
}

/// In the middle of an answer: its transaction holds the messages that it claims, and isn't over.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn what_a_vanished_client_was_about_to_claim_is_free_soon(pool: PgPool) -> TestResult {
    let direct = with_queues(&pool, &["tasks"]).await?;
    // More than fits into what lies between a server and its client.
    let payloads = vec!["x".repeat(60_000); 200];
    crate::support::send(&direct, &payloads).await?;
    let (proxy, url) = Proxy::before(&pool).await?;
    let mut url: url::Url = url.parse()?;
    let hasty = "-c tcp_user_timeout=1500";
    url.query_pairs_mut().append_pair("options", hasty);
    let options = ConnectOptions::builder().url(url.as_str());
    let store = pgqrs::connect_with(options.build()).await?;
    // So that its connection knows the statement, and is trusted.
    assert_eq!(claim(&store, 1).await?.len(), 1);
    until("it is back", async || store.pool().num_idle() == 1).await;
    proxy.hold();
    let vanished = tokio::spawn(async move { claim(&store, 200).await });
    in_wait(&pool, "the server can't say any more", "ClientWrite").await;
    assert!(claim(&direct, 200).await?.is_empty());
    let mut free = Vec::new();
    until("they are free", async || {
        free = claim(&direct, 200).await.expect("claimed");
        !free.is_empty()
    })
    .await;
    assert_eq!(free.len(), 199);
    assert!(free.iter().all(|delivery| delivery.attempt() == 1));
    vanished.abort();
    Ok(())
}

/// Its transaction would hold the writer's row, so that no query could find out whether it is stored.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_large_batch_outlives_silence_in_the_middle_of_its_transaction(
    pool: PgPool,
) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    poison(&pool, "1500", "perform pg_sleep(0.3)").await?;
    let (proxy, url) = Proxy::before(&pool).await?;
    let options = ConnectOptions::builder()
        .url(url)
        .retry_for(Duration::from_secs(20));
    let store = pgqrs::connect_with(options.build()).await?;
    let batch = tokio::spawn(async move {
        let batch = pgqrs::enqueue().messages(&(0..2_500).collect::<Vec<_>>());
        batch.to("tasks").execute(&store).await
    });
    in_wait(&pool, "its second statement is under way", "PgSleep").await;
    proxy.stall();
    let ids = timeout(Duration::from_secs(30), batch).await???;
    let stored: Vec<_> = stored(&pool).await?.iter().map(|m| m.id).collect();
    let ids: Vec<_> = ids.iter().map(|id| id.get()).collect();
    assert_eq!(stored, ids);
    Ok(())
}

/// A trigger reports the refusal as transient, and is wrong.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_transient_refusal_delays_no_other_send(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    poison(&pool, "13", "raise using errcode = '40001'").await?;
    let options = ConnectOptions::builder()
        .url(url(&pool))
        .max_connections(2)
        .retry_for(Duration::from_secs(3));
    let store = pgqrs::connect_with(options.build()).await?;
    let (holder, taken) = hold_up_behind(&store, &pool).await?;
    let calls: Vec<_> = (0..40).map(|n| sending(&store, json!(n))).collect();
    waiting(&store, 40).await;
    holder.rollback().await?;
    done(taken).await?;
    for (n, call) in calls.into_iter().enumerate() {
        let outcome = call.await?;
        match n {
            13 => assert!(
                matches!(outcome, Err(Error::NotStored { .. })),
                "{outcome:?}"
            ),
            _ => assert!(outcome.is_ok(), "{n}: {outcome:?}"),
        }
    }
    Ok(())
}
