//! What a log says of a server that can't be reached: once for all that a process does.

use std::{sync::Arc, time::Duration};

use pgqrs::{ConnectOptions, Delivery, Error, Outcome, Store};
use serde_json::Value;
use sqlx::{PgPool, postgres::PgPoolOptions};
use tokio::task::spawn_blocking;

use crate::support::{
    TestResult, chain,
    consumers::{Running, consumer, prepare, start},
    notes::Notes,
    server::Server,
    until, url, with_queues,
};

const CONSUMERS: usize = 20;

async fn consumers(store: &Store) -> Result<Vec<Running>, Box<dyn std::error::Error>> {
    let mut running = Vec::new();
    for n in 0..CONSUMERS {
        let queue = format!("queue-{n}");
        store.queue(queue.clone()).await?;
        let consumer = prepare(pgqrs::consumer(queue)).poll_interval(Duration::from_millis(100));
        running.push(start(
            consumer.create(store).await?,
            async |_: Delivery<Value>| Outcome::Done,
        ));
    }
    Ok(running)
}

/// While other tasks go on.
async fn beside(
    server: &Arc<Server>,
    run: impl FnOnce(&Server) -> TestResult + Send + 'static,
) -> TestResult {
    let server = Arc::clone(server);
    let ran = spawn_blocking(move || run(&server).map_err(|error| error.to_string()));
    Ok(ran.await??)
}

/// The server of twenty consumers goes away and comes back.
async fn goes_and_comes_back(server: Arc<Server>, store: Store) -> TestResult {
    let (notes, _guard) = Notes::start();
    let running = consumers(&store).await?;
    notes.until("consumer started", CONSUMERS).await;
    let before = notes.log().len();
    beside(&server, |server| server.down("fast")).await?;
    notes.until("server away for", 1).await;
    let sent = pgqrs::enqueue().message(&1).to("queue-0").execute(&store);
    let refused = sent.await.expect_err("the server is away");
    assert!(
        matches!(
            &refused,
            Error::NotStored { .. } | Error::OutcomeUnknown { .. }
        ),
        "{refused:?}"
    );
    beside(&server, Server::up).await?;
    notes.until("server is back after", 1).await;
    // All of them go on.
    for n in 0..CONSUMERS {
        let enqueue = pgqrs::enqueue().message(&1).to(format!("queue-{n}"));
        enqueue.execute(&store).await?;
    }
    until("all is handled", async || {
        let left = sqlx::query_scalar("select count(*) from pgqrs.messages");
        left.fetch_one(store.pool())
            .await
            .is_ok_and(|left: i64| left == 0)
    })
    .await;
    let lines: Vec<_> = notes.log()[before..]
        .iter()
        .map(|event| event.line())
        .collect();
    let (first, rest) = lines.split_first().ok_or("there are lines")?;
    let (last, between) = rest.split_last().ok_or("there are more lines")?;
    assert!(
        first.starts_with(
            "WARN  server away: all that needs it is retried until it is back server=\"127.0.0.1:"
        ),
        "{lines:#?}"
    );
    assert!(
        !between.is_empty()
            && between
                .iter()
                .all(|line| line.starts_with("WARN  server away for ")),
        "{lines:#?}"
    );
    assert!(
        last.starts_with("INFO  server is back after "),
        "{lines:#?}"
    );
    assert!(
        lines.iter().all(|line| !line.contains("max_connections")),
        "{lines:#?}"
    );
    assert!(!chain(&refused).contains("max_connections"), "{refused:?}");
    for consumer in running {
        consumer.stop().await?;
    }
    store.pool().close().await;
    Ok(())
}

#[tokio::test]
async fn twenty_consumers_report_together_that_the_server_is_away_and_back() -> TestResult {
    let server = Arc::new(Server::start().await?);
    let options = ConnectOptions::builder()
        .url(server.url())
        .acquire_timeout(Duration::from_secs(3))
        .retry_for(Duration::from_secs(1))
        .install(true);
    let store = pgqrs::connect_with(options.build()).await?;
    goes_and_comes_back(server, store).await
}

