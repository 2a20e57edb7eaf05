//! Gauges of what an observer reads, and the count of malformed contexts of traces.

use std::time::Duration;

use pgqrs::{Delivery, Groups, Outcome, QueueOptions, Store};
use serde_json::Value;
use sqlx::{Connection, PgConnection, PgPool};
use tracing_subscriber::{Registry, layer::SubscriberExt};

use crate::{
    TestResult, left,
    recorders::{Measured, Recorded, recorders},
    send, until, with_queue,
};

const SECOND: Duration = Duration::from_secs(1);

/// The name of a pool's server, as metrics have it.
fn server(pool: &PgPool) -> String {
    let options = pool.connect_options();
    let (host, port) = (options.get_host(), options.get_port());
    format!(
        "{host}:{port}/{}",
        options.get_database().unwrap_or_default()
    )
}

fn of_server(name: &str, server: &str) -> String {
    format!("{name}{{db.client.connection.pool.name={server}}}")
}

fn last(recorded: &Recorded, series: &str) -> Option<f64> {
    match recorded.get(series) {
        Some(Measured::Last(value)) => Some(value),
        None => None,
        other => panic!("{series} is {other:?}"),
    }
}

fn messages(queue: &str) -> [Option<f64>; 4] {
    ["ready", "delayed", "leased", "dead"].map(|state| {
        let series = format!(
            "pgqrs.queue.messages{{messaging.destination.name={queue},pgqrs.message.state={state}}}"
        );
        last(&recorders().0, &series)
    })
}

