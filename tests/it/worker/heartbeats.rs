//! Heartbeats, and when they stop.

use super::*;

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

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_heartbeat_says_how_many_messages_are_out_of_the_queue(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let admin = pgqrs::admin(&store);
    let consumer = async || {
        let consumer = pgqrs::consumer("tasks").heartbeat_interval(Duration::from_millis(20));
        consumer.create(&store).await
    };
    let send = async |message: Value| {
        let message = pgqrs::enqueue().message(&message);
        message.to("tasks").execute(&store).await
    };
    let handle = async |delivery: Delivery<Value>| match delivery.payload().as_str() {
        Some("poison") => Outcome::DeadLetter("poison".to_owned()),
        Some("again") if delivery.attempt() < 3 => {
            Outcome::RetryIn(Duration::ZERO, "again".to_owned())
        }
        Some("keep") => Outcome::Archive,
        _ => Outcome::Done,
    };
    for message in ["poison", "again", "keep", "done"] {
        send(json!(message)).await?;
    }
    let first = start(consumer().await?, handle);
    until("four are out, however often they were tried", async || {
        let listed = all(&store).await.expect("listed");
        listed[0].settled == 4
    })
    .await;
    first.stop().await?;
    let second = start(consumer().await?, handle);
    send(json!("done")).await?;
    until("both are summed up", async || {
        let health = admin.health().await.expect("read");
        health.queues[0].settled == 5
    })
    .await;
    let settled_at = async || {
        let health = admin.health().await.expect("read");
        health.queues[0].settled_at
    };
    until("one that runs says when", async || {
        settled_at().await.is_some()
    })
    .await;
    second.stop().await?;
    until("none runs", async || settled_at().await.is_none()).await;
    assert_eq!(admin.health().await?.queues[0].settled, 5);
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
