//! Managed workers: registered, alive, suspended, stopped, crashed; and what others see of them.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use pgqrs::{
    Error, Queue, QueueName, Store, Worker, WorkerFilter, WorkerId, WorkerInfo, WorkerKind,
    WorkerStatus,
};
use serde_json::json;
use sqlx::PgPool;

use crate::support::{
    TestResult, blocked_backend, changes, connect, count, newcomer, server::Server, terminate,
    until, url, with_queues,
};

async fn info(store: &Store, worker: WorkerId) -> pgqrs::Result<WorkerInfo> {
    pgqrs::admin(store).worker(worker).await
}

async fn all(store: &Store) -> pgqrs::Result<Vec<WorkerInfo>> {
    pgqrs::admin(store).workers(&WorkerFilter::default()).await
}

/// As if the worker's last heartbeat had been this long ago.
async fn silence(pool: &PgPool, worker: WorkerId, seconds: f64) -> TestResult {
    let silenced = sqlx::query(
        "update pgqrs.workers set heartbeat_at = heartbeat_at - $2 * interval '1 second' where id = $1",
    )
    .bind(worker.get())
    .bind(seconds)
    .execute(pool)
    .await?;
    assert_eq!(silenced.rows_affected(), 1);
    Ok(())
}

async fn check_new(store: &Store, worker: &impl Worker, kind: WorkerKind) -> TestResult {
    assert_eq!(worker.status().await?, WorkerStatus::Ready);
    assert!(worker.is_healthy(Duration::from_secs(10)).await?);
    assert_eq!((worker.hostname(), worker.port()), ("my-service", 3000));
    assert_eq!(worker.queue().as_str(), "tasks");
    assert_eq!(worker.kind(), kind);
    let listed = info(store, worker.id()).await?;
    assert_eq!(listed.id, worker.id());
    assert_eq!(
        (listed.hostname.as_str(), listed.port),
        ("my-service", 3000)
    );
    assert_eq!((listed.kind, listed.status), (kind, WorkerStatus::Ready));
    assert_eq!(listed.queue.as_str(), "tasks");
    assert!(!listed.stale);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_new_worker_is_ready_healthy_and_listed(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let producer = pgqrs::producer("my-service", 3000, "tasks")
        .create(&store)
        .await?;
    let consumer = pgqrs::consumer("tasks")
        .identity("my-service", 3000)
        .create(&store)
        .await?;
    check_new(&store, &producer, WorkerKind::Producer).await?;
    check_new(&store, &consumer, WorkerKind::Consumer).await?;
    assert_eq!(all(&store).await?.len(), 2);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn illegal_steps_are_typed_and_change_nothing(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let producer = pgqrs::producer("my-service", 3000, "tasks")
        .create(&store)
        .await?;
    let id = producer.id();
    use WorkerStatus::{Ready, Stopped, Suspended};
    let refused = |outcome: pgqrs::Result<()>, from, to| {
        let expected = matches!(
            &outcome,
            Err(Error::InvalidTransition { worker, from: was, to: wanted })
                if *worker == id && *was == from && *wanted == to
        );
        assert!(expected, "{from} -> {to}: {outcome:?}");
    };
    refused(producer.resume().await, Ready, Ready);
    producer.suspend().await?;
    refused(producer.suspend().await, Suspended, Suspended);
    assert_eq!(producer.status().await?, Suspended);
    producer.heartbeat().await?;
    producer.resume().await?;
    assert_eq!(producer.status().await?, Ready);
    producer.suspend().await?;
    producer.shutdown().await?;
    assert_eq!(producer.status().await?, Stopped);
    producer.shutdown().await?;
    refused(producer.suspend().await, Stopped, Suspended);
    refused(producer.resume().await, Stopped, Ready);
    let refused = producer.heartbeat().await;
    assert!(
        matches!(refused, Err(Error::WorkerStopped { worker }) if worker == id),
        "{refused:?}"
    );
    assert!(!producer.is_healthy(Duration::from_secs(10)).await?);
    assert_eq!(producer.status().await?, Stopped);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_heartbeat_moves_the_time_forward(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let producer = pgqrs::producer("my-service", 3000, "tasks")
        .create(&store)
        .await?;
    silence(&pool, producer.id(), 30.0).await?;
    let before = info(&store, producer.id()).await?.heartbeat_at;
    assert!(!producer.is_healthy(Duration::from_nanos(1)).await?);
    assert!(!producer.is_healthy(Duration::from_secs(10)).await?);
    producer.heartbeat().await?;
    assert!(producer.is_healthy(Duration::from_secs(10)).await?);
    assert!(info(&store, producer.id()).await?.heartbeat_at > before);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn messages_carry_their_producer_whichever_way_they_go_through_it(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let producer = pgqrs::producer("my-service", 3000, "tasks")
        .create(&store)
        .await?;
    pgqrs::enqueue()
        .message(&1)
        .worker(&*producer)
        .execute(&store)
        .await?;
    pgqrs::enqueue()
        .worker(&producer)
        .message(&2)
        .execute(&store)
        .await?;
    producer.enqueue().message(&3).execute(&store).await?;
    producer
        .clone()
        .enqueue()
        .messages(&[4, 5])
        .delay(0)
        .execute(&store)
        .await?;
    let mut tx = pool.begin().await?;
    producer.enqueue().message(&6).execute(&mut tx).await?;
    tx.commit().await?;
    let many: Vec<_> = (7..2_007).collect();
    producer.enqueue().messages(&many).execute(&store).await?;
    let senders: Vec<Option<i64>> =
        sqlx::query_scalar("select distinct producer_id from pgqrs.messages")
            .fetch_all(&pool)
            .await?;
    assert_eq!(senders, [Some(producer.id().get())]);
    assert_eq!(count(&pool).await?, 2_006);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_suspended_or_stopped_producer_stores_nothing(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let producer = pgqrs::producer("my-service", 3000, "tasks")
        .create(&store)
        .await?;
    let id = producer.id();
    let many: Vec<_> = (0..2_000).collect();

    producer.suspend().await?;
    let refused = producer.enqueue().message(&1).execute(&store).await;
    assert!(
        matches!(refused, Err(Error::WorkerSuspended { worker }) if worker == id),
        "{refused:?}"
    );
    let refused = producer.enqueue().messages(&many).execute(&store).await;
    assert!(
        matches!(refused, Err(Error::WorkerSuspended { .. })),
        "{refused:?}"
    );
    producer.resume().await?;
    producer.enqueue().message(&1).execute(&store).await?;

    producer.shutdown().await?;
    let refused = producer.enqueue().message(&2).execute(&store).await;
    assert!(
        matches!(refused, Err(Error::WorkerStopped { worker }) if worker == id),
        "{refused:?}"
    );
    assert_eq!(count(&pool).await?, 1);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_suspension_from_elsewhere_is_seen_by_the_very_next_enqueue(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let producer = pgqrs::producer("my-service", 3000, "tasks")
        .create(&store)
        .await?;
    // Another process is another pool.
    let elsewhere = connect(&pool).await?;
    let operator = pgqrs::admin(&elsewhere);
    for round in 0..20 {
        producer.enqueue().message(&round).execute(&store).await?;
        operator.suspend_worker(producer.id()).await?;
        let refused = producer.enqueue().message(&round).execute(&store).await;
        assert!(
            matches!(refused, Err(Error::WorkerSuspended { .. })),
            "{refused:?}"
        );
        operator.resume_worker(producer.id()).await?;
    }
    assert_eq!(count(&pool).await?, 20);
    operator.stop_worker(producer.id()).await?;
    let refused = producer.enqueue().message(&1).execute(&store).await;
    assert!(
        matches!(refused, Err(Error::WorkerStopped { .. })),
        "{refused:?}"
    );
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_consumer_receives_through_itself_unless_it_is_suspended(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    pgqrs::enqueue()
        .messages(&[1, 2, 3])
        .to("tasks")
        .execute(&store)
        .await?;
    let consumer = pgqrs::consumer("tasks")
        .identity("my-service", 3001)
        .create(&store)
        .await?;
    let first = consumer.dequeue().execute(&store).await?;
    let second = pgqrs::dequeue()
        .worker(&*consumer)
        .limit(1)
        .execute(&store)
        .await?;
    let holders: Vec<Option<i64>> = sqlx::query_scalar(
        "select distinct consumer_id from pgqrs.messages where lease_token <> 0",
    )
    .fetch_all(&pool)
    .await?;
    assert_eq!(holders, [Some(consumer.id().get())]);
    let held = pgqrs::admin(&store).held_messages(consumer.id()).await?;
    assert_eq!(
        held.iter().map(|held| held.id).collect::<Vec<_>>(),
        [first[0].id(), second[0].id()]
    );
    assert_eq!(held[0].attempt, 1);
    assert_eq!(held[0].lease_expires_at, first[0].lease_expires_at());

    consumer.suspend().await?;
    let refused = consumer.dequeue().execute(&store).await;
    assert!(
        matches!(refused, Err(Error::WorkerSuspended { .. })),
        "{refused:?}"
    );
    // What it has, it may finish.
    for delivery in first.into_iter().chain(second) {
        delivery.ack(&store).await?;
    }
    assert!(
        pgqrs::admin(&store)
            .held_messages(consumer.id())
            .await?
            .is_empty()
    );
    consumer.shutdown().await?;
    let refused = consumer.dequeue().execute(&store).await;
    assert!(
        matches!(refused, Err(Error::WorkerStopped { .. })),
        "{refused:?}"
    );
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_typed_producer_and_consumer_carry_their_type(pool: PgPool) -> TestResult {
    #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    struct SendEmail {
        to: String,
    }
    const EMAILS: Queue<SendEmail> = Queue::new("emails");
    let store = with_queues(&pool, &["emails"]).await?;
    let email = SendEmail { to: "ada".into() };
    let producer = pgqrs::producer("my-service", 3000, EMAILS)
        .create(&store)
        .await?;
    producer.enqueue().message(&email).execute(&store).await?;
    pgqrs::enqueue()
        .message(&email)
        .worker(&*producer)
        .execute(&store)
        .await?;
    let consumer = pgqrs::consumer(EMAILS)
        .identity("my-service", 3001)
        .create(&store)
        .await?;
    let deliveries = consumer.dequeue().limit(2).execute(&store).await?;
    assert_eq!(deliveries.len(), 2);
    for delivery in deliveries {
        assert_eq!(*delivery.payload()?, email);
        delivery.ack(&store).await?;
    }
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_live_identity_can_be_replaced_at_once_and_its_old_handle_is_fenced(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let producer = || pgqrs::producer("my-service", 3000, "tasks");
    let old = producer().create(&store).await?;
    let new = producer().replace(true).create(&store).await?;
    assert_ne!(old.id(), new.id());
    let fenced = old.enqueue().message(&1).execute(&store).await;
    assert!(
        matches!(fenced, Err(Error::WorkerStopped { .. })),
        "{fenced:?}"
    );
    new.enqueue().message(&2).execute(&store).await?;
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_live_identity_cant_be_registered_again_and_a_stopped_one_can(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(&pool, &["tasks", "other"]).await?;
    let register = || pgqrs::producer("my-service", 3000, "tasks").create(&store);
    let first = register().await?;
    let refused = register().await.unwrap_err();
    let Error::WorkerExists {
        kind,
        hostname,
        port,
        queue,
        last_heartbeat,
        crashed_after,
    } = &refused
    else {
        panic!("{refused:?}")
    };
    assert_eq!(
        (*kind, hostname.as_str(), *port),
        (WorkerKind::Producer, "my-service", 3000)
    );
    assert_eq!(queue.as_str(), "tasks");
    assert_eq!(*crashed_after, Duration::from_secs(60));
    assert!(last_heartbeat < crashed_after, "{refused:?}");
    assert!(refused.is_retryable(), "the other may end");
    first.suspend().await?;
    assert!(matches!(register().await, Err(Error::WorkerExists { .. })));

    // Another queue, another kind, another port, another host are others.
    pgqrs::producer("my-service", 3000, "other")
        .create(&store)
        .await?;
    pgqrs::consumer("tasks")
        .identity("my-service", 3000)
        .create(&store)
        .await?;
    pgqrs::producer("my-service", 3001, "tasks")
        .create(&store)
        .await?;
    pgqrs::producer("my-other-service", 3000, "tasks")
        .create(&store)
        .await?;
    // And port 0 has no identity.
    pgqrs::producer("my-service", 0, "tasks")
        .create(&store)
        .await?;
    pgqrs::producer("my-service", 0, "tasks")
        .create(&store)
        .await?;

    first.shutdown().await?;
    let second = register().await?;
    assert_ne!(first.id(), second.id());
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn of_eight_registrations_at_once_exactly_one_wins(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let stores = [connect(&pool).await?, connect(&pool).await?, store];
    let race = async |expected_workers: usize| {
        let racers: Vec<_> = (0..8)
            .map(|racer| {
                let store = stores[racer % stores.len()].clone();
                tokio::spawn(async move {
                    pgqrs::producer("my-service", 3000, "tasks")
                        .create(&store)
                        .await
                })
            })
            .collect();
        let mut winner = None;
        for racer in racers {
            match racer.await? {
                Ok(producer) => assert!(winner.replace(producer).is_none(), "two winners"),
                Err(Error::WorkerExists { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        assert_eq!(all(&stores[0]).await?.len(), expected_workers);
        Ok::<_, Box<dyn std::error::Error>>(winner.expect("one winner"))
    };
    let first = race(1).await?;
    // And of eight that want to take over a crashed one's identity.
    silence(&pool, first.id(), 61.0).await?;
    let second = race(1).await?;
    assert_ne!(first.id(), second.id());
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_crashed_ones_identity_is_taken_over_and_its_handle_acts_on_nothing(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let register = || pgqrs::producer("my-service", 3000, "tasks").create(&store);
    let old = register().await?;
    silence(&pool, old.id(), 59.0).await?;
    assert!(matches!(register().await, Err(Error::WorkerExists { .. })));
    silence(&pool, old.id(), 2.0).await?;
    assert!(info(&store, old.id()).await?.stale);
    let new = register().await?;
    assert_ne!(old.id(), new.id());

    let outcomes = [
        old.heartbeat().await,
        old.suspend().await,
        old.resume().await,
        old.enqueue().message(&1).execute(&store).await.map(drop),
    ];
    for outcome in outcomes {
        assert!(
            matches!(outcome, Err(Error::WorkerStopped { worker }) if worker == old.id()),
            "{outcome:?}"
        );
    }
    assert_eq!(old.status().await?, WorkerStatus::Stopped);
    assert!(!old.is_healthy(Duration::from_secs(10)).await?);
    old.shutdown().await?;
    assert_eq!(new.status().await?, WorkerStatus::Ready);
    new.enqueue().message(&1).execute(&store).await?;
    assert_eq!(count(&pool).await?, 1);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn bad_input_is_typed_and_leaves_no_row(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    for hostname in ["", &"h".repeat(256), "host\nname", "host\0name"] {
        let refused = pgqrs::producer(hostname, 3000, "tasks")
            .create(&store)
            .await;
        assert!(
            matches!(refused, Err(Error::InvalidHostname { .. })),
            "{hostname:?}: {refused:?}"
        );
    }
    let refused = pgqrs::producer("my-service", 3000, "missing")
        .create(&store)
        .await;
    assert!(
        matches!(refused, Err(Error::QueueNotFound { .. })),
        "{refused:?}"
    );
    let refused = pgqrs::consumer("")
        .identity("my-service", 3000)
        .create(&store)
        .await;
    assert!(
        matches!(refused, Err(Error::InvalidQueueName(_))),
        "{refused:?}"
    );
    assert!(all(&store).await?.is_empty());

    pgqrs::producer("h".repeat(255), u16::MAX, "tasks")
        .create(&store)
        .await?;
    Ok(())
}

#[sqlx::test(migrations = false)]
async fn without_the_schema_registration_says_how_to_install_it(pool: PgPool) -> TestResult {
    let store = Store::from(pool);
    let refused = pgqrs::producer("my-service", 3000, "tasks")
        .create(&store)
        .await;
    assert!(matches!(refused, Err(Error::NotInstalled)), "{refused:?}");
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn heartbeats_are_sent_until_the_last_handle_is_dropped(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let interval = Duration::from_millis(20);
    let producer = pgqrs::producer("my-service", 3000, "tasks")
        .heartbeat_interval(interval)
        .create(&store)
        .await?;
    let clone = producer.clone();
    let id = producer.id();
    let beats = async || {
        let before = info(&store, id).await.expect("it is listed").heartbeat_at;
        until("a heartbeat", async || {
            info(&store, id).await.expect("it is listed").heartbeat_at > before
        })
        .await;
    };
    beats().await;
    drop(producer);
    beats().await;
    drop(clone);
    // A beat may be under way. After that, it counts as crashed.
    until("the worker is stale", async || {
        info(&store, id).await.expect("it is listed").stale
    })
    .await;
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn the_heartbeats_of_a_stopped_worker_stop(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let interval = Duration::from_millis(20);
    let register = || {
        pgqrs::producer("my-service", 0, "tasks")
            .heartbeat_interval(interval)
            .create(&store)
    };
    let (by_itself, by_others) = (register().await?, register().await?);
    by_itself.shutdown().await?;
    pgqrs::admin(&store).stop_worker(by_others.id()).await?;
    for id in [by_itself.id(), by_others.id()] {
        until("the worker is silent", async || {
            info(&store, id).await.expect("it is listed").stale
        })
        .await;
    }
    Ok(())
}

/// One statement for all of a store's workers, and none of them touches an index.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn heartbeats_share_a_statement_and_stay_heap_only(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let url = url(&pool);
    pool.close().await;
    let store = pgqrs::connect(&url).await?;
    let mut workers = Vec::new();
    for port in 1..=20 {
        let interval = Duration::from_millis(50);
        let worker = pgqrs::producer("my-service", port, "tasks").heartbeat_interval(interval);
        workers.push(worker.create(&store).await?);
    }
    let (statements, beats) = {
        let observer = PgPool::connect(&url).await?;
        let beaten = async |times: usize| {
            for _ in 0..times {
                let before = info(&store, workers[0].id())
                    .await
                    .expect("listed")
                    .heartbeat_at;
                until("a heartbeat", async || {
                    info(&store, workers[0].id())
                        .await
                        .expect("listed")
                        .heartbeat_at
                        > before
                })
                .await;
            }
        };
        beaten(5).await;
        // All of them at one time: the time of the one statement.
        let times: i64 =
            sqlx::query_scalar("select count(distinct heartbeat_at) from pgqrs.workers")
                .fetch_one(&observer)
                .await?;
        beaten(10).await;
        drop(workers);
        store.pool().close().await;
        observer.close().await;
        (times, changes(&url, "workers").await?.1)
    };
    assert_eq!(statements, 1);
    assert!(beats >= 10 * 20, "{beats}");
    let pool = PgPool::connect(&url).await?;
    let (updates, heap_only): (i64, i64) = sqlx::query_as(
        "select n_tup_upd, n_tup_hot_upd from pg_stat_user_tables
         where schemaname = 'pgqrs' and relname = 'workers'",
    )
    .fetch_one(&pool)
    .await?;
    pool.close().await;
    // A page that is full of rows which a session still sees makes room by one that isn't heap-only, now and
    // then: more often if the machine is busy.
    assert!(heap_only * 100 >= updates * 75, "{heap_only} of {updates}");
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn heartbeats_survive_their_connection(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let store = connect(&pool).await?;
    let interval = Duration::from_millis(20);
    let producer = pgqrs::producer("my-service", 3000, "tasks")
        .heartbeat_interval(interval)
        .create(&store)
        .await?;
    let observer = Store::from(pool.clone());
    for _ in 0..3 {
        sqlx::query(
            "select pg_terminate_backend(pid) from pg_stat_activity
             where datname = current_database() and application_name = 'pgqrs'",
        )
        .execute(&pool)
        .await?;
        let before = info(&observer, producer.id()).await?.heartbeat_at;
        until("a heartbeat", async || {
            info(&observer, producer.id())
                .await
                .expect("it is listed")
                .heartbeat_at
                > before
        })
        .await;
    }
    Ok(())
}

#[tokio::test]
async fn heartbeats_survive_restarts_of_the_server() -> TestResult {
    let server = Server::start().await?;
    let options = pgqrs::ConnectOptions::builder()
        .url(server.url())
        .install(true)
        .build();
    let store = pgqrs::connect_with(options).await?;
    store.queue("tasks").await?;
    let producer = pgqrs::producer("my-service", 3000, "tasks")
        .heartbeat_interval(Duration::from_millis(100))
        .create(&store)
        .await?;
    for mode in ["fast", "immediate"] {
        server.restart(mode).await?;
        let restarted: chrono::DateTime<chrono::Utc> = {
            let pool = PgPool::connect(&server.url()).await?;
            sqlx::query_scalar("select now()").fetch_one(&pool).await?
        };
        until("a heartbeat after the restart", async || {
            let worker = info(&store, producer.id()).await;
            worker.is_ok_and(|worker| worker.heartbeat_at > restarted)
        })
        .await;
    }
    store.pool().close().await;
    Ok(())
}

#[test]
fn a_handle_can_be_dropped_outside_of_a_runtime() {
    let Ok(url) = std::env::var("DATABASE_URL") else {
        panic!("`cargo xtask test` sets DATABASE_URL")
    };
    let database = format!("worker_dropped_{}", std::process::id());
    let runtime = || tokio::runtime::Runtime::new().expect("a runtime");
    let (server, _) = url.rsplit_once('/').expect("a URL with a database");
    let own = format!("{server}/{database}");
    let setup = runtime();
    let execute = |sql: String| {
        setup.block_on(async {
            let pool = PgPool::connect(&url).await.expect("the tests' server runs");
            sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
                .execute(&pool)
                .await
                .expect("executed");
            pool.close().await;
        });
    };
    execute(format!("create database {database}"));
    let first = runtime();
    let (store, producer) = first.block_on(async {
        let options = pgqrs::ConnectOptions::builder()
            .url(&own)
            .install(true)
            .build();
        let store = pgqrs::connect_with(options).await.expect("connected");
        store.queue("tasks").await.expect("created");
        let producer = pgqrs::producer("my-service", 3000, "tasks")
            .create(&store)
            .await
            .expect("created");
        (store, producer)
    });
    drop(first);
    drop(producer);
    drop(store);
    execute(format!("drop database {database} with (force)"));
}

/// Old or new, never neither; and the handle goes on.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_connection_killed_in_the_middle_of_a_step_leaves_the_old_state(
    pool: PgPool,
) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let store = connect(&pool).await?;
    let producer = pgqrs::producer("my-service", 3000, "tasks")
        .create(&store)
        .await?;
    type Step = fn(&pgqrs::Producer) -> pgqrs::Execute<'_, pgqrs::Result<()>>;
    let steps: [(Step, WorkerStatus, WorkerStatus); 4] = [
        (
            |producer| producer.heartbeat(),
            WorkerStatus::Ready,
            WorkerStatus::Ready,
        ),
        (
            |producer| producer.suspend(),
            WorkerStatus::Ready,
            WorkerStatus::Suspended,
        ),
        (
            |producer| producer.resume(),
            WorkerStatus::Suspended,
            WorkerStatus::Ready,
        ),
        (
            |producer| producer.shutdown(),
            WorkerStatus::Ready,
            WorkerStatus::Stopped,
        ),
    ];
    for (step, from, to) in steps {
        let mut blocker = pool.begin().await?;
        sqlx::query("select from pgqrs.workers for update")
            .execute(&mut *blocker)
            .await?;
        let call = tokio::spawn({
            let producer = producer.clone();
            async move { step(&producer).await }
        });
        let backend = blocked_backend(&pool, "pgqrs.workers").await;
        terminate(&pool, backend).await?;
        let failed = call.await?.unwrap_err();
        assert!(failed.is_retryable(), "{failed:?}");
        blocker.rollback().await?;
        assert_eq!(producer.status().await?, from);
        step(&producer).await?;
        assert_eq!(producer.status().await?, to);
    }
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn workers_are_listed_by_queue_status_and_kind(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks", "emails"]).await?;
    let tasks = pgqrs::producer("a", 1, "tasks").create(&store).await?;
    let emails = pgqrs::producer("a", 1, "emails").create(&store).await?;
    let consumer = pgqrs::consumer("emails")
        .identity("a", 1)
        .create(&store)
        .await?;
    emails.suspend().await?;
    let admin = pgqrs::admin(&store);
    let ids = async |filter: WorkerFilter| -> pgqrs::Result<Vec<WorkerId>> {
        Ok(admin
            .workers(&filter)
            .await?
            .iter()
            .map(|worker| worker.id)
            .collect())
    };
    let of = |queue: &'static str| QueueName::new(queue);
    let filter = WorkerFilter::builder;
    assert_eq!(
        ids(filter().build()).await?,
        [tasks.id(), emails.id(), consumer.id()]
    );
    assert_eq!(
        ids(filter().queue(of("emails")?).build()).await?,
        [emails.id(), consumer.id()]
    );
    assert_eq!(
        ids(filter().status(WorkerStatus::Suspended).build()).await?,
        [emails.id()]
    );
    assert_eq!(
        ids(filter().kind(WorkerKind::Consumer).build()).await?,
        [consumer.id()]
    );
    let both = filter()
        .queue(of("emails")?)
        .status(WorkerStatus::Ready)
        .build();
    assert_eq!(ids(both).await?, [consumer.id()]);
    assert!(
        ids(filter().status(WorkerStatus::Stopped).build())
            .await?
            .is_empty()
    );
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn ended_workers_are_removed_by_age_whatever_they_sent(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let admin = pgqrs::admin(&store);
    let mut ids = Vec::new();
    for port in 1..=4 {
        let producer = pgqrs::producer("my-service", port, "tasks")
            .create(&store)
            .await?;
        producer.enqueue().message(&port).execute(&store).await?;
        ids.push(producer.id());
        if port <= 2 {
            producer.shutdown().await?;
        }
    }
    let hour = Duration::from_secs(3_600);
    assert_eq!(admin.remove_ended_workers(hour).await?, 0);
    // Stopped long ago; stopped just now; crashed long ago; lives.
    silence(&pool, ids[0], 3_700.0).await?;
    silence(&pool, ids[2], 3_700.0).await?;
    assert_eq!(admin.remove_ended_workers(hour).await?, 2);
    let left: Vec<_> = all(&store).await?.iter().map(|worker| worker.id).collect();
    assert_eq!(left, [ids[1], ids[3]]);
    // Their messages are still there, with their keys.
    assert_eq!(count(&pool).await?, 4);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_worker_with_messages_in_flight_can_be_removed(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let admin = pgqrs::admin(&store);
    let consumer = pgqrs::consumer("tasks")
        .identity("my-service", 3001)
        .create(&store)
        .await?;
    pgqrs::enqueue()
        .message(&1)
        .to("tasks")
        .execute(&store)
        .await?;
    let delivery = consumer
        .dequeue()
        .execute(&store)
        .await?
        .pop()
        .expect("one");
    admin.remove_worker(consumer.id()).await?;
    assert!(matches!(
        consumer.heartbeat().await,
        Err(Error::WorkerStopped { .. })
    ));
    delivery.ack(&store).await?;
    let missing = consumer.id();
    let refusals = [
        admin.remove_worker(missing).await,
        admin.suspend_worker(missing).await,
        admin.resume_worker(missing).await,
        admin.stop_worker(missing).await,
        admin.worker(missing).await.map(drop),
        admin.held_messages(missing).await.map(drop),
    ];
    for refused in refusals {
        assert!(
            matches!(refused, Err(Error::WorkerNotFound { worker }) if worker == missing),
            "{refused:?}"
        );
    }
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn with_its_queue_a_worker_goes_too(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let producer = pgqrs::producer("my-service", 3000, "tasks")
        .create(&store)
        .await?;
    let admin = pgqrs::admin(&store);
    admin.delete_queue("tasks").await?;
    store.queue("tasks").await?;
    let refused = producer.enqueue().message(&1).execute(&store).await;
    assert!(
        matches!(refused, Err(Error::WorkerStopped { .. })),
        "{refused:?}"
    );
    assert!(all(&store).await?.is_empty());
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_thousand_enqueues_leave_the_workers_table_unchanged(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let url = url(&pool);
    pool.close().await;
    let (inserted, updated, deleted) = changes(&url, "messages").await?;
    let store = pgqrs::connect(&url).await?;
    let producer = pgqrs::producer("my-service", 3000, "tasks")
        .create(&store)
        .await?;
    for n in 0..500 {
        pgqrs::enqueue()
            .message(&json!({"n": n}))
            .to("tasks")
            .execute(&store)
            .await?;
        producer
            .enqueue()
            .message(&json!({"n": n}))
            .execute(&store)
            .await?;
    }
    store.pool().close().await;
    assert_eq!(changes(&url, "workers").await?, (1, 0, 0));
    assert_eq!(
        changes(&url, "messages").await?,
        (inserted + 1_000, updated, deleted)
    );
    Ok(())
}

/// Notes the messages and fields of events.
#[derive(Clone, Default)]
struct Notes(Arc<Mutex<Vec<String>>>);

impl tracing::Subscriber for Notes {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target().starts_with("pgqrs")
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        struct Fields(String);
        impl tracing::field::Visit for Fields {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                self.0 += &format!("{}={value:?} ", field.name());
            }
        }
        let mut fields = Fields(String::new());
        event.record(&mut fields);
        self.0.lock().expect("not poisoned").push(fields.0);
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn every_transition_is_an_event(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let notes = Notes::default();
    let subscriber = tracing::subscriber::set_default(notes.clone());
    let producer = pgqrs::producer("my-service", 3000, "tasks")
        .create(&store)
        .await?;
    producer.suspend().await?;
    pgqrs::admin(&store).resume_worker(producer.id()).await?;
    producer.shutdown().await?;
    producer.shutdown().await?;
    drop(subscriber);
    let notes = notes.0.lock().expect("not poisoned");
    let id = producer.id();
    for (note, expected) in notes.iter().zip([
        ["worker registered", r#"worker.kind="producer""#],
        [r#"from="ready""#, r#"to="suspended""#],
        [r#"from="suspended""#, r#"to="ready""#],
        [r#"from="ready""#, r#"to="stopped""#],
    ]) {
        assert!(
            expected.iter().all(|part| note.contains(part)),
            "{expected:?} in {note}"
        );
        assert!(note.contains(&format!("worker.id={id}")), "{note}");
    }
    assert_eq!(notes.len(), 4, "{notes:?}");
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_consumer_without_an_identity_has_the_machines_host_name_beside_any_number_of_others(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let mut workers = Vec::new();
    for _ in 0..3 {
        workers.push(pgqrs::consumer("tasks").create(&store).await?);
    }
    let uname = std::process::Command::new("uname").arg("-n").output()?;
    let hostname = uname.stdout;
    let hostname = String::from_utf8(hostname)?;
    for worker in &workers {
        assert_eq!((worker.hostname(), worker.port()), (hostname.trim(), 0));
    }
    assert_eq!(all(&store).await?.len(), 3);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn rows_of_workers_without_a_heartbeat_for_a_day_are_deleted_by_the_next_one(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let day = Duration::from_secs(24 * 60 * 60);
    let producer = |port| pgqrs::producer("my-service", port, "tasks");
    let stopped = producer(1).create(&store).await?;
    stopped.shutdown().await?;
    let crashed = producer(2).create(&newcomer(&pool)).await?;
    let recent = producer(3).create(&store).await?;
    // It counts as crashed after four days only.
    let rare = producer(4).heartbeat_interval(day).create(&store).await?;
    let age = async |worker: WorkerId, hours: i64| {
        sqlx::query(
            "update pgqrs.workers set heartbeat_at = now() - $2 * interval '1 hour' where id = $1",
        )
        .bind(worker.get())
        .bind(hours)
        .execute(&pool)
        .await
    };
    let ids = [stopped.id(), crashed.id(), recent.id(), rare.id()];
    // No heartbeat of theirs comes any more.
    drop((stopped, crashed));
    for (id, hours) in ids.into_iter().zip([25, 25, 23, 25]) {
        age(id, hours).await?;
    }
    let new = producer(5).create(&store).await?;
    let mut left: Vec<WorkerId> = all(&store).await?.iter().map(|worker| worker.id).collect();
    left.sort();
    assert_eq!(left, [ids[2], ids[3], new.id()]);
    Ok(())
}
