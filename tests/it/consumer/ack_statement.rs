//! Handlers that work and acknowledge in transactions of their own, on connections that the store knows nothing of.

use std::collections::BTreeMap;

use pgqrs::Store;
use sqlx::{PgConnection, PgTransaction};

use super::*;
use crate::delivery::ack_statement::run_statement;

type Failure = Box<dyn std::error::Error + Send + Sync>;

async fn with_work(pool: &PgPool) -> Result<Store, Box<dyn std::error::Error>> {
    sqlx::query("create table work (payload text not null)")
        .execute(pool)
        .await?;
    Ok(with_queues(pool, &["tasks"]).await?)
}

/// Begins the work: writes the payload down.
async fn begin(
    pool: &PgPool,
    delivery: &Delivery<Value>,
) -> Result<PgTransaction<'static>, Failure> {
    let mut tx = pool.begin().await?;
    sqlx::query("insert into work values ($1)")
        .bind(delivery.raw_payload())
        .execute(&mut *tx)
        .await?;
    Ok(tx)
}

async fn acknowledge(delivery: Delivery<Value>, on: &mut PgConnection) -> Result<(), Failure> {
    let statement = delivery.ack_statement();
    let rows = run_statement(&statement, on).await?;
    Ok(statement.check(rows)?)
}

async fn worked(pool: &PgPool) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar("select payload from work order by payload")
        .fetch_all(pool)
        .await
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn what_handlers_acknowledge_by_a_statement_is_done_once_and_nothing_is_lost(
    pool: PgPool,
) -> TestResult {
    let store = with_work(&pool).await?;
    let payloads: Vec<u64> = (0..100).collect();
    send(&store, &payloads).await?;
    let attempts = Arc::new(Mutex::new(BTreeMap::<u64, u32>::new()));
    let (noted, own) = (Arc::clone(&attempts), pool.clone());
    let running = start(
        consumer().create(&store).await?,
        move |delivery: Delivery<Value>| {
            let (attempts, pool) = (Arc::clone(&noted), own.clone());
            async move {
                let payload = delivery.payload().as_u64().expect("a number");
                let attempt = delivery.attempt();
                attempts
                    .lock()
                    .expect("no panic")
                    .entry(payload)
                    .and_modify(|attempts| *attempts += 1)
                    .or_insert(1);
                let mut tx = begin(&pool, &delivery).await?;
                acknowledge(delivery, &mut tx).await?;
                if payload.is_multiple_of(10) && attempt == 1 {
                    return Err("before the commit".into());
                }
                tx.commit().await?;
                Ok::<_, Failure>(())
            }
        },
    );
    drained(&pool).await;
    let report = running.stop().await?;
    let all = (report.done, report.retried, report.lost, report.cancelled);
    assert_eq!(all, (100, 10, 0, 0), "{report:?}");
    let mut expected: Vec<_> = payloads.iter().map(u64::to_string).collect();
    expected.sort_unstable();
    assert_eq!(worked(&pool).await?, expected);
    for (payload, attempts) in &*attempts.lock().expect("no panic") {
        let expected = if payload.is_multiple_of(10) { 2 } else { 1 };
        assert_eq!(*attempts, expected, "{payload}");
    }
    Ok(())
}

