//! An enqueue as SQL, for other drivers.

use super::*;

/// As with another driver, with nothing but the text and the parameters.
async fn run_statement(
    statement: &Statement,
    on: &mut PgConnection,
) -> Result<Vec<i64>, Box<dyn std::error::Error>> {
    let ids = sqlx::query_scalar(AssertSqlSafe(statement.sql()))
        .bind(statement.queue().as_str())
        .bind(statement.priority())
        .bind(statement.not_before())
        .bind(statement.delay())
        .bind(statement.producer().map(i64::from))
        .bind(statement.payloads())
        .bind(statement.headers())
        .fetch_all(&mut *on)
        .await?;
    Ok(ids)
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_statement_stores_what_execute_stores(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let batch = ["a", "b", "c"];
    let enqueue = || pgqrs::enqueue().messages(&batch).to("tasks");
    let by_execute = enqueue().execute(&store).await?;
    let mut connection = pool.acquire().await?;
    let statement = enqueue().statement()?;
    let by_statement = statement.check(run_statement(&statement, &mut connection).await?)?;
    let stored = stored(&pool).await?;
    for (first, second) in by_execute.iter().zip(&by_statement) {
        let of = |id| stored.iter().find(|row| row.id == id).expect("stored");
        let (first, second) = (of(first.get()), of(second.get()));
        assert_eq!(first.payload, second.payload);
        assert_eq!(first.priority, second.priority);
        assert_eq!(second.visible_at, second.enqueued_at);
    }
    assert_eq!(stored.len(), 6);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_statement_carries_its_time_its_priority_and_its_producer(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let producer = pgqrs::producer("host", 1, "tasks").create(&store).await?;
    let mut connection = pool.acquire().await?;
    let later = pgqrs::enqueue()
        .message(&1)
        .worker(&*producer)
        .delay(Duration::from_millis(1_500))
        .priority(Priority::Urgent);
    run_statement(&later.statement()?, &mut connection).await?;
    let time = Utc::now() + TimeDelta::days(3);
    let at = pgqrs::enqueue().message(&2).worker(&*producer).at(time);
    run_statement(&at.statement()?, &mut connection).await?;
    let stored = stored(&pool).await?;
    let waits = stored[0].visible_at - stored[0].enqueued_at;
    assert_eq!(waits, TimeDelta::milliseconds(1_500));
    assert_eq!(stored[0].priority, 0);
    assert_eq!(
        stored[1].visible_at.timestamp_micros(),
        time.timestamp_micros()
    );
    let producers: Vec<i64> = sqlx::query_scalar("select producer_id from pgqrs.messages")
        .fetch_all(&pool)
        .await?;
    assert_eq!(producers, [producer.id().get(); 2]);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_statement_that_stores_nothing_knows_why(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let mut connection = pool.acquire().await?;
    let unknown = pgqrs::enqueue().message(&1).to("nowhere").statement()?;
    let rows = run_statement(&unknown, &mut connection).await?;
    let refused = unknown.check(rows).unwrap_err();
    assert!(
        matches!(&refused, Error::QueueNotFound { queue } if queue.as_str() == "nowhere"),
        "{refused:?}"
    );

    let producer = pgqrs::producer("host", 1, "tasks").create(&store).await?;
    let by_producer = pgqrs::enqueue()
        .message(&1)
        .worker(&*producer)
        .statement()?;
    let mut refusal = async || {
        let rows = run_statement(&by_producer, &mut connection).await?;
        Ok::<_, Box<dyn std::error::Error>>(by_producer.check(rows).unwrap_err())
    };
    producer.suspend().await?;
    let suspended = refusal().await?;
    assert!(
        matches!(suspended, Error::WorkerSuspended { worker } if worker == producer.id()),
        "{suspended:?}"
    );
    sqlx::query("delete from pgqrs.queues")
        .execute(&pool)
        .await?;
    let without_queue = refusal().await?;
    assert!(
        matches!(without_queue, Error::QueueNotFound { .. }),
        "{without_queue:?}"
    );
    producer.shutdown().await?;
    let stopped = refusal().await?;
    assert!(
        matches!(stopped, Error::WorkerStopped { worker } if worker == producer.id()),
        "{stopped:?}"
    );
    assert!(stored(&pool).await?.is_empty());
    Ok(())
}

/// A driver that doesn't know the types asks the server.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn the_server_expects_of_a_statement_the_types_that_are_documented(
    pool: PgPool,
) -> TestResult {
    let statement = pgqrs::enqueue().message(&1).to("tasks").statement()?;
    let mut connection = pool.acquire().await?;
    let prepare = format!("prepare enqueue as {}", statement.sql());
    sqlx::raw_sql(AssertSqlSafe(prepare))
        .execute(&mut *connection)
        .await?;
    let types: Vec<String> = sqlx::query_scalar(
        "select unnest(parameter_types)::text from pg_prepared_statements where name = 'enqueue'",
    )
    .fetch_all(&mut *connection)
    .await?;
    let documented = [
        "text",
        "smallint",
        "timestamp with time zone",
        "bigint",
        "bigint",
        "text[]",
        "text[]",
    ];
    assert_eq!(types, documented);
    Ok(())
}

#[test]
fn a_statement_is_refused_for_what_execute_is_refused_for_before_it_sends() {
    let nan = pgqrs::enqueue().message(&Refused).to("tasks").statement();
    assert!(matches!(nan, Err(Error::Serialize { index: 0, .. })));
    let name = pgqrs::enqueue().message(&1).to(" tasks").statement();
    assert!(matches!(name, Err(Error::InvalidQueueName(_))));
    let header = pgqrs::enqueue().message(&1).to("tasks").header("A", "");
    assert!(matches!(header.statement(), Err(Error::InvalidHeader(_))));
    let delay = pgqrs::enqueue().message(&1).to("tasks").delay(u64::MAX);
    assert!(matches!(delay.statement(), Err(Error::DelayTooLong { .. })));
    let large = "x".repeat(64 << 20);
    let large = pgqrs::enqueue().message(&large).to("tasks").statement();
    assert!(matches!(
        large,
        Err(Error::PayloadTooLarge { index: 0, .. })
    ));
}

/// What can't be written as JSON.
struct Refused;

impl serde::Serialize for Refused {
    fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("refused"))
    }
}