/// Its pool pings each connection before its use, and then waits for a new one: no statement fails.
#[tokio::test]
async fn an_applications_own_pool_does_not_hide_that_the_server_is_away() -> TestResult {
    let server = Arc::new(Server::start().await?);
    let pool = PgPoolOptions::new()
        .acquire_timeout(Duration::from_secs(5))
        .connect(&server.url())
        .await?;
    let store = Store::from(pool);
    pgqrs::admin(&store).install().await?;
    let (notes, _guard) = Notes::start();
    let running = consumers(&store).await?;
    notes.until("consumer started", CONSUMERS).await;
    beside(&server, |server| server.down("fast")).await?;
    notes.until("server away:", 1).await;
    let refused = pgqrs::admin(&store).queues().await.unwrap_err();
    assert!(matches!(refused, Error::Connect(_)), "{refused:?}");
    assert!(!chain(&refused).contains("max_connections"));
    beside(&server, Server::up).await?;
    notes.until("server is back after", 1).await;
    for consumer in running {
        consumer.stop().await?;
    }
    store.pool().close().await;
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_pool_that_is_used_up_is_no_outage_and_its_remedy_is_a_larger_one(
    pool: PgPool,
) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let options = ConnectOptions::builder()
        .url(url(&pool))
        .max_connections(1)
        .acquire_timeout(Duration::from_secs(2));
    let store = pgqrs::connect_with(options.build()).await?;
    let (notes, _guard) = Notes::start();
    let held = store.pool().acquire().await?;
    let running = start(
        consumer().create(&with_queues(&pool, &[]).await?).await?,
        async |_: Delivery<Value>| Outcome::Done,
    );
    let refused = pgqrs::admin(&store).queues().await.unwrap_err();
    assert!(
        matches!(refused, Error::AcquireTimeout { .. }),
        "{refused:?}"
    );
    assert!(refused.to_string().contains("raise `max_connections`"));
    assert!(notes.lines("server away").is_empty(), "{:?}", notes.log());
    drop(held);
    running.stop().await?;
    Ok(())
}

/// One connection ends, and one statement isn't answered in time: the server is there.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_connection_that_is_lost_is_no_outage(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let (notes, _guard) = Notes::start();
    let mut locked = pool.begin().await?;
    sqlx::query("lock table pgqrs.messages")
        .execute(&mut *locked)
        .await?;
    let sender = store.clone();
    let sending = tokio::spawn(async move {
        let enqueue = pgqrs::enqueue().message(&1).to("tasks");
        enqueue.execute(&sender).await
    });
    until(
        "the statement that waits is ended with its session",
        async || {
            let end = "select pg_terminate_backend(pid) from pg_stat_activity
                   where wait_event_type = 'Lock' and datname = current_database()";
            let ended: sqlx::Result<Vec<bool>> = sqlx::query_scalar(end).fetch_all(&pool).await;
            ended.is_ok_and(|ended| !ended.is_empty())
        },
    )
    .await;
    notes.until("connection lost", 1).await;
    locked.rollback().await?;
    sending.await??;
    assert!(notes.lines("server away").is_empty(), "{:?}", notes.log());
    assert!(
        notes.lines("server is back").is_empty(),
        "{:?}",
        notes.log()
    );
    Ok(())
}

#[tokio::test]
async fn a_worker_that_ends_while_the_server_is_away_says_that_it_is_not_deregistered() -> TestResult
{
    let server = Arc::new(Server::start().await?);
    let options = ConnectOptions::builder()
        .url(server.url())
        .acquire_timeout(Duration::from_secs(1))
        .install(true);
    let store = pgqrs::connect_with(options.build()).await?;
    store.queue("tasks").await?;
    let (notes, _guard) = Notes::start();
    let consumer = prepare(pgqrs::consumer("tasks").identity("mailer", 1));
    let consumer = consumer.create(&store).await?;
    let (handle, worker) = (consumer.handle(), consumer.id());
    let run = consumer.run(async |_: Delivery<Value>| Outcome::Done);
    let task = tokio::spawn(run.shutdown_deadline(Duration::from_secs(2)));
    notes.until("consumer started", 1).await;
    beside(&server, |server| server.down("fast")).await?;
    notes.until("server away:", 1).await;
    handle.stop();
    task.await??;
    let lines = notes.lines("worker not deregistered");
    let (begin, end) = (
        format!(
            "WARN  worker not deregistered: its host and port are taken until it counts as crashed \
             queue=\"tasks\" worker_id={worker} error=\""
        ),
        "\" free_after=",
    );
    assert!(
        lines.len() == 1 && lines[0].starts_with(&begin) && lines[0].contains(end),
        "{lines:?}"
    );
    beside(&server, Server::up).await?;
    store.pool().close().await;
    Ok(())
}
