//! An acknowledgement as SQL, for other drivers.

use pgqrs::AckStatement;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use super::*;
use crate::support::url;

/// As with another driver, with nothing but the text and the parameters.
pub(crate) async fn run_statement<T, D>(
    statement: &AckStatement<T, D>,
    on: &mut PgConnection,
) -> sqlx::Result<Vec<i64>> {
    sqlx::query_scalar(AssertSqlSafe(statement.sql()))
        .bind(statement.queue_id())
        .bind(statement.id().get())
        .bind(statement.lease_token())
        .fetch_all(on)
        .await
}

async fn with_work(pool: &PgPool) -> Result<pgqrs::Store, Box<dyn std::error::Error>> {
    sqlx::query("create table work (number int)")
        .execute(pool)
        .await?;
    Ok(with_queues(pool, &["tasks"]).await?)
}

async fn work(on: &mut PgConnection) -> sqlx::Result<()> {
    sqlx::query("insert into work values (1)")
        .execute(on)
        .await?;
    Ok(())
}

async fn worked(pool: &PgPool) -> sqlx::Result<i64> {
    sqlx::query_scalar("select count(*) from work")
        .fetch_one(pool)
        .await
}

/// As the owner of the schema, who alone may.
async fn archive_what_is_acknowledged(pool: &PgPool) -> TestResult {
    let options = QueueOptions::builder().archive_on_ack(true).build();
    let owner = pgqrs::Store::from(pool.clone());
    pgqrs::admin(&owner)
        .configure_queue("tasks", options)
        .await?;
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn work_and_acknowledgement_commit_together_or_not_at_all(pool: PgPool) -> TestResult {
    let store = with_work(&pool).await?;
    let mut connection = PgConnection::connect(&url(&pool)).await?;
    for is_archived in [false, true] {
        if is_archived {
            archive_what_is_acknowledged(&pool).await?;
        }
        let before = worked(&pool).await?;
        let id = send(&store, &[1]).await?[0];
        let delivery = one(&store).await?;
        let stored = everything(&pool).await?;
        let mut tx = connection.begin().await?;
        work(&mut tx).await?;
        let statement = delivery.ack_statement();
        let rows = run_statement(&statement, &mut tx).await?;
        statement.check(rows)?;
        // Nobody else sees anything of it yet.
        assert_eq!(everything(&pool).await?, stored);
        tx.rollback().await?;
        assert_eq!(everything(&pool).await?, stored);
        assert_eq!(worked(&pool).await?, before);

        expire(&pool, id).await?;
        let delivery = one(&store).await?;
        assert_eq!(delivery.attempt(), 2);
        let mut tx = connection.begin().await?;
        work(&mut tx).await?;
        let statement = delivery.ack_statement();
        let rows = run_statement(&statement, &mut tx).await?;
        statement.check(rows)?;
        tx.commit().await?;
        assert_eq!(places(&pool).await?, (0, 0, i64::from(is_archived)));
        assert_eq!(worked(&pool).await?, before + 1);
    }
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_message_that_a_statement_archives_is_kept_as_ack_keeps_it(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    archive_what_is_acknowledged(&pool).await?;
    let mut connection = PgConnection::connect(&url(&pool)).await?;
    for by_statement in [true, false] {
        pgqrs::enqueue()
            .message(&json!({"to": "someone"}))
            .to("tasks")
            .priority(Priority::High)
            .header("tenant", "7")
            .execute(&store)
            .await?;
        let delivery = one(&store).await?;
        if by_statement {
            let statement = delivery.ack_statement();
            let rows = run_statement(&statement, &mut connection).await?;
            statement.check(rows)?;
        } else {
            delivery.ack(&store).await?;
        }
    }
    let kept: Vec<String> = sqlx::query_scalar(
        "select (to_jsonb(a) - array['id', 'enqueued_at', 'archived_at'])::text from pgqrs.archive a",
    )
    .fetch_all(&pool)
    .await?;
    assert_eq!(kept.len(), 2);
    assert_eq!(kept[0], kept[1]);
    assert!(kept[0].contains("someone"), "{kept:?}");
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_statement_of_a_lost_lease_is_an_error_and_changes_nothing(pool: PgPool) -> TestResult {
    let store = with_work(&pool).await?;
    let mut connection = PgConnection::connect(&url(&pool)).await?;
    for is_archived in [false, true] {
        if is_archived {
            archive_what_is_acknowledged(&pool).await?;
        }
        let id = send(&store, &[1]).await?[0];
        let late = one(&store).await?;
        expire(&pool, id).await?;
        let holder = one(&store).await?;
        let before = everything(&pool).await?;
        let worked_and_acknowledged = async {
            let mut tx = connection.begin().await?;
            work(&mut tx).await?;
            let statement = late.ack_statement();
            let rows = run_statement(&statement, &mut tx).await?;
            statement.try_check(rows)?;
            tx.commit().await?;
            TestResult::Ok(())
        };
        let lost = worked_and_acknowledged.await.unwrap_err();
        let lost = lost.downcast::<Unsettled<Value, Unchecked>>();
        let unsettled = lost.expect("it hands the delivery back");
        assert!(
            matches!(unsettled.error(), Error::LeaseLost { message } if *message == id),
            "{unsettled:?}"
        );
        assert_eq!(unsettled.into_delivery().id(), id);
        assert_eq!(everything(&pool).await?, before);
        assert_eq!(worked(&pool).await?, 0);

        pgqrs::admin(&store).purge_queue("tasks").await?;
        let statement = holder.ack_statement();
        let rows = run_statement(&statement, &mut connection).await?;
        let gone = statement.check(rows);
        assert!(matches!(gone, Err(Error::LeaseLost { .. })), "{gone:?}");
    }
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_statement_that_was_not_run_has_settled_nothing(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let id = send(&store, &[1]).await?[0];
    let statement = one(&store).await?.ack_statement();
    let mismatch = statement.try_check([id.get(), id.get()]).unwrap_err();
    assert!(matches!(mismatch.error(), Error::Database(_)));
    let statement = mismatch.into_delivery().ack_statement();
    assert!(!format!("{statement:?}").contains("payload"));
    let delivery = statement.into_delivery();
    delivery.extend(Duration::from_secs(3_600)).await?;
    delivery.nack(&store).await?;
    assert_eq!(places(&pool).await?, (1, 0, 0));
    Ok(())
}

/// As the run loop extends it.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_statement_that_meets_an_extension_waits_and_acknowledges(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    for is_archived in [false, true] {
        if is_archived {
            archive_what_is_acknowledged(&pool).await?;
        }
        send(&store, &[1]).await?;
        let statement = one(&store).await?.ack_statement();
        let mut extending = pool.begin().await?;
        sqlx::query("update pgqrs.messages set lease_until = lease_until + interval '1 second'")
            .execute(&mut *extending)
            .await?;
        let mut connection = PgConnection::connect(&url(&pool)).await?;
        let acknowledging = tokio::spawn(async move {
            let rows = run_statement(&statement, &mut connection).await;
            statement.check(rows.expect("rows"))
        });
        blocked_backend(&pool, "delete from pgqrs.messages").await;
        extending.commit().await?;
        acknowledging.await??;
        assert_eq!(places(&pool).await?, (0, 0, i64::from(is_archived)));
    }
    Ok(())
}

/// A driver that doesn't know the types asks the server.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn the_server_expects_of_an_acknowledgement_the_types_that_are_documented(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let mut connection = pool.acquire().await?;
    for name in ["deleting", "archiving"] {
        if name == "archiving" {
            archive_what_is_acknowledged(&pool).await?;
        }
        send(&store, &[1]).await?;
        let statement = one(&store).await?.ack_statement();
        let prepare = format!("prepare {name} as {}", statement.sql());
        sqlx::raw_sql(AssertSqlSafe(prepare))
            .execute(&mut *connection)
            .await?;
        let types: Vec<String> = sqlx::query_scalar(
            "select unnest(parameter_types)::text from pg_prepared_statements where name = $1",
        )
        .bind(name)
        .fetch_all(&mut *connection)
        .await?;
        assert_eq!(types, ["integer", "bigint", "bigint"]);
    }
    Ok(())
}
