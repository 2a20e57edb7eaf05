//! Limits of single messages, which the same statement stores.

use pgqrs::{Priority, Queue};
use serde::{Deserialize, Serialize};

use super::*;

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn limits_are_stored_with_the_message(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let store = connect(&pool).await?;
    let limited = || {
        let enqueue = pgqrs::enqueue()
            .message(&1)
            .to("tasks")
            .header("tenant", "acme");
        enqueue.max_attempts(3).expires_in(HOUR).drop_if_expired()
    };
    let mut ids = vec![limited().execute(&store).await?[0]];
    ids.push(limited().execute(&pool).await?[0]);
    let mut tx = pool.begin().await?;
    ids.push(limited().execute(&mut tx).await?[0]);
    tx.commit().await?;
    let rows: Vec<(i64, i32, bool, bool, String)> = sqlx::query_as(
        "select id, max_attempts, drop_if_expired, expires_at = enqueued_at + interval '1 hour', headers ->> 'tenant'
         from pgqrs.messages order by id",
    )
    .fetch_all(&pool)
    .await?;
    ids.sort_unstable();
    let expected: Vec<_> = ids
        .iter()
        .map(|id| (id.get(), 3, true, true, "acme".to_owned()))
        .collect();
    assert_eq!(rows, expected);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_batch_stores_messages_that_each_ask_for_something_else(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let store = connect(&pool).await?;
    let held = unique(&store, "held", 9).await?.id;
    let batch = || {
        let enqueue = pgqrs::enqueue()
            .to("tasks")
            .header("tenant", "acme")
            .max_attempts(7);
        enqueue.batch([
            pgqrs::message(&1)
                .priority(Priority::Low)
                .header("tenant", "other"),
            pgqrs::message(&2).delay(HOUR).max_attempts(3),
            pgqrs::message(&9).unique("held"),
            pgqrs::message(&4).unique("b").header("more", "yes"),
            pgqrs::message(&5).once_within("b", HOUR),
            pgqrs::message(&6).unique_until_claimed("b").or_replace(),
            pgqrs::message(&7).unique_until_claimed("b").or_replace(),
            pgqrs::message(&8).unique_until_claimed("b").or_keep(),
        ])
    };
    let sent = batch().execute(&store).await?;
    let new: Vec<bool> = sent.outcomes().map(|sent| sent.new).collect();
    assert_eq!(new, [true, true, false, true, true, true, false, false]);
    assert_eq!((sent[2], sent[6], sent[7]), (held, sent[5], sent[5]));
    let rows: Vec<(String, i16, i32, String)> = sqlx::query_as(
        "select payload::text, priority, max_attempts, headers::text from pgqrs.messages
         where id <> $1 order by id",
    )
    .bind(held.get())
    .fetch_all(&pool)
    .await?;
    let rows: Vec<_> = rows
        .iter()
        .map(|(p, q, m, h)| (p.as_str(), *q, *m, h.as_str()))
        .collect();
    let acme = r#"{"tenant":"acme"}"#;
    assert_eq!(
        rows,
        [
            ("1", 3, 7, r#"{"tenant":"other"}"#),
            ("2", 2, 3, acme),
            ("4", 2, 7, r#"{"more":"yes","tenant":"acme"}"#),
            ("5", 2, 7, acme),
            ("7", 2, 7, acme),
        ]
    );
    let mut tx = pool.begin().await?;
    let again = batch().execute(&mut tx).await?;
    assert_eq!(
        again[2..],
        [held, sent[3], sent[4], sent[5], sent[5], sent[5]]
    );
    tx.rollback().await?;
    Ok(())
}

#[derive(Serialize, Deserialize)]
struct Invoice {
    order: u32,
}

const INVOICES: Queue<Invoice> =
    Queue::<Invoice>::new("tasks").unique_by(|invoice| format!("{}", invoice.order));

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn no_send_to_a_queue_with_keys_can_forget_them(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let store = connect(&pool).await?;
    let (seven, eight) = (Invoice { order: 7 }, Invoice { order: 8 });
    let first = pgqrs::enqueue()
        .message(&seven)
        .to(INVOICES)
        .execute(&store)
        .await?[0];
    let second = pgqrs::enqueue()
        .to(&INVOICES)
        .message(&seven)
        .execute(&pool)
        .await?;
    assert_eq!(outcomes_of(&second), [duplicate_of(first, true)]);
    let producer = pgqrs::producer("host", 1, INVOICES).create(&store).await?;
    let third = producer.enqueue().message(&seven).execute(&store).await?;
    assert_eq!(outcomes_of(&third), [duplicate_of(first, true)]);
    let mut import = pgqrs::enqueue().to(INVOICES).import([seven, eight]);
    let fourth = import.next(&store).await?.expect("two messages");
    assert!(!only_first(&fourth) && fourth.outcomes().last().is_some_and(|sent| sent.new));
    let own = pgqrs::enqueue()
        .message(&Invoice { order: 7 })
        .to(INVOICES)
        .unique("another");
    assert!(
        only(&own.execute(&store).await?).new,
        "an enqueue's own key counts"
    );
    let statement = pgqrs::enqueue()
        .message(&Invoice { order: 7 })
        .to(INVOICES)
        .statement();
    assert!(statement.is_err(), "it would lose its key");
    Ok(())
}

fn only_first(enqueued: &Enqueued) -> bool {
    enqueued.outcomes().next().is_some_and(|sent| sent.new)
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn limits_out_of_range_are_refused_before_anything_is_sent(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let store = connect(&pool).await?;
    let enqueue = || pgqrs::enqueue().message(&1).to("tasks");
    for attempts in [0, u32::MAX] {
        let refused = enqueue().max_attempts(attempts).execute(&store).await;
        let setting = matches!(
            refused,
            Err(Error::InvalidSetting {
                setting: "max_attempts",
                ..
            })
        );
        assert!(setting, "{refused:?}");
    }
    let refused = enqueue().expires_in(Duration::MAX).execute(&store).await;
    assert!(
        matches!(refused, Err(Error::DelayTooLong { .. })),
        "{refused:?}"
    );
    let refused = enqueue()
        .once_within("a", Duration::MAX)
        .execute(&store)
        .await;
    assert!(
        matches!(refused, Err(Error::DelayTooLong { .. })),
        "{refused:?}"
    );
    assert!(
        enqueue().max_attempts(1).statement().is_err(),
        "it would lose its limit"
    );
    assert_eq!(count(&pool).await?, 0);
    Ok(())
}
