//! Through PgBouncer: in session mode with any version, in transaction mode with one that keeps account of prepared
//! statements. Each test has a server and a PgBouncer of its own; without a PgBouncer on the machine there is nothing
//! to test.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use pgqrs::{ConnectOptions, Delivery, Error, MessageId, Outcome, Store};
use serde_json::Value;
use sqlx::PgPool;
use tokio::task::JoinSet;

use crate::support::{
    self, TestResult, chain,
    consumers::{Seen, consumer, drained, prepare, start},
    count,
    pgbouncer::{PgBouncer, WITH_PREPARED_STATEMENTS, installed},
    server::Server,
    until,
};

const SESSION: &str = "pool_mode = session\ndefault_pool_size = 60\n";
const TRANSACTION: &str =
    "pool_mode = transaction\nmax_prepared_statements = 100\ndefault_pool_size = 20\n";

/// Each PgBouncer of the machine that can do the mode.
fn poolers() -> Vec<(PathBuf, &'static str)> {
    let session = installed((1, 0))
        .into_iter()
        .map(|program| (program, SESSION));
    let transaction = installed(WITH_PREPARED_STATEMENTS)
        .into_iter()
        .map(|program| (program, TRANSACTION));
    session.chain(transaction).collect()
}

/// A server with the schema and the queue `tasks`, both made past PgBouncer.
async fn server() -> Result<(Server, Store), Box<dyn std::error::Error>> {
    let server = Server::start().await?;
    let options = ConnectOptions::builder().url(server.url()).install(true);
    let direct = pgqrs::connect_with(options.build()).await?;
    direct.queue("tasks").await?;
    Ok((server, direct))
}