/// For longer than the lease; before the commit the message is locked, and after it the message is gone.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn while_a_statement_is_not_checked_its_message_is_neither_lost_nor_holds_up_others(
    pool: PgPool,
) -> TestResult {
    let store = with_work(&pool).await?;
    send(&store, &["slow", "beside"]).await?;
    let (steps, beside) = (gate(), gate());
    let (slow, waiting, own) = (Arc::clone(&steps), Arc::clone(&beside), pool.clone());
    let committed = Arc::new(Notify::new());
    let on_commit = Arc::clone(&committed);
    let lease = Duration::from_secs(1);
    let consumer = consumer().lease(lease).cancel_grace(Duration::ZERO);
    let running = start(
        consumer.create(&store).await?,
        move |delivery: Delivery<Value>| {
            let (slow, beside, pool) = (Arc::clone(&slow), Arc::clone(&waiting), own.clone());
            let committed = Arc::clone(&on_commit);
            async move {
                if delivery.payload() == "beside" {
                    pass(&beside).await;
                    return Ok(());
                }
                let mut tx = begin(&pool, &delivery).await?;
                let statement = delivery.ack_statement();
                let rows = run_statement(&statement, &mut tx).await?;
                pass(&slow).await;
                tx.commit().await?;
                committed.notify_one();
                pass(&slow).await;
                statement.check(rows)?;
                Ok::<_, Failure>(())
            }
        },
    );
    let others = newcomer(&pool);
    let leases_pass = async || {
        let end = async || {
            let lease = "select greatest(max(lease_until), '0001-01-01') from pgqrs.messages
                 where payload::text = '\"beside\"'";
            let end: chrono::DateTime<chrono::Utc> = sqlx::query_scalar(lease)
                .fetch_one(&pool)
                .await
                .expect("it is there");
            end
        };
        let since = now(&pool).await.expect("the time");
        until("three leases have passed", async || {
            assert!(claim(&others, 2).await.expect("claimed").is_empty());
            end().await > since + lease * 3
        })
        .await;
    };
    until("the statement has run", async || {
        let locked = "select count(*) from pg_stat_activity
             where datname = current_database() and state = 'idle in transaction' and query ilike '%delete from pgqrs.messages%'";
        let locked: i64 = sqlx::query_scalar(locked)
            .fetch_one(&pool)
            .await
            .expect("counted");
        locked > 0
    })
    .await;
    leases_pass().await;
    steps.add_permits(1);
    committed.notified().await;
    leases_pass().await;
    steps.add_permits(1);
    beside.add_permits(1);
    drained(&pool).await;
    let report = running.stop().await?;
    let all = (report.done, report.retried, report.lost, report.cancelled);
    assert_eq!(all, (2, 0, 0, 0), "{report:?}");
    assert_eq!(worked(&pool).await?, [r#""slow""#]);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_handler_whose_statement_finds_its_lease_lost_commits_nothing(
    pool: PgPool,
) -> TestResult {
    let store = with_work(&pool).await?;
    let ids = send(&store, &["taken"]).await?;
    let (gate, begun) = (gate(), Arc::new(Notify::new()));
    let (waiting, noted, own) = (Arc::clone(&gate), Arc::clone(&begun), pool.clone());
    // It doesn't claim again what it has lost.
    let consumer = consumer().concurrency(1).prefetch(0).create(&store).await?;
    let running = start(consumer, move |delivery: Delivery<Value>| {
        let (gate, begun, pool) = (Arc::clone(&waiting), Arc::clone(&noted), own.clone());
        async move {
            let mut tx = begin(&pool, &delivery).await?;
            begun.notify_one();
            pass(&gate).await;
            acknowledge(delivery, &mut tx).await?;
            tx.commit().await?;
            Ok::<_, Failure>(())
        }
    });
    begun.notified().await;
    expire(&pool, ids[0]).await?;
    let others = newcomer(&pool);
    let taken = one(&others).await?;
    gate.add_permits(1);
    let report = running.stop().await?;
    assert_eq!((report.done, report.lost), (0, 1), "{report:?}");
    assert!(worked(&pool).await?.is_empty());
    taken.ack(&others).await?;
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn what_a_handler_returns_settles_the_message_of_a_statement_that_it_dropped(
    pool: PgPool,
) -> TestResult {
    let store = with_work(&pool).await?;
    send(&store, &["dropped"]).await?;
    let running = start(
        consumer().create(&store).await?,
        async |delivery: Delivery<Value>| {
            let first = delivery.attempt() == 1;
            drop(delivery.ack_statement());
            if first {
                Outcome::Retry("once more".into())
            } else {
                Outcome::Done
            }
        },
    );
    drained(&pool).await;
    let report = running.stop().await?;
    assert_eq!((report.done, report.retried, report.lost), (1, 1, 0));
    Ok(())
}
