//! Sends through a store: they share statements and commits, and each is stored exactly once, whatever breaks
//! on the way to the server.

mod abandoned;
mod outages;
mod refused;
mod silence;

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