fn through(pooler: &PgBouncer) -> ConnectOptions {
    ConnectOptions::builder()
        .url(pooler.url())
        .pgbouncer(true)
        .build()
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_stored_and_handled_once_and_no_acknowledgement_is_lost() -> TestResult {
    for (program, mode) in poolers() {
        let (server, direct) = server().await?;
        let pooler = PgBouncer::start(&program, &server, mode).await?;
        flow(&pooler, direct.pool()).await?;
    }
    Ok(())
}

/// Single sends and batches by many tasks, and two consumers.
async fn flow(pooler: &PgBouncer, direct: &PgPool) -> TestResult {
    const TASKS: u64 = 20;
    const SENDS: u64 = 40;
    let store = pgqrs::connect_with(through(pooler)).await?;
    let elsewhere = pgqrs::connect_with(through(pooler)).await?;
    let seen = Seen::default();
    let mut consumers = Vec::new();
    for (port, store) in [(3001, &store), (3002, &elsewhere)] {
        let consumer =
            prepare(pgqrs::consumer("tasks").identity("my-service", port)).concurrency(8);
        consumers.push(start(consumer.create(store).await?, seen.handler()));
    }
    let mut senders: JoinSet<pgqrs::Result<()>> = JoinSet::new();
    for task in 0..TASKS {
        let store = store.clone();
        senders.spawn(async move {
            for n in 0..SENDS {
                let payloads: Vec<_> = (0..=n).map(|part| format!("{task} {n} {part}")).collect();
                support::send(&store, &payloads).await?;
            }
            Ok(())
        });
    }
    while let Some(sent) = senders.join_next().await {
        sent??;
    }
    let messages = TASKS * SENDS * (SENDS + 1) / 2;
    drained(direct).await;
    let mut report = pgqrs::Report::default();
    for running in consumers {
        let one = running.stop().await?;
        report.done += one.done;
        report.lost += one.lost;
        report.unknown += one.unknown;
        report.retried += one.retried;
    }
    assert_eq!(
        (report.done, report.lost, report.unknown, report.retried),
        (messages, 0, 0, 0)
    );
    let times = seen.times();
    assert_eq!(times.len() as u64, messages);
    assert!(times.values().all(|times| *times == 1));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_of_the_callers_own_sends_and_acknowledges_exactly_if_it_commits()
-> TestResult {
    for (program, mode) in poolers() {
        let (server, direct) = server().await?;
        let pooler = PgBouncer::start(&program, &server, mode).await?;
        let store = pgqrs::connect_with(through(&pooler)).await?;
        let enqueue = || pgqrs::enqueue().message(&1).to("tasks");
        let mut transaction = store.pool().begin().await?;
        enqueue().execute(&mut transaction).await?;
        transaction.rollback().await?;
        assert_eq!(count(direct.pool()).await?, 0);
        let mut transaction = store.pool().begin().await?;
        enqueue().execute(&mut transaction).await?;
        transaction.commit().await?;
        assert_eq!(count(direct.pool()).await?, 1);
        let delivery = support::one(&store).await?;
        let mut transaction = store.pool().begin().await?;
        delivery.ack(&mut transaction).await?;
        transaction.commit().await?;
        assert_eq!(count(direct.pool()).await?, 0);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_schema_can_be_installed_through_session_mode() -> TestResult {
    for program in installed((1, 0)) {
        let server = Server::start().await?;
        let pooler = PgBouncer::start(&program, &server, SESSION).await?;
        let options = ConnectOptions::builder()
            .url(pooler.url())
            .pgbouncer(true)
            .install(true)
            .build();
        let store = pgqrs::connect_with(options).await?;
        store.queue("tasks").await?;
        support::send(&store, &[1]).await?;
    }
    Ok(())
}

/// What the store knows of its way to the server: through a pooler it sets nothing for the rest of a session.
async fn sets_up_sessions(store: &Store) -> sqlx::Result<bool> {
    let interval = "select current_setting('client_connection_check_interval')";
    let interval: String = sqlx::query_scalar(interval).fetch_one(store.pool()).await?;
    Ok(interval != "0")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_is_found_whether_it_refuses_or_ignores_settings() -> TestResult {
    let ignoring = "ignore_startup_parameters = extra_float_digits,options\n";
    for (program, mode) in poolers() {
        let (server, direct) = server().await?;
        assert!(sets_up_sessions(&direct).await?);
        for settings in [mode.to_owned(), format!("{mode}{ignoring}")] {
            let pooler = PgBouncer::start(&program, &server, &settings).await?;
            let store = pgqrs::connect(&pooler.url()).await?;
            assert!(!sets_up_sessions(&store).await?, "{settings}");
            let seen = Seen::default();
            let running = start(consumer().create(&store).await?, seen.handler());
            support::send(&store, &[settings]).await?;
            until("the message is handled", async || seen.len() == 1).await;
            let listening = "select count(*) from pg_stat_activity where query ilike 'listen%'";
            let listening: i64 = sqlx::query_scalar(listening)
                .fetch_one(direct.pool())
                .await?;
            assert_eq!(listening, 0);
            running.stop().await?;
            store.pool().close().await;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_setting_of_the_url_that_the_pooler_refuses_is_an_error_with_the_remedy() -> TestResult {
    for (program, mode) in poolers() {
        let (server, _) = server().await?;
        let pooler = PgBouncer::start(&program, &server, mode).await?;
        let url = format!("{}?options=-c%20work_mem=8MB", pooler.url());
        let refused = pgqrs::connect(&url).await.unwrap_err();
        assert!(matches!(refused, Error::Connect(_)), "{refused:?}");
        assert!(!refused.is_retryable());
        assert!(
            refused.to_string().contains("remove it from the URL"),
            "{}",
            chain(&refused)
        );
    }
    Ok(())
}

/// Which takes away what was prepared and set, after each transaction.
#[tokio::test(flavor = "multi_thread")]
async fn a_reset_query_after_each_transaction_does_no_harm() -> TestResult {
    let settings =
        format!("{TRANSACTION}server_reset_query = DISCARD ALL\nserver_reset_query_always = 1\n");
    for program in installed(WITH_PREPARED_STATEMENTS) {
        let (server, direct) = server().await?;
        let pooler = PgBouncer::start(&program, &server, &settings).await?;
        flow(&pooler, direct.pool()).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_passed_on_has_nothing_of_the_client_before() -> TestResult {
    const FEW: &str =
        "pool_mode = session\ndefault_pool_size = 2\nserver_reset_query = DISCARD ALL\n";
    for program in installed((1, 0)) {
        let (server, direct) = server().await?;
        let pooler = PgBouncer::start(&program, &server, FEW).await?;
        for round in 0..5 {
            let options = ConnectOptions::builder()
                .url(pooler.url())
                .max_connections(1)
                .build();
            let store = pgqrs::connect_with(options).await?;
            support::send(&store, &[round]).await?;
            let delivery = support::one(&store).await?;
            assert_eq!(delivery.raw_payload(), round.to_string());
            delivery.ack(&store).await?;
            store.pool().close().await;
        }
        assert_eq!(count(direct.pool()).await?, 0);
    }
    Ok(())
}

/// Two connections to the server for twenty of clients.
#[tokio::test(flavor = "multi_thread")]
async fn a_pool_smaller_than_the_number_of_clients_only_waits() -> TestResult {
    const SMALL: &str =
        "pool_mode = transaction\nmax_prepared_statements = 100\ndefault_pool_size = 2\n";
    for program in installed(WITH_PREPARED_STATEMENTS) {
        let (server, direct) = server().await?;
        let pooler = PgBouncer::start(&program, &server, SMALL).await?;
        flow(&pooler, direct.pool()).await?;
    }
    Ok(())
}

/// Polling would find the message in ten minutes.
#[tokio::test(flavor = "multi_thread")]
async fn a_listen_url_past_the_pooler_wakes_consumers_behind_it() -> TestResult {
    for (program, mode) in poolers() {
        let (server, direct) = server().await?;
        let pooler = PgBouncer::start(&program, &server, mode).await?;
        let options = ConnectOptions::builder()
            .url(pooler.url())
            .pgbouncer(true)
            .listen_url(server.url())
            .build();
        let store = pgqrs::connect_with(options).await?;
        let elsewhere = pgqrs::connect_with(through(&pooler)).await?;
        let seen = Seen::default();
        let consumer = consumer().poll_interval(Duration::from_secs(600));
        let running = start(consumer.create(&store).await?, seen.handler());
        until("it listens", async || {
            let listening = "select count(*) from pg_stat_activity where query ilike 'listen%'";
            let sessions = sqlx::query_scalar(listening).fetch_one(direct.pool()).await;
            sessions.is_ok_and(|sessions: i64| sessions == 1)
        })
        .await;
        support::send(&elsewhere, &["wake up"]).await?;
        until("the message is handled", async || seen.len() == 1).await;
        running.stop().await?;
    }
    Ok(())
}

/// The ids under which each payload came to a handler: more than one if it was stored more than once.
#[derive(Debug, Clone, Default)]
struct Ids(Arc<Mutex<BTreeMap<String, BTreeSet<MessageId>>>>);

#[tokio::test(flavor = "multi_thread")]
async fn restarts_of_the_pooler_and_of_the_server_lose_nothing_and_store_nothing_twice()
-> TestResult {
    for (program, mode) in poolers() {
        let (server, direct) = server().await?;
        let server = Arc::new(server);
        let mut pooler = PgBouncer::start(&program, &server, mode).await?;
        let store = pgqrs::connect_with(through(&pooler)).await?;
        let handled = Ids::default();
        let handler = {
            let handled = handled.clone();
            move |delivery: Delivery<Value>| {
                let mut handled = handled.0.lock().expect("not poisoned");
                let ids = handled
                    .entry(delivery.raw_payload().to_owned())
                    .or_default();
                ids.insert(delivery.id());
                std::future::ready(Outcome::Done)
            }
        };
        // What a killed session held is delivered again after its lease.
        let consumer = consumer().lease(Duration::from_secs(5)).concurrency(8);
        let running = start(consumer.create(&store).await?, handler);
        let over = Arc::new(AtomicBool::new(false));
        let mut senders: JoinSet<pgqrs::Result<Vec<String>>> = JoinSet::new();
        for task in 0..8 {
            let (store, over) = (store.clone(), Arc::clone(&over));
            senders.spawn(async move {
                let mut acknowledged = Vec::new();
                while !over.load(Ordering::Relaxed) {
                    let payload = format!("{task} {}", acknowledged.len());
                    // It is tried again for thirty seconds, in which all that was broken is up again.
                    support::send(&store, &[&payload]).await?;
                    acknowledged.push(Value::from(payload).to_string());
                }
                Ok(acknowledged)
            });
        }
        let flowing = async || {
            let before = handled.0.lock().expect("not poisoned").len();
            until("messages are sent and handled", async || {
                handled.0.lock().expect("not poisoned").len() > before + 50
            })
            .await;
        };
        flowing().await;
        for _ in 0..2 {
            pooler.kill();
            pooler.up(&server).await?;
            flowing().await;
            for mode in ["fast", "immediate"] {
                server.restart_beside(mode).await?;
                flowing().await;
            }
        }
        over.store(true, Ordering::Relaxed);
        let mut acknowledged = Vec::new();
        while let Some(sent) = senders.join_next().await {
            acknowledged.extend(sent??);
        }
        let direct_pool = direct.pool();
        until("the queue is empty", async || {
            count(direct_pool).await.is_ok_and(|messages| messages == 0)
        })
        .await;
        running.stop().await?;
        let handled = handled.0.lock().expect("not poisoned");
        for payload in &acknowledged {
            let times = handled.get(payload).map_or(0, BTreeSet::len);
            assert_eq!(times, 1, "{payload}");
        }
        assert_eq!(handled.len(), acknowledged.len());
    }
    Ok(())
}
