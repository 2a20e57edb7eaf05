//! Handlers that are run on what a test's transaction has.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use pgqrs::{
    Delivery, Error, Groups, HandlerTransaction, MessageId, Outcome, Priority, QueueOptions, Store,
    testing::{
        DrainError, advance, assert_enqueued, drain, drain_in_transaction, enqueued,
        refute_enqueued,
    },
};
use sqlx::PgPool;

use super::{EMAILS, Email, RECEIPTS, email, send, store};
use crate::support::{self, TestResult};

async fn enqueue(tx: &mut pgqrs::Transaction, to: &[&str]) -> pgqrs::Result<Vec<MessageId>> {
    let emails: Vec<_> = to.iter().map(|to| email(to)).collect();
    let ids = pgqrs::enqueue()
        .messages(&emails)
        .to(EMAILS)
        .execute(tx)
        .await?;
    Ok(ids.iter().copied().collect())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn what_a_transaction_has_sent_is_handled_in_it_and_rolled_back(pool: PgPool) -> TestResult {
    let store = store(pool.clone()).await?;
    let mut tx = store.begin().await?;
    let ids = enqueue(&mut tx, &["ada", "bob"]).await?;
    let drained = drain(&mut tx, EMAILS, send).await?;
    assert_eq!(drained.done, ids);
    refute_enqueued!(tx, EMAILS);
    tx.rollback().await?;
    assert_eq!(support::places(&pool).await?, (0, 0, 0));
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn it_runs_on_a_transaction_of_sqlx_and_on_a_pool(pool: PgPool) -> TestResult {
    let store = store(pool.clone()).await?;
    let mut tx = pool.begin().await?;
    pgqrs::enqueue()
        .message(&email("ada"))
        .to(EMAILS)
        .execute(&mut tx)
        .await?;
    assert_eq!(drain(&mut tx, EMAILS, send).await?.done.len(), 1);
    tx.rollback().await?;
    pgqrs::enqueue()
        .message(&email("bob"))
        .to(EMAILS)
        .execute(&store)
        .await?;
    assert_eq!(drain(&pool, EMAILS, send).await?.done.len(), 1);
    assert_eq!(support::count(&pool).await?, 0);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn it_follows_the_order_of_delivery(pool: PgPool) -> TestResult {
    let store = store(pool).await?;
    let mut tx = store.begin().await?;
    enqueue(&mut tx, &["1", "2"]).await?;
    let seen = Mutex::new(Vec::new());
    let note = |delivery: Delivery<Email>| {
        let to = delivery.into_payload().to;
        seen.lock().expect("no panic").push(to);
        async { pgqrs::Ok(()) }
    };
    // What an earlier drain has left comes first.
    drain(&mut tx, EMAILS, note).limit(1).await?;
    let urgent = pgqrs::enqueue().message(&email("urgent")).to(EMAILS);
    urgent.priority(Priority::Urgent).execute(&mut tx).await?;
    enqueue(&mut tx, &["3"]).await?;
    drain(&mut tx, EMAILS, note).await?;
    assert_eq!(*seen.lock().expect("no panic"), ["1", "urgent", "2", "3"]);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn the_first_error_ends_it_unless_they_are_collected(pool: PgPool) -> TestResult {
    let store = store(pool).await?;
    let mut tx = store.begin().await?;
    let ids = enqueue(&mut tx, &["", "ada", ""]).await?;
    let error = drain(&mut tx, EMAILS, send).await.expect_err("no address");
    let text = format!(
        r#"attempt 1 of message {} failed: no address; its payload is {{"to":""}}"#,
        ids[0]
    );
    assert_eq!(error.to_string(), text);
    // It waits for its next attempt, as in production.
    let first = assert_enqueued!(tx, EMAILS, |email| email.to.is_empty());
    assert!(
        !enqueued(&mut tx, EMAILS)
            .await?
            .iter()
            .any(|one| one.id == ids[0] && one.is_ready)
    );
    assert!([ids[0], ids[2]].contains(&first.id));
    let drained = drain(&mut tx, EMAILS, send).collect_errors().await?;
    assert_eq!(drained.done, [ids[1]]);
    assert_eq!(drained.failed.len(), 1, "{drained:?}");
    assert_eq!(
        (drained.failed[0].id, drained.failed[0].attempt),
        (ids[2], 1)
    );
    let panics = drain(&mut tx, EMAILS, |_| async { panic!("oh") as Outcome });
    let panics = panics.with_delayed().await.expect_err("it panics");
    assert!(
        panics.to_string().contains("the handler panicked: oh"),
        "{panics}"
    );
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn every_outcome_does_what_it_does_in_production(pool: PgPool) -> TestResult {
    let store = store(pool.clone()).await?;
    let mut tx = store.begin().await?;
    let names = [
        "done", "archive", "retry", "in", "later", "dead", "release", "unknown",
    ];
    let ids = enqueue(&mut tx, &names).await?;
    let drained = drain(&mut tx, EMAILS, |delivery: Delivery<Email>| async move {
        match delivery.payload().to.as_str() {
            "archive" => Outcome::Archive,
            "retry" => Outcome::Retry("busy".to_owned()),
            "in" => Outcome::RetryIn(Duration::from_secs(60), "full".to_owned()),
            "later" => Outcome::Later(Duration::from_secs(60)),
            "dead" => Outcome::DeadLetter("bad".to_owned()),
            "release" => Outcome::Release,
            "unknown" => Outcome::Undecodable("new".to_owned()),
            _ => Outcome::Done,
        }
    })
    .await?;
    assert_eq!(drained.done, ids[..2]);
    assert_eq!(drained.later, [ids[4], ids[6]]);
    assert_eq!(drained.dead, [ids[5]]);
    let errors: Vec<_> = drained
        .failed
        .iter()
        .map(|one| one.error.as_str())
        .collect();
    assert_eq!(errors, ["busy", "full", "bad", "new"]);
    let left = enqueued(&mut tx, EMAILS).await?;
    let attempts: Vec<_> = left.iter().map(|one| (one.id, one.attempt)).collect();
    for expected in [
        (ids[2], 1),
        (ids[3], 1),
        (ids[4], 0),
        (ids[6], 0),
        (ids[7], 0),
    ] {
        assert!(attempts.contains(&expected), "{expected:?} in {attempts:?}");
    }
    tx.commit().await?;
    assert_eq!(support::places(&pool).await?, (5, 1, 1));
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn delayed_messages_are_left_unless_asked_for_and_then_come_in_their_order(
    pool: PgPool,
) -> TestResult {
    let store = store(pool).await?;
    let mut tx = store.begin().await?;
    for (to, delay) in [("third", 600), ("second", 60), ("first", 0)] {
        let later = pgqrs::enqueue().message(&email(to)).to(EMAILS).delay(delay);
        later.execute(&mut tx).await?;
    }
    let (seen, failed) = (Mutex::new(Vec::new()), AtomicUsize::new(0));
    let handler = |delivery: Delivery<Email>| {
        seen.lock()
            .expect("no panic")
            .push(delivery.into_payload().to);
        let fails = failed.fetch_add(1, Ordering::Relaxed) == 0;
        async move { if fails { Err("once") } else { Ok(()) } }
    };
    let drained = drain(&mut tx, EMAILS, handler).collect_errors().await?;
    assert_eq!((drained.done.len(), drained.failed.len()), (0, 1));
    // The retry comes after a second, before the others.
    let drained = drain(&mut tx, EMAILS, handler).with_delayed().await?;
    assert_eq!(drained.done.len(), 3);
    assert_eq!(
        *seen.lock().expect("no panic"),
        ["first", "first", "second", "third"]
    );
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn messages_of_a_group_come_one_after_the_other(pool: PgPool) -> TestResult {
    let store = store(pool).await?;
    let options = QueueOptions::builder().groups(Groups::default()).build();
    let admin = pgqrs::admin(&store);
    admin.configure_queue(EMAILS.name(), options).await?;
    let mut tx = store.begin().await?;
    for (to, delay) in [("first", 0), ("delayed", 60), ("last", 0)] {
        let send = pgqrs::enqueue().message(&email(to)).to(EMAILS).delay(delay);
        send.group("ada").execute(&mut tx).await?;
    }
    let sent = enqueued(&mut tx, EMAILS).await?;
    let sent: Vec<_> = sent
        .iter()
        .map(|one| (one.delay.as_secs(), one.is_ready, one.group.as_deref()))
        .collect();
    let group = Some("ada");
    for expected in [(0, true, group), (60, false, group), (0, false, group)] {
        assert!(sent.contains(&expected), "{expected:?} in {sent:?}");
    }
    let seen = Mutex::new(Vec::new());
    let handler = |delivery: Delivery<Email>| {
        assert_eq!(delivery.group(), group);
        seen.lock()
            .expect("no panic")
            .push(delivery.into_payload().to);
        async { Outcome::Done }
    };
    // The second one is let in, and has its delay before it.
    let drained = drain(&mut tx, EMAILS, handler).until_empty().await?;
    assert_eq!(drained.done.len(), 1);
    advance(&mut tx, Duration::from_secs(60)).await?;
    let drained = drain(&mut tx, EMAILS, handler).until_empty().await?;
    assert_eq!(drained.done.len(), 2);
    let seen = seen.into_inner().expect("no panic");
    assert_eq!(seen, ["first", "delayed", "last"]);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn with_delayed_until_empty_a_message_that_always_fails_becomes_a_dead_letter(
    pool: PgPool,
) -> TestResult {
    let store = store(pool.clone()).await?;
    let mut tx = store.begin().await?;
    let ids = pgqrs::enqueue()
        .message(&email(""))
        .to(EMAILS)
        .max_attempts(3);
    let ids = ids.execute(&mut tx).await?;
    let drained = drain(&mut tx, EMAILS, send).with_delayed().collect_errors();
    let once = drained.await?;
    assert_eq!((once.failed.len(), once.dead.len()), (1, 0));
    let drained = drain(&mut tx, EMAILS, send).with_delayed().until_empty();
    let drained = drained.collect_errors().await?;
    let attempts: Vec<_> = drained.failed.iter().map(|one| one.attempt).collect();
    assert_eq!(attempts, [2, 3]);
    assert_eq!(drained.dead, [ids[0]]);
    tx.commit().await?;
    assert_eq!(support::places(&pool).await?, (0, 1, 0));
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_limit_ends_it_and_without_one_an_endless_chain_is_an_error(pool: PgPool) -> TestResult {
    let store = store(pool).await?;
    let mut tx = store.begin().await?;
    enqueue(&mut tx, &["ada"]).await?;
    let calls = Arc::new(AtomicUsize::new(0));
    let always = |_: Delivery<Email>| {
        calls.fetch_add(1, Ordering::Relaxed);
        async { Outcome::Release }
    };
    // Once, since what is ready again is left.
    drain(&mut tx, EMAILS, always).await?;
    assert_eq!(calls.swap(0, Ordering::Relaxed), 1);
    let limited = drain(&mut tx, EMAILS, always)
        .until_empty()
        .limit(7)
        .await?;
    assert_eq!(limited.later.len(), 7);
    assert_eq!(calls.load(Ordering::Relaxed), 7);
    let endless = drain(&mut tx, EMAILS, always).until_empty().await;
    let error = endless.expect_err("there is always one");
    assert!(
        matches!(error, DrainError::Endless { deliveries: 1_000 }),
        "{error}"
    );
    Ok(())
}

/// Handles a payment in a transaction: a receipt for it, twice for an even number, and an error for a negative one.
async fn pay(delivery: Delivery<i64>, mut tx: HandlerTransaction) -> pgqrs::Result<Outcome> {
    let order = *delivery.payload();
    sqlx::query("insert into orders values ($1)")
        .bind(order)
        .execute(&mut **tx)
        .await?;
    if order > 1 {
        pgqrs::enqueue()
            .message(&(order - 1))
            .to(RECEIPTS)
            .execute(&mut tx)
            .await?;
    }
    if order < 0 {
        return Err(Error::Closed);
    }
    Ok(Outcome::Done)
}

async fn with_orders(pool: PgPool) -> Result<Store, Box<dyn std::error::Error>> {
    sqlx::query("create table orders (id bigint unique)")
        .execute(&pool)
        .await?;
    Ok(store(pool).await?)
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_handler_in_a_transaction_works_in_that_of_the_test(pool: PgPool) -> TestResult {
    let store = with_orders(pool.clone()).await?;
    let mut tx = store.begin().await?;
    pgqrs::enqueue()
        .message(&3)
        .to(RECEIPTS)
        .execute(&mut tx)
        .await?;
    let once = drain_in_transaction(&mut tx, RECEIPTS, pay).await?;
    assert_eq!(once.done.len(), 1, "what it sends itself is left");
    assert_enqueued!(tx, RECEIPTS, |order| *order == 2);
    let rest = drain_in_transaction(&mut tx, RECEIPTS, pay)
        .until_empty()
        .await?;
    assert_eq!(rest.done.len(), 2);
    let orders = "select count(*) from orders";
    let seen: i64 = sqlx::query_scalar(orders).fetch_one(&mut **tx).await?;
    assert_eq!(seen, 3);
    tx.rollback().await?;
    let committed: i64 = sqlx::query_scalar(orders).fetch_one(&pool).await?;
    assert_eq!((committed, support::count(&pool).await?), (0, 0));
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn of_a_handler_that_fails_only_its_own_work_is_undone(pool: PgPool) -> TestResult {
    let store = with_orders(pool).await?;
    let mut tx = store.begin().await?;
    sqlx::query("insert into orders values (1)")
        .execute(&mut **tx)
        .await?;
    // The first one returns an error, the second one has a statement that fails, and the third one works.
    for order in [-1, 1, 5] {
        pgqrs::enqueue()
            .message(&order)
            .to(RECEIPTS)
            .execute(&mut tx)
            .await?;
    }
    let drained = drain_in_transaction(&mut tx, RECEIPTS, pay)
        .collect_errors()
        .await?;
    assert_eq!(
        (drained.done.len(), drained.failed.len()),
        (1, 2),
        "{drained:?}"
    );
    let orders = sqlx::query_scalar("select id from orders order by id");
    let orders: Vec<i64> = orders.fetch_all(&mut **tx).await?;
    assert_eq!(orders, [1, 5]);
    let waiting = enqueued(&mut tx, RECEIPTS).await?;
    assert_eq!(waiting.iter().filter(|one| one.attempt == 1).count(), 2);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_handler_can_settle_its_message_in_the_tests_transaction(pool: PgPool) -> TestResult {
    let store = store(pool.clone()).await?;
    let mut tx = store.begin().await?;
    let ids = enqueue(&mut tx, &["ada"]).await?;
    let settled = drain_in_transaction(
        &mut tx,
        EMAILS,
        async |delivery: Delivery<Email>, mut tx| {
            delivery.extend(Duration::from_secs(60)).await?;
            delivery.archive(&mut tx).await
        },
    );
    assert_eq!(settled.await?.done, ids);
    tx.commit().await?;
    assert_eq!(support::places(&pool).await?, (0, 0, 1));
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_handler_that_keeps_its_transaction_is_reported(pool: PgPool) -> TestResult {
    let store = store(pool).await?;
    let mut tx = store.begin().await?;
    enqueue(&mut tx, &["ada"]).await?;
    let kept = Mutex::new(None);
    let keeps = drain_in_transaction(&mut tx, EMAILS, |_, tx| {
        *kept.lock().expect("no panic") = Some(tx);
        async { pgqrs::Ok(()) }
    });
    let error = keeps.await.expect_err("it has kept it");
    assert!(
        matches!(&error, DrainError::Failed(failed) if failed.error.contains("has kept its transaction")),
        "{error}"
    );
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_drain_that_is_dropped_leaves_the_tests_transaction_in_place(pool: PgPool) -> TestResult {
    let store = store(pool).await?;
    let mut tx = store.begin().await?;
    let ids = enqueue(&mut tx, &["ada"]).await?;
    let started = tokio::sync::Notify::new();
    let endless = drain_in_transaction(&mut tx, EMAILS, |_, _tx| {
        started.notify_one();
        std::future::pending::<pgqrs::Result<()>>()
    });
    tokio::select! {
        ended = endless => panic!("{ended:?}"),
        () = started.notified() => {}
    }
    assert_eq!(enqueued(&mut tx, EMAILS).await?[0].id, ids[0]);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_payload_that_does_not_decode_is_an_error_with_the_payload(pool: PgPool) -> TestResult {
    let store = store(pool).await?;
    let mut tx = store.begin().await?;
    pgqrs::enqueue()
        .message(&"text")
        .to("emails")
        .execute(&mut tx)
        .await?;
    let error = drain(&mut tx, EMAILS, send)
        .await
        .expect_err("it is no email");
    assert!(
        error.to_string().ends_with(r#"its payload is "text""#),
        "{error}"
    );
    let missing = drain(&mut tx, "invoices", |_| async { pgqrs::Ok(()) }).await;
    let missing = missing.expect_err("there is no such queue");
    assert!(
        matches!(missing, DrainError::Pgqrs(Error::QueueNotFound { .. })),
        "{missing}"
    );
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn messages_of_a_group_are_run_one_after_another(pool: PgPool) -> TestResult {
    let store = store(pool).await?;
    let options = QueueOptions::builder().groups(Groups::default()).build();
    let admin = pgqrs::admin(&store);
    admin.configure_queue(EMAILS, options).await?;
    let mut tx = store.begin().await?;
    for to in ["1", "2", "3"] {
        let ada = pgqrs::enqueue().message(&email(to)).to(EMAILS).group("ada");
        ada.execute(&mut tx).await?;
    }
    assert_eq!(
        enqueued(&mut tx, EMAILS).await?[0].group.as_deref(),
        Some("ada")
    );
    let seen = Mutex::new(Vec::new());
    let note = |delivery: Delivery<Email>| {
        seen.lock()
            .expect("no panic")
            .push(delivery.into_payload().to);
        async { pgqrs::Ok(()) }
    };
    let first = drain(&mut tx, EMAILS, note).with_delayed().await?;
    assert_eq!(first.done.len(), 1, "the others wait for it");
    assert_eq!(
        drain(&mut tx, EMAILS, note).until_empty().await?.done.len(),
        2
    );
    assert_eq!(*seen.lock().expect("no panic"), ["1", "2", "3"]);
    Ok(())
}
