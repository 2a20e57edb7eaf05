//! `.run_in_transaction(..)`: the work of a handler commits with its acknowledgement, or not at all.

use pgqrs::{Consumer, HandlerTransaction, IntoOutcome, Store};
use sqlx::Connection as _;

use super::*;
use crate::support::{
    consumers::{Prepared, Running, handle_and_spawn},
    url,
};

async fn with_work(pool: &PgPool) -> Result<Store, Box<dyn std::error::Error>> {
    // Also for the role of a consumer, as which the tests run too.
    let tables = "create table work (payload text not null); grant all on work to public";
    sqlx::raw_sql(tables).execute(pool).await?;
    Ok(with_queues(pool, &["tasks", "receipts"]).await?)
}

fn start_in_transaction<F, R>(consumer: Prepared<Consumer>, handler: F) -> Running
where
    F: Fn(Delivery<Value>, HandlerTransaction) -> R + Send + Sync + 'static,
    R: Future<Output: IntoOutcome> + Send + 'static,
{
    handle_and_spawn(consumer, |consumer| consumer.run_in_transaction(handler))
}

/// Writes the payload down.
async fn work(delivery: &Delivery<Value>, tx: &mut HandlerTransaction) -> sqlx::Result<()> {
    sqlx::query("insert into work values ($1)")
        .bind(delivery.raw_payload())
        .execute(&mut ***tx)
        .await?;
    Ok(())
}

async fn worked(pool: &PgPool) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar("select payload from work order by payload")
        .fetch_all(pool)
        .await
}

