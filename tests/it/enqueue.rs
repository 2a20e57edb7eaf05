//! `enqueue()`: what is stored, in which order, and what is not.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use pgqrs::{Error, Priority, Queue, Statement, Store, When};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgConnection, PgPool};

use crate::support::{
    TestResult, blocked_backend, changes, count, expire, stored, terminate, url, with_queues,
};

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn one_message_gets_one_positive_id(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let ids = pgqrs::enqueue()
        .message(&json!({"n": 1}))
        .to("tasks")
        .execute(&store)
        .await?;
    assert_eq!(ids.len(), 1);
    assert!(ids[0].get() > 0);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn calls_can_come_in_any_order(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let urgent = Priority::Urgent;
    pgqrs::enqueue()
        .message(&1)
        .to("tasks")
        .delay(60)
        .priority(urgent)
        .execute(&store)
        .await?;
    pgqrs::enqueue()
        .to("tasks")
        .message(&1)
        .priority(urgent)
        .delay(60)
        .execute(&store)
        .await?;
    pgqrs::enqueue()
        .delay(60)
        .priority(urgent)
        .to("tasks")
        .message(&1)
        .execute(&store)
        .await?;
    pgqrs::enqueue()
        .priority(urgent)
        .messages(&[1])
        .delay(60)
        .to("tasks")
        .execute(&store)
        .await?;
    for message in stored(&pool).await? {
        assert_eq!((message.payload.as_str(), message.priority), ("1", 0));
        assert_eq!(
            message.visible_at - message.enqueued_at,
            TimeDelta::seconds(60)
        );
    }
    assert_eq!(count(&pool).await?, 4);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn the_builder_can_be_kept_and_sent_to_another_task(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let enqueue = {
        let short_lived = vec![String::from("hello")];
        pgqrs::enqueue().messages(&short_lived)
    };
    let ids = tokio::spawn(async move { enqueue.to("tasks").execute(&store).await }).await??;
    assert_eq!(ids.len(), 1);
    assert_eq!(stored(&pool).await?[0].payload, r#""hello""#);
    Ok(())
}

/// Compiles: with a lifetime in `Executor`, "implementation is not general enough".
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_call_on_each_kind_of_executor_can_be_spawned(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let on_store = tokio::spawn({
        let store = store.clone();
        async move {
            pgqrs::enqueue()
                .message(&1)
                .to("tasks")
                .execute(&store)
                .await
        }
    });
    let on_pool = tokio::spawn({
        let pool = pool.clone();
        async move {
            pgqrs::enqueue()
                .message(&2)
                .to("tasks")
                .execute(&pool)
                .await
        }
    });
    let on_pooled_connection = tokio::spawn({
        let pool = pool.clone();
        async move {
            let mut connection = pool.acquire().await?;
            pgqrs::enqueue()
                .message(&3)
                .to("tasks")
                .execute(&mut connection)
                .await
        }
    });
    let on_connection = tokio::spawn({
        let pool = pool.clone();
        async move {
            let mut connection = pool.acquire().await?.detach();
            pgqrs::enqueue()
                .message(&4)
                .to("tasks")
                .execute(&mut connection)
                .await
        }
    });
    let on_transaction = tokio::spawn({
        let pool = pool.clone();
        async move {
            let mut tx = pool.begin().await?;
            let ids = pgqrs::enqueue()
                .message(&5)
                .to("tasks")
                .execute(&mut tx)
                .await?;
            tx.commit().await?;
            Ok::<_, pgqrs::Error>(ids)
        }
    });
    let mut ids = HashSet::new();
    for call in [
        on_store,
        on_pool,
        on_pooled_connection,
        on_connection,
        on_transaction,
    ] {
        ids.extend(call.await??);
    }
    assert_eq!(ids.len(), 5);
    assert_eq!(count(&pool).await?, 5);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn in_the_callers_transaction_it_is_invisible_until_commit_and_gone_after_rollback(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let mut tx = pool.begin().await?;
    pgqrs::enqueue()
        .message(&"kept")
        .to("tasks")
        .execute(&mut tx)
        .await?;
    assert_eq!(count(&pool).await?, 0);
    assert!(
        pgqrs::dequeue()
            .from("tasks")
            .execute(&store)
            .await?
            .is_empty()
    );
    tx.commit().await?;
    assert_eq!(count(&pool).await?, 1);

    let mut tx = pool.begin().await?;
    pgqrs::enqueue()
        .message(&"dropped")
        .to("tasks")
        .execute(&mut tx)
        .await?;
    let large: Vec<_> = (0..1_500).collect();
    pgqrs::enqueue()
        .messages(&large)
        .to("tasks")
        .execute(&mut tx)
        .await?;
    pgqrs::enqueue()
        .message(&"dropped too")
        .to("tasks")
        .execute(&mut *tx)
        .await?;
    tx.rollback().await?;
    assert_eq!(count(&pool).await?, 1);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn the_callers_transaction_goes_on_after_an_unknown_queue(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let mut tx = pool.begin().await?;
    let refused = pgqrs::enqueue()
        .message(&1)
        .to("taks")
        .execute(&mut tx)
        .await;
    assert!(matches!(refused, Err(Error::QueueNotFound { .. })));
    pgqrs::enqueue()
        .message(&1)
        .to("tasks")
        .execute(&mut tx)
        .await?;
    tx.commit().await?;
    assert_eq!(count(&pool).await?, 1);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_batch_keeps_its_order(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    for size in [1, 2, 51, 1_000, 1_001, 10_000] {
        sqlx::query("truncate pgqrs.messages")
            .execute(&pool)
            .await?;
        // Payloads whose own order is another one.
        let payloads: Vec<Value> = (0..size)
            .map(|n| json!({"n": n, "text": format!("{:x}", n * 7919 % 10_007)}))
            .collect();
        let ids = pgqrs::enqueue()
            .messages(&payloads)
            .to("tasks")
            .execute(&store)
            .await?;
        assert_eq!(ids.len(), size);
        let stored = stored(&pool).await?;
        assert_eq!(stored.len(), size);
        for ((id, payload), stored) in ids.iter().zip(&payloads).zip(&stored) {
            assert_eq!(id.get(), stored.id);
            assert_eq!(*payload, serde_json::from_str::<Value>(&stored.payload)?);
        }
        let transactions: i64 =
            sqlx::query_scalar("select count(distinct xmin::text) from pgqrs.messages")
                .fetch_one(&pool)
                .await?;
        assert_eq!(transactions, 1, "of {size}");
    }
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn batches_sent_at_once_keep_their_order_each(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let senders: Vec<_> = (0..8)
        .map(|sender| {
            let store = store.clone();
            tokio::spawn(async move {
                let payloads: Vec<_> = (0..700).map(|n| format!("{sender}:{n}")).collect();
                let ids = pgqrs::enqueue()
                    .messages(&payloads)
                    .to("tasks")
                    .execute(&store)
                    .await?;
                Ok::<_, pgqrs::Error>((payloads, ids))
            })
        })
        .collect();
    let mut sent = HashMap::new();
    for sender in senders {
        let (payloads, ids) = sender.await??;
        for (payload, id) in payloads.into_iter().zip(ids) {
            sent.insert(id.get(), format!("{payload:?}"));
        }
    }
    assert_eq!(sent.len(), 8 * 700);
    for message in stored(&pool).await? {
        assert_eq!(sent[&message.id], message.payload);
    }
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_failure_in_the_last_chunk_leaves_nothing_of_the_batch(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    // A rule of the database's own that one payload, far behind, violates.
    sqlx::query("alter table pgqrs.messages add check (payload::text <> '9500')")
        .execute(&pool)
        .await?;
    let payloads: Vec<_> = (0..10_000).collect();
    let refused = pgqrs::enqueue()
        .messages(&payloads)
        .to("tasks")
        .execute(&store)
        .await;
    assert!(matches!(refused, Err(Error::Database(_))), "{refused:?}");
    assert_eq!(count(&pool).await?, 0);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_batch_of_several_chunks_becomes_visible_at_one_time(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let payloads: Vec<_> = (0..2_500).collect();
    pgqrs::enqueue()
        .messages(&payloads)
        .to("tasks")
        .execute(&store)
        .await?;
    pgqrs::enqueue()
        .messages(&payloads)
        .to("tasks")
        .delay(60)
        .execute(&store)
        .await?;
    let tomorrow = Utc::now() + TimeDelta::days(1);
    pgqrs::enqueue()
        .messages(&payloads)
        .to("tasks")
        .at(tomorrow)
        .execute(&store)
        .await?;
    for batch in stored(&pool).await?.chunks(2_500) {
        assert!(
            batch
                .iter()
                .all(|message| message.visible_at == batch[0].visible_at)
        );
    }
    Ok(())
}

/// More bytes than one statement takes: chunks by size too.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_batch_of_large_payloads_is_stored_whole(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let payloads: Vec<_> = (0..9).map(|n| n.to_string().repeat(10 << 20)).collect();
    let ids = pgqrs::enqueue()
        .messages(&payloads)
        .to("tasks")
        .execute(&store)
        .await?;
    let first: Vec<(i64, String, i32)> = sqlx::query_as(
        "select id, substr(payload::text, 2, 1), length(payload::text) from pgqrs.messages order by id",
    )
    .fetch_all(&pool)
    .await?;
    let expected: Vec<_> = ids
        .iter()
        .enumerate()
        .map(|(n, id)| (id.get(), n.to_string(), (10 << 20) + 2))
        .collect();
    assert_eq!(first, expected);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_delay_counts_from_the_databases_now(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    pgqrs::enqueue()
        .message(&1)
        .to("tasks")
        .delay(300)
        .execute(&store)
        .await?;
    pgqrs::enqueue()
        .message(&2)
        .to("tasks")
        .delay(Duration::from_secs(300))
        .execute(&store)
        .await?;
    pgqrs::enqueue()
        .message(&3)
        .to("tasks")
        .delay(Duration::from_millis(250))
        .execute(&store)
        .await?;
    pgqrs::enqueue()
        .message(&4)
        .to("tasks")
        .delay(0)
        .execute(&store)
        .await?;
    let delays: Vec<_> = stored(&pool)
        .await?
        .iter()
        .map(|message| (message.visible_at - message.enqueued_at).num_milliseconds())
        .collect();
    assert_eq!(delays, [300_000, 300_000, 250, 0]);
    let deliveries = pgqrs::dequeue()
        .from("tasks")
        .limit(10)
        .execute(&store)
        .await?;
    assert_eq!(
        deliveries
            .iter()
            .map(|delivery| delivery.raw_payload())
            .collect::<Vec<_>>(),
        ["4"]
    );
    Ok(())
}

/// `now()` would be the time when the transaction began, and the delay long over.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn in_a_long_transaction_a_delay_counts_from_the_enqueue(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let mut tx = pool.begin().await?;
    sqlx::query("select pg_sleep(0.2)")
        .execute(&mut *tx)
        .await?;
    pgqrs::enqueue()
        .message(&1)
        .to("tasks")
        .delay(1)
        .execute(&mut tx)
        .await?;
    let since_begin: f64 = sqlx::query_scalar(
        "select extract(epoch from visible_at - now())::float8 from pgqrs.messages",
    )
    .fetch_one(&mut *tx)
    .await?;
    assert!(since_begin >= 1.2, "{since_begin}");
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn at_is_a_time_of_the_database_and_the_past_is_now(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let time = "2040-02-29T12:34:56.789012Z".parse()?;
    pgqrs::enqueue()
        .message(&1)
        .to("tasks")
        .at(time)
        .execute(&store)
        .await?;
    pgqrs::enqueue()
        .message(&2)
        .to("tasks")
        .at("1999-12-31T23:59:59Z".parse()?)
        .execute(&store)
        .await?;
    pgqrs::enqueue()
        .message(&3)
        .to("tasks")
        .at(chrono::DateTime::<Utc>::MIN_UTC)
        .execute(&store)
        .await?;
    pgqrs::enqueue()
        .message(&4)
        .to("tasks")
        .at(chrono::DateTime::<Utc>::MAX_UTC)
        .execute(&store)
        .await?;
    let stored = stored(&pool).await?;
    assert_eq!(stored[0].visible_at, time);
    assert_eq!(stored[1].visible_at, stored[1].enqueued_at);
    assert_eq!(stored[2].visible_at, stored[2].enqueued_at);
    assert!(stored[3].visible_at > time);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_delay_beyond_the_calendar_is_refused_before_anything_is_sent(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let refused = pgqrs::enqueue()
        .message(&1)
        .to("tasks")
        .delay(u64::MAX)
        .execute(&store)
        .await;
    let Err(Error::DelayTooLong { delay, limit }) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(delay, Duration::from_secs(u64::MAX));
    assert_eq!(count(&pool).await?, 0);

    // The longest one is within the calendar of all parts.
    pgqrs::enqueue()
        .message(&1)
        .to("tasks")
        .delay(limit)
        .execute(&store)
        .await?;
    assert!(stored(&pool).await?[0].visible_at > Utc::now() + TimeDelta::days(365 * 100_000));
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn an_unknown_queue_is_named_with_the_remedy(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let refused = pgqrs::enqueue()
        .message(&1)
        .to("taks")
        .execute(&store)
        .await
        .unwrap_err();
    assert!(matches!(&refused, Error::QueueNotFound { queue } if queue.as_str() == "taks"));
    assert!(!refused.is_retryable());
    assert!(
        refused.to_string().contains(r#"create_queue("taks")"#),
        "{refused}"
    );
    let batch: Vec<_> = (0..2_000).collect();
    let refused = pgqrs::enqueue()
        .messages(&batch)
        .to("taks")
        .execute(&store)
        .await;
    assert!(matches!(refused, Err(Error::QueueNotFound { .. })));
    assert_eq!(count(&pool).await?, 0);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_name_that_cant_be_a_queues_is_refused(pool: PgPool) -> TestResult {
    let store = Store::from(pool.clone());
    for name in ["", " tasks", "tasks\n", &"q".repeat(129)] {
        let refused = pgqrs::enqueue().message(&1).to(name).execute(&store).await;
        assert!(
            matches!(refused, Err(Error::InvalidQueueName(_))),
            "{name:?}: {refused:?}"
        );
        let refused = pgqrs::dequeue().from(name).execute(&store).await;
        assert!(
            matches!(refused, Err(Error::InvalidQueueName(_))),
            "{name:?}: {refused:?}"
        );
        let refused = store.queue(name).await;
        assert!(
            matches!(refused, Err(Error::InvalidQueueName(_))),
            "{name:?}: {refused:?}"
        );
    }
    Ok(())
}

#[sqlx::test(migrations = false)]
async fn without_the_schema_it_says_how_to_install_it(pool: PgPool) -> TestResult {
    let store = Store::from(pool);
    let refused = pgqrs::enqueue()
        .message(&1)
        .to("tasks")
        .execute(&store)
        .await
        .unwrap_err();
    assert!(matches!(refused, Error::NotInstalled));
    assert!(refused.to_string().contains("install()"), "{refused}");
    let refused = pgqrs::dequeue()
        .from("tasks")
        .execute(&store)
        .await
        .unwrap_err();
    assert!(matches!(refused, Error::NotInstalled));
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_schema_that_lacks_a_column_is_called_outdated(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    sqlx::query("alter table pgqrs.messages drop column priority")
        .execute(&pool)
        .await?;
    let refused = pgqrs::enqueue()
        .message(&1)
        .to("tasks")
        .execute(&store)
        .await;
    assert!(matches!(refused, Err(Error::SchemaOutdated)), "{refused:?}");
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn names_that_sql_would_trip_over_are_just_names(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &[]).await?;
    for name in [
        "'; drop table pgqrs.messages; --",
        "Robert\"",
        "%_\\",
        "größe/キュー 📮",
        "$1",
    ] {
        store.queue(name).await?;
        pgqrs::enqueue()
            .message(&name)
            .to(name)
            .execute(&store)
            .await?;
        let deliveries = pgqrs::dequeue().from(name).execute(&store).await?;
        assert_eq!(deliveries[0].payload()?, name);
    }
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_typed_queue_returns_its_type(pool: PgPool) -> TestResult {
    #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    struct SendEmail {
        to: String,
        attachments: Vec<u8>,
    }
    const EMAILS: Queue<SendEmail> = Queue::new("emails");
    let store = Store::from(pool);
    let emails = store.queue(EMAILS).await?;
    let message = |to: &str| SendEmail {
        to: to.into(),
        attachments: vec![1, 2, 3],
    };
    pgqrs::enqueue()
        .message(&message("ada"))
        .to(EMAILS)
        .execute(&store)
        .await?;
    pgqrs::enqueue()
        .to(&EMAILS)
        .messages(&[message("bob")])
        .execute(&store)
        .await?;
    pgqrs::enqueue()
        .message(&message("eve"))
        .to(&emails)
        .execute(&store)
        .await?;
    pgqrs::enqueue()
        .message(&message("zoe"))
        .to("emails")
        .execute(&store)
        .await?;
    let deliveries = pgqrs::dequeue()
        .from(EMAILS)
        .limit(10)
        .execute(&store)
        .await?;
    for (delivery, name) in deliveries.iter().zip(["ada", "bob", "eve", "zoe"]) {
        let email: &SendEmail = delivery.payload()?;
        assert_eq!(*email, message(name));
    }
    assert_eq!(deliveries.len(), 4);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_thousand_enqueues_touch_no_table_but_messages(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let url = url(&pool);
    pool.close().await;
    let tables = ["queues", "workers", "dead_letters", "archive"];
    let mut before = Vec::new();
    for table in tables {
        before.push(changes(&url, table).await?);
    }
    let (inserted, updated, deleted) = changes(&url, "messages").await?;
    let store = pgqrs::connect(&url).await?;
    for n in 0..1_000 {
        pgqrs::enqueue()
            .message(&n)
            .to("tasks")
            .execute(&store)
            .await?;
    }
    store.pool().close().await;
    let mut after = Vec::new();
    for table in tables {
        after.push(changes(&url, table).await?);
    }
    assert_eq!(before, after);
    // And the counters do count.
    assert_eq!(
        changes(&url, "messages").await?,
        (inserted + 1_000, updated, deleted)
    );
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn on_a_pool_a_connection_killed_in_the_middle_is_retryable_and_the_next_call_works(
    pool: PgPool,
) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let theirs = PgPool::connect(&url(&pool)).await?;
    let mut blocker = pool.begin().await?;
    sqlx::query("lock table pgqrs.messages")
        .execute(&mut *blocker)
        .await?;
    let call = tokio::spawn({
        let theirs = theirs.clone();
        async move {
            pgqrs::enqueue()
                .message(&1)
                .to("tasks")
                .execute(&theirs)
                .await
        }
    });
    let backend = blocked_backend(&pool, "insert into pgqrs.messages").await;
    terminate(&pool, backend).await?;
    let failed = call.await?.unwrap_err();
    assert!(matches!(failed, Error::ConnectionLost(_)), "{failed:?}");
    assert!(failed.is_retryable());
    blocker.rollback().await?;

    let ids = pgqrs::enqueue()
        .message(&2)
        .to("tasks")
        .execute(&theirs)
        .await?;
    assert_eq!(ids.len(), 1);
    assert_eq!(count(&pool).await?, 1);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_delayed_message_is_delivered_after_its_time_and_not_before(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let ids = pgqrs::enqueue()
        .messages(&[1, 2])
        .to("tasks")
        .delay(3_600)
        .execute(&store)
        .await?;
    assert!(
        pgqrs::dequeue()
            .from("tasks")
            .execute(&store)
            .await?
            .is_empty()
    );
    expire(&pool, ids[0]).await?;
    let deliveries = pgqrs::dequeue()
        .from("tasks")
        .limit(10)
        .execute(&store)
        .await?;
    assert_eq!(
        deliveries
            .iter()
            .map(pgqrs::Delivery::id)
            .collect::<Vec<_>>(),
        [ids[0]]
    );
    Ok(())
}

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

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn whether_a_message_is_delayed_can_be_decided_at_run_time(pool: PgPool) -> TestResult {
    let store = with_queues(pool.clone(), &["tasks"]).await?;
    let day_after_2100 = DateTime::from_timestamp(4_102_531_200, 0).expect("a time");
    for when in [
        When::Now,
        When::After(Duration::from_secs(60)),
        When::At(day_after_2100),
        When::At(DateTime::UNIX_EPOCH),
    ] {
        let enqueue = pgqrs::enqueue().message(&1).to("tasks").when(when);
        enqueue.execute(&store).await?;
    }
    let stored = stored(&pool).await?;
    let wait = |n: usize| (stored[n].visible_at - stored[n].enqueued_at).num_seconds();
    assert_eq!([wait(0), wait(1), wait(3)], [0, 60, 0]);
    assert_eq!(stored[2].visible_at, day_after_2100);

    let too_long = pgqrs::enqueue()
        .message(&1)
        .to("tasks")
        .when(When::After(Duration::MAX));
    assert!(matches!(
        too_long.execute(&store).await,
        Err(Error::DelayTooLong { .. })
    ));
    Ok(())
}

#[test]
fn an_enqueue_shows_no_payload_in_a_log() {
    let enqueue = pgqrs::enqueue().message("secret").to("tasks");
    assert!(!format!("{enqueue:?}").contains("secret"));
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_delay_may_be_none(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    for delay in [None, Some(Duration::from_secs(60))] {
        let enqueue = pgqrs::enqueue().message(&1).to("tasks").delay(delay);
        enqueue.execute(&store).await?;
    }
    pgqrs::enqueue()
        .message(&1)
        .to("tasks")
        .delay(Some(60))
        .execute(&store)
        .await?;
    let waits: Vec<_> = stored(&pool)
        .await?
        .iter()
        .map(|message| (message.visible_at - message.enqueued_at).num_seconds())
        .collect();
    assert_eq!(waits, [0, 60, 60]);
    Ok(())
}
