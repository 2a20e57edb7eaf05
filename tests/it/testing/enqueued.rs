//! What is in a queue, and what a block of code has sent.

use std::{panic::AssertUnwindSafe, time::Duration};

use pgqrs::{
    Error, Priority,
    testing::{assert_enqueued, capture, enqueued, refute_enqueued},
};
use sqlx::PgPool;

use super::{EMAILS, RECEIPTS, email, store};
use crate::support::TestResult;

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_message_is_seen_as_it_was_sent(pool: PgPool) -> TestResult {
    let store = store(pool).await?;
    let mut tx = store.begin().await?;
    pgqrs::enqueue()
        .message(&email("ada"))
        .to(EMAILS)
        .priority(Priority::Low)
        .delay(90)
        .header("tenant", "acme")
        .unique("welcome-ada")
        .execute(&mut tx)
        .await?;
    let ids = pgqrs::enqueue().message(&email("bob")).to(EMAILS);
    let ids = ids.execute(&mut tx).await?;
    let found = enqueued(&mut tx, EMAILS).await?;
    let [bob, ada] = &found[..] else {
        panic!("{found:?}");
    };
    assert_eq!((bob.id, &bob.payload), (ids[0], &email("bob")));
    assert!(bob.is_ready && bob.delay.is_zero() && bob.key.is_none());
    assert_eq!(ada.payload, email("ada"));
    assert_eq!(ada.json, r#"{"to":"ada"}"#);
    assert_eq!(ada.priority, Priority::Low);
    assert_eq!(ada.delay, Duration::from_secs(90));
    assert_eq!(ada.headers.get("tenant"), Some("acme"));
    assert_eq!(ada.key.as_deref(), Some("welcome-ada"));
    assert!(!ada.is_ready);
    assert_eq!(ada.attempt, 0);
    tx.rollback().await?;
    assert!(enqueued(&store, EMAILS).await?.is_empty());
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_queue_that_does_not_exist_and_a_payload_of_another_type_are_errors(
    pool: PgPool,
) -> TestResult {
    let store = store(pool.clone()).await?;
    let missing = enqueued(&pool, "invoices").await;
    assert!(
        matches!(missing, Err(Error::QueueNotFound { .. })),
        "{missing:?}"
    );
    pgqrs::enqueue()
        .message(&7)
        .to("emails")
        .execute(&store)
        .await?;
    let other = enqueued(&store, EMAILS).await;
    assert!(matches!(other, Err(Error::Decode { .. })), "{other:?}");
    assert_eq!(enqueued(&store, "emails").await?[0].payload, 7);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn an_assertion_returns_the_message_or_prints_what_is_there(pool: PgPool) -> TestResult {
    use futures_catch::panic_of;

    let store = store(pool.clone()).await?;
    let mut tx = store.begin().await?;
    let nothing = panic_of(AssertUnwindSafe(async {
        assert_enqueued!(tx, EMAILS);
    }));
    assert_eq!(nothing.await, "`EMAILS` has no message");
    refute_enqueued!(tx, EMAILS);
    let ada = email("ada");
    pgqrs::enqueue()
        .message(&ada)
        .to(EMAILS)
        .execute(&mut tx)
        .await?;
    let bob = pgqrs::enqueue().message(&email("bob")).to(EMAILS).delay(60);
    let bob = bob.header("tenant", "acme").execute(&mut tx).await?;
    let found = assert_enqueued!(tx, EMAILS, |email| email.to == "bob");
    assert_eq!(found.id, bob[0]);
    refute_enqueued!(tx, EMAILS, |email| email.to == "eve");
    let other = panic_of(AssertUnwindSafe(async {
        assert_enqueued!(&mut tx, EMAILS, |email| email.to == "eve");
    }));
    let other = other.await;
    let first = r#"no message of `EMAILS` matches |email| email.to == "eve"; it has 2:"#;
    assert!(other.starts_with(first), "{other}");
    assert!(other.contains(r#": {"to":"ada"}"#), "{other}");
    let second = r#": {"to":"bob"}, delayed by 60s"#;
    assert!(
        other.contains(second) && other.contains(r#"header tenant="acme""#),
        "{other}"
    );
    let contrary = panic_of(AssertUnwindSafe(async {
        refute_enqueued!(tx, EMAILS, |email| email.to == "ada");
    }));
    let contrary = contrary.await;
    assert!(
        contrary.contains(r#"matches |email| email.to == "ada""#),
        "{contrary}"
    );
    // Nothing of it was committed.
    refute_enqueued!(&pool, EMAILS);
    Ok(())
}

/// Catches the panic of a future.
mod futures_catch {
    use std::{
        future::{Future, poll_fn},
        panic::{AssertUnwindSafe, catch_unwind},
        pin::pin,
        task::Poll,
    };

    pub(super) async fn panic_of(future: AssertUnwindSafe<impl Future<Output = ()>>) -> String {
        let mut future = pin!(future.0);
        let ended = poll_fn(|context| {
            match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
                Ok(Poll::Pending) => Poll::Pending,
                Ok(Poll::Ready(())) => Poll::Ready(None),
                Err(panic) => Poll::Ready(Some(panic)),
            }
        });
        let panic = ended.await.expect("it panics");
        *panic.downcast::<String>().expect("it is a text")
    }
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn what_a_block_sends_is_captured_and_nothing_else(pool: PgPool) -> TestResult {
    let store = store(pool).await?;
    let mut tx = store.begin().await?;
    let before = email("before");
    pgqrs::enqueue()
        .message(&before)
        .to(EMAILS)
        .execute(&mut tx)
        .await?;
    let (returned, sent) = capture(&mut tx, async |tx| {
        // In a savepoint, whose transaction has an id of its own.
        let mut savepoint = sqlx::Acquire::begin(&mut **tx).await?;
        let ada = pgqrs::enqueue().message(&email("ada")).to(EMAILS);
        ada.execute(&mut savepoint).await?;
        savepoint.commit().await?;
        // Committed by another one meanwhile.
        let other = email("other");
        pgqrs::enqueue()
            .message(&other)
            .to(EMAILS)
            .execute(&store)
            .await?;
        pgqrs::enqueue()
            .message(&7)
            .to(RECEIPTS)
            .execute(tx)
            .await?;
        Ok::<_, Box<dyn std::error::Error>>("done")
    })
    .await?;
    assert_eq!(returned?, "done");
    assert_eq!(sent.len(), 2, "{sent:?}");
    let queues: Vec<_> = sent.iter().map(|(queue, _)| queue).collect();
    assert_eq!(queues, ["emails", "receipts"]);
    assert_eq!(sent.of(EMAILS)?[0].payload, email("ada"));
    assert_eq!(sent.of(RECEIPTS)?[0].payload, 7);
    let (_, nothing) = capture(&mut tx, async |_| ()).await?;
    assert!(nothing.is_empty());
    assert_eq!(enqueued(&mut tx, EMAILS).await?.len(), 3);
    Ok(())
}