fn oldest(queue: &str) -> Option<f64> {
    let series = format!("pgqrs.queue.oldest_ready.age{{messaging.destination.name={queue}}}");
    last(&recorders().0, &series)
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn an_observer_has_gauges_of_each_queue_until_it_is_deleted(pool: PgPool) -> TestResult {
    let (recorded, exported) = recorders();
    let store = with_queue(&pool, "observed").await?;
    store.queue("observed-empty").await?;
    send(&store, "observed", &["task"; 5]).await?;
    let mut deliveries = pgqrs::dequeue()
        .from("observed")
        .limit(2)
        .execute(&store)
        .await?;
    let dead = deliveries.pop().ok_or("two")?;
    dead.dead_letter("in a test", &store).await?;
    pgqrs::enqueue()
        .message("later")
        .to("observed")
        .delay(3_600)
        .execute(&store)
        .await?;
    let age = "update pgqrs.messages set visible_at = now() - interval '1 hour'
               where lease_until <= now() and visible_at <= now()";
    sqlx::query(age).execute(&pool).await?;
    let observer = store.observe(SECOND).await?;
    until("the queues have gauges", async || {
        messages("observed") == [3.0, 1.0, 1.0, 1.0].map(Some)
    })
    .await;
    assert!(
        oldest("observed").is_some_and(|age| (3_600.0..3_700.0).contains(&age)),
        "{:?}",
        oldest("observed")
    );
    // One that is empty has them too.
    until("an empty queue has gauges", async || {
        messages("observed-empty") == [Some(0.0); 4] && oldest("observed-empty") == Some(0.0)
    })
    .await;
    // Both kinds get the same.
    assert_eq!(
        recorded.with("=observed,"),
        exported.with("=observed,")?,
        "by state"
    );
    // Two observers of the same queues don't add up.
    let other = Store::from(pool.clone()).observe(SECOND).await?;
    let mut seen = observer.clone();
    for _ in 0..3 {
        seen.changed().await?;
    }
    assert_eq!(messages("observed"), [3.0, 1.0, 1.0, 1.0].map(Some));
    drop(other);

    // A queue that is deleted leaves nothing behind.
    drop(deliveries);
    let admin = pgqrs::admin(&store);
    admin.purge_queue("observed").await?;
    admin.delete_queue("observed").await?;
    until("a deleted queue has no messages", async || {
        messages("observed") == [Some(0.0); 4] && oldest("observed") == Some(0.0)
    })
    .await;
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn parked_messages_and_stopped_groups_are_gauges(pool: PgPool) -> TestResult {
    let store = with_queue(&pool, "grouped").await?;
    let owner = Store::from(pool.clone());
    let admin = pgqrs::admin(&owner);
    let options = QueueOptions::builder().groups(Groups::default()).build();
    admin.configure_queue("grouped", options).await?;
    let enqueue = pgqrs::enqueue().messages(&[1, 2, 3]).to("grouped");
    enqueue.group("a").execute(&store).await?;
    admin.stop_group("grouped", "a").await?;
    let _observer = store.observe(SECOND).await?;
    let (recorded, _) = recorders();
    let of_queue = |name, label| {
        last(
            recorded,
            &format!("{name}{{messaging.destination.name=grouped{label}}}"),
        )
    };
    until("both are gauges", async || {
        of_queue("pgqrs.queue.messages", ",pgqrs.message.state=parked") == Some(2.0)
            && of_queue("pgqrs.queue.groups.stopped", "") == Some(1.0)
    })
    .await;
    assert_eq!(messages("grouped"), [1.0, 0.0, 0.0, 0.0].map(Some));
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn what_holds_back_vacuum_is_a_gauge(pool: PgPool) -> TestResult {
    let (recorded, _) = recorders();
    let store = with_queue(&pool, "horizon").await?;
    let mut holding = PgConnection::connect_with(&pool.connect_options()).await?;
    let mut held = holding.begin().await?;
    // It has a number, and so holds back vacuum.
    sqlx::query("select pg_current_xact_id()")
        .execute(&mut *held)
        .await?;
    let mut observer = store.observe(SECOND).await?;
    let server = server(&pool);
    let age = of_server("pgqrs.horizon.age", &server);
    let transactions = of_server("pgqrs.horizon.transactions", &server);
    until("the transaction is seen", async || {
        last(recorded, &age).is_some_and(|age| age > 1.0)
            && last(recorded, &transactions).is_some_and(|transactions| transactions > 0.0)
    })
    .await;
    held.rollback().await?;
    let before = last(recorded, &age);
    until("it has ended", async || last(recorded, &age) < before).await;
    observer.changed().await?;
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn the_age_of_an_observation_grows_while_the_queues_cannot_be_read(
    pool: PgPool,
) -> TestResult {
    let (recorded, _) = recorders();
    let store = with_queue(&pool, "unread").await?;
    send(&store, "unread", &["task"]).await?;
    let observer = store.observe(SECOND).await?;
    let age = of_server("pgqrs.observation.age", &server(&pool));
    until("it has an age", async || {
        last(recorded, &age).is_some_and(|age| age > 0.0)
    })
    .await;
    let rename = "alter table pgqrs.queues rename to hidden";
    sqlx::query(rename).execute(&pool).await?;
    until("it fails", async || observer.error().is_some()).await;
    until("its age grows", async || {
        last(recorded, &age).is_some_and(|age| age > 3.0)
    })
    .await;
    assert_eq!(messages("unread")[0], Some(1.0), "as it was read last");
    let rename = "alter table pgqrs.hidden rename to queues";
    sqlx::query(rename).execute(&pool).await?;
    until("it is read again", async || {
        last(recorded, &age).is_some_and(|age| age < 3.0)
    })
    .await;
    // Nobody observes any more.
    drop(observer);
    until("an observer that is dropped has no gauges", async || {
        last(recorded, &age) == Some(0.0) && messages("unread")[0] == Some(0.0)
    })
    .await;
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn malformed_contexts_of_traces_are_counted(pool: PgPool) -> TestResult {
    let (recorded, exported) = recorders();
    let store = with_queue(&pool, "malformed").await?;
    let _guard = tracing::subscriber::set_default(Registry::default().with(Spans));
    for parent in [
        "malformed",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-",
    ] {
        let enqueue = pgqrs::enqueue().message("task").to("malformed");
        let enqueue = enqueue.header("traceparent", parent);
        enqueue.execute(&store).await?;
    }
    let consumer = pgqrs::consumer("malformed").create(&store).await?;
    let handle = consumer.handle();
    let run = consumer.run(async |_: Delivery<Value>| Outcome::Done);
    let running = tokio::spawn(run);
    until("all are handled", async || left(&pool).await == 0).await;
    handle.stop();
    let report = running.await??;
    assert_eq!(report.done, 3);
    let series = "pgqrs.trace_context.malformed{messaging.destination.name=malformed}";
    until("they are counted", async || recorded.sum(series) == 2).await;
    assert_eq!(exported.with(series)?, recorded.with(series));
    Ok(())
}

/// Spans are recorded, whatever is done with them.
struct Spans;

impl tracing_subscriber::Layer<Registry> for Spans {}