async fn last_errors(pool: &PgPool) -> Vec<String> {
    let errors = "select last_error from pgqrs.messages where last_error is not null order by id";
    let errors = sqlx::query_scalar(errors).fetch_all(pool).await;
    errors.expect("listed")
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn work_sends_and_acknowledgement_commit_together(pool: PgPool) -> TestResult {
    let store = with_work(&pool).await?;
    send(&store, &["done", "archive"]).await?;
    let running = start_in_transaction(
        consumer().create(&store).await?,
        |delivery, mut tx| async move {
            work(&delivery, &mut tx).await?;
            let receipt = pgqrs::enqueue().message(delivery.payload()).to("receipts");
            receipt.execute(&mut tx).await?;
            Ok::<_, Failure>(if delivery.payload() == "archive" {
                Outcome::Archive
            } else {
                Outcome::Done
            })
        },
    );
    until("both are handled", async || {
        let stats = pgqrs::admin(&store).queue_stats("tasks").await;
        stats.expect("counted").total() == 0
    })
    .await;
    let report = running.stop().await?;
    // What was archived in the handler's transaction counts as done by it.
    assert_eq!((report.done, report.lost, report.retried), (2, 0, 0));
    assert_eq!(worked(&pool).await?, [r#""archive""#, r#""done""#]);
    assert_eq!(places(&pool).await?, (2, 0, 1), "the receipts");
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn errors_panics_timeouts_and_other_outcomes_roll_back(pool: PgPool) -> TestResult {
    let store = with_work(&pool).await?;
    send(&store, &["error", "panic", "hangs", "dead", "fine"]).await?;
    let consumer = consumer()
        .handler_timeout(Duration::from_secs(10))
        .retry(RetryPolicy::fixed(Duration::from_secs(600)))
        .create(&store)
        .await?;
    let running = start_in_transaction(consumer, |delivery, mut tx| async move {
        work(&delivery, &mut tx).await?;
        match delivery.payload().as_str() {
            Some("error") => Err("the upsert failed".into()),
            Some("panic") => panic!("what a day"),
            Some("hangs") => std::future::pending().await,
            Some("dead") => Ok(Outcome::DeadLetter("no such customer".to_owned())),
            _ => Ok::<_, Failure>(Outcome::Done),
        }
    });
    until("all have ended", async || {
        places(&pool).await.expect("counted") == (3, 1, 0) && last_errors(&pool).await.len() == 3
    })
    .await;
    let report = running.stop().await?;
    assert_eq!((report.done, report.retried, report.dead), (1, 3, 1));
    assert_eq!(
        last_errors(&pool).await,
        [
            "the upsert failed",
            "the handler panicked: what a day",
            "the handler timed out after 10s",
        ]
    );
    assert_eq!(worked(&pool).await?, [r#""fine""#]);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_lost_lease_rolls_back(pool: PgPool) -> TestResult {
    let store = with_work(&pool).await?;
    let ids = send(&store, &["taken"]).await?;
    let (gate, begun) = (gate(), Arc::new(Notify::new()));
    let (waiting, noted) = (Arc::clone(&gate), Arc::clone(&begun));
    // It doesn't claim again what it has lost.
    let consumer = consumer().concurrency(1).prefetch(0).create(&store).await?;
    let running = start_in_transaction(consumer, move |delivery, mut tx| {
        let (gate, begun) = (Arc::clone(&waiting), Arc::clone(&noted));
        async move {
            work(&delivery, &mut tx).await?;
            begun.notify_one();
            pass(&gate).await;
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

/// The server ends the session between the work and the commit.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_session_that_is_killed_leaves_nothing_and_the_message_comes_again(
    pool: PgPool,
) -> TestResult {
    let store = with_work(&pool).await?;
    send(&store, &["twice"]).await?;
    let killer = pool.clone();
    let running =
        start_in_transaction(consumer().create(&store).await?, move |delivery, mut tx| {
            let killer = killer.clone();
            async move {
                work(&delivery, &mut tx).await?;
                if delivery.attempt() == 1 {
                    let own: i32 = sqlx::query_scalar("select pg_backend_pid()")
                        .fetch_one(&mut **tx)
                        .await?;
                    sqlx::query("select pg_terminate_backend($1)")
                        .bind(own)
                        .execute(&killer)
                        .await?;
                }
                Ok::<_, Failure>(())
            }
        });
    drained(&pool).await;
    let report = running.stop().await?;
    assert_eq!((report.done, report.retried), (1, 1));
    assert_eq!(worked(&pool).await?, [r#""twice""#]);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_commit_that_fails_is_a_failed_attempt(pool: PgPool) -> TestResult {
    let store = with_work(&pool).await?;
    sqlx::raw_sql(
        "create table customers (name text primary key);
         alter table work add foreign key (payload) references customers
             deferrable initially deferred",
    )
    .execute(&pool)
    .await?;
    send(&store, &["nobody"]).await?;
    let consumer = consumer()
        .retry(RetryPolicy::fixed(Duration::from_secs(600)))
        .create(&store)
        .await?;
    let running = start_in_transaction(consumer, |delivery, mut tx| async move {
        work(&delivery, &mut tx).await
    });
    until("it has failed", async || {
        last_errors(&pool).await.len() == 1
    })
    .await;
    assert!(last_errors(&pool).await[0].contains("foreign key"));
    let report = running.stop().await?;
    assert_eq!((report.done, report.retried), (0, 1));
    assert!(worked(&pool).await?.is_empty());
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_transaction_that_the_handler_keeps_is_not_committed(pool: PgPool) -> TestResult {
    let store = with_work(&pool).await?;
    send(&store, &["kept"]).await?;
    let consumer = consumer()
        .retry(RetryPolicy::fixed(Duration::from_secs(600)))
        .create(&store)
        .await?;
    let gate = gate();
    let waiting = Arc::clone(&gate);
    let running = start_in_transaction(consumer, move |delivery, mut tx| {
        let gate = Arc::clone(&waiting);
        async move {
            work(&delivery, &mut tx).await?;
            tokio::spawn(async move {
                pass(&gate).await;
                drop(tx);
            });
            Ok::<_, Failure>(())
        }
    });
    until("it has failed", async || {
        last_errors(&pool).await.len() == 1
    })
    .await;
    assert!(last_errors(&pool).await[0].contains("has kept its transaction"));
    gate.add_permits(1);
    assert_eq!(running.stop().await?.retried, 1);
    assert!(worked(&pool).await?.is_empty());
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn what_the_handler_settles_in_it_itself_is_committed(pool: PgPool) -> TestResult {
    let store = with_work(&pool).await?;
    send(&store, &["settled"]).await?;
    let running = start_in_transaction(
        consumer().create(&store).await?,
        |delivery, mut tx| async move {
            work(&delivery, &mut tx).await?;
            delivery.dead_letter("no such customer", &mut tx).await?;
            Ok::<_, Failure>(())
        },
    );
    drained(&pool).await;
    running.stop().await?;
    assert_eq!(places(&pool).await?, (0, 1, 0));
    assert_eq!(worked(&pool).await?, [r#""settled""#]);
    Ok(())
}

/// The deletion of the message is undone, and the flag that it was settled with it.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_settlement_that_is_rolled_back_to_a_savepoint_is_made_again(pool: PgPool) -> TestResult {
    let store = with_work(&pool).await?;
    send(&store, &["once"]).await?;
    let running = start_in_transaction(
        consumer().create(&store).await?,
        |delivery, mut tx| async move {
            work(&delivery, &mut tx).await?;
            let mut savepoint = tx.begin().await?;
            delivery.ack(&mut savepoint).await?;
            savepoint.rollback().await?;
            Ok::<_, Failure>(())
        },
    );
    drained(&pool).await;
    assert_eq!(running.stop().await?.done, 1);
    assert_eq!(worked(&pool).await?, [r#""once""#]);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_message_that_is_cancelled_after_such_a_rollback_is_not_done_as_well(
    pool: PgPool,
) -> TestResult {
    let store = with_work(&pool).await?;
    let id = send(&store, &["cancelled"]).await?[0];
    let (rolled_back, cancelled) = (gate(), gate());
    let gates = (Arc::clone(&rolled_back), Arc::clone(&cancelled));
    let running =
        start_in_transaction(consumer().create(&store).await?, move |delivery, mut tx| {
            let (rolled_back, cancelled) = gates.clone();
            async move {
                work(&delivery, &mut tx).await?;
                let mut savepoint = tx.begin().await?;
                delivery.ack(&mut savepoint).await?;
                savepoint.rollback().await?;
                rolled_back.add_permits(1);
                pass(&cancelled).await;
                Ok::<_, Failure>(())
            }
        });
    pass(&rolled_back).await;
    let was = pgqrs::admin(&store).cancel("tasks", id).await?;
    assert_eq!(was, Some(pgqrs::Cancelled::Running));
    cancelled.add_permits(1);
    let report = running.stop().await?;
    assert_eq!(report.done, 0, "{report:?}");
    assert!(worked(&pool).await?.is_empty());
    assert_eq!(places(&pool).await?, (0, 0, 0));
    Ok(())
}

/// The commit of a transaction in which a statement has failed rolls back, and returns no error.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn an_error_that_the_handler_ignores_is_a_failed_attempt(pool: PgPool) -> TestResult {
    let store = with_work(&pool).await?;
    send(&store, &["ignored", "settled"]).await?;
    let consumer = consumer()
        .retry(RetryPolicy::fixed(Duration::from_secs(600)))
        .create(&store)
        .await?;
    let running = start_in_transaction(consumer, |delivery, mut tx| async move {
        work(&delivery, &mut tx).await?;
        if delivery.payload() == "settled" {
            delivery.ack(&mut tx).await?;
        }
        let _ = sqlx::query("insert into work values (null)")
            .execute(&mut **tx)
            .await;
        Ok::<_, Failure>(())
    });
    until("both have failed", async || {
        last_errors(&pool).await.len() == 2
    })
    .await;
    let report = running.stop().await?;
    assert_eq!((report.done, report.retried), (0, 2), "{report:?}");
    assert!(worked(&pool).await?.is_empty());
    Ok(())
}

/// The server would go on with it, and with its locks, and the connection could not be used.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_time_out_ends_the_statement_that_is_running(pool: PgPool) -> TestResult {
    let store = with_work(&pool).await?;
    send(&store, &["slow"]).await?;
    let consumer = consumer()
        .handler_timeout(Duration::from_secs(1))
        .retry(RetryPolicy::fixed(Duration::from_secs(600)))
        .create(&store)
        .await?;
    let running = start_in_transaction(consumer, |delivery, mut tx| async move {
        work(&delivery, &mut tx).await?;
        sqlx::query("select pg_sleep(3600)")
            .execute(&mut **tx)
            .await?;
        Ok::<_, Failure>(())
    });
    until("it has failed", async || {
        last_errors(&pool).await.len() == 1
    })
    .await;
    until("the statement has ended", async || {
        let sleeping = "select count(*) from pg_stat_activity
                        where state = 'active' and query like '%pg_sleep(3600)%' and pid <> pg_backend_pid()";
        let sleeping: sqlx::Result<i64> = sqlx::query_scalar(sleeping).fetch_one(&pool).await;
        sleeping.expect("counted") == 0
    })
    .await;
    assert_eq!(running.stop().await?.retried, 1);
    assert!(worked(&pool).await?.is_empty());
    Ok(())
}

/// The lease is extended in another transaction, with which a stricter one would conflict.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_stricter_default_isolation_is_no_obstacle_to_long_handlers(pool: PgPool) -> TestResult {
    let store = with_work(&pool).await?;
    let database: String = sqlx::query_scalar("select current_database()")
        .fetch_one(&pool)
        .await?;
    let stricter =
        format!("alter database \"{database}\" set default_transaction_isolation = 'serializable'");
    sqlx::raw_sql(sqlx::AssertSqlSafe(stricter))
        .execute(&pool)
        .await?;
    let ids = send(&store, &["long"]).await?;
    let strict = pgqrs::connect(&url(&pool)).await?;
    let consumer = consumer()
        .lease(Duration::from_secs(1))
        .create(&strict)
        .await?;
    let gate = gate();
    let waiting = Arc::clone(&gate);
    let running = start_in_transaction(consumer, move |delivery, mut tx| {
        let gate = Arc::clone(&waiting);
        async move {
            work(&delivery, &mut tx).await?;
            pass(&gate).await;
            Ok::<_, Failure>(())
        }
    });
    let leased = async |sql: &'static str| {
        let rows = sqlx::query_scalar(sql).bind(ids[0].get()).fetch_one(&pool);
        rows.await.expect("it is there")
    };
    let end = "select extract(epoch from lease_until)::float8 from pgqrs.messages
               where id = $1 and lease_token <> 0
               union all select 0 limit 1";
    until("it is delivered", async || leased(end).await > 0.0).await;
    let first: f64 = leased(end).await;
    until("the lease is extended", async || leased(end).await > first).await;
    gate.add_permits(1);
    drained(&pool).await;
    let report = running.stop().await?;
    assert_eq!((report.done, report.retried), (1, 0), "{report:?}");
    assert_eq!(worked(&pool).await?, [r#""long""#]);
    Ok(())
}
