//! Many tests on one database.

use std::sync::Arc;

use pgqrs::{
    Delivery, HandlerTransaction, Outcome,
    testing::{assert_enqueued, capture, drain, drain_in_transaction, enqueued, refute_enqueued},
};
use sqlx::PgPool;
use tokio::sync::{Barrier, Semaphore};

use super::{EMAILS, Email, RECEIPTS, email, store};
use crate::support::{self, TestResult};

async fn answer(delivery: Delivery<Email>, mut tx: HandlerTransaction) -> pgqrs::Result<Outcome> {
    let number: i64 = delivery.payload().to.parse().unwrap_or_default();
    pgqrs::enqueue()
        .message(&number)
        .to(RECEIPTS)
        .execute(&mut tx)
        .await?;
    Ok(Outcome::Done)
}

/// Each has its transaction open while others do, ten at a time.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_hundred_tests_on_one_database_do_not_see_each_other(pool: PgPool) -> TestResult {
    store(pool.clone()).await?;
    let options = sqlx::postgres::PgPoolOptions::new().max_connections(20);
    let shared = options.connect(&support::url(&pool)).await?;
    let (turns, together) = (Arc::new(Semaphore::new(10)), Arc::new(Barrier::new(10)));
    let mut tests = tokio::task::JoinSet::new();
    for number in 0..100_i64 {
        let (turns, together) = (Arc::clone(&turns), Arc::clone(&together));
        let store = pgqrs::Store::from(shared.clone());
        tests.spawn(async move {
            let _turn = turns.acquire().await.expect("it is open");
            let mut tx = store.begin().await.expect("a connection");
            refute_enqueued!(tx, EMAILS);
            let (sent, captured) = capture(&mut tx, async |tx| {
                let ours = email(&number.to_string());
                pgqrs::enqueue().message(&ours).to(EMAILS).execute(tx).await
            })
            .await
            .expect("captured");
            sent.expect("sent");
            assert_eq!(captured.len(), 1);
            // All ten have sent theirs.
            together.wait().await;
            let ours = assert_enqueued!(tx, EMAILS);
            assert_eq!(ours.payload.to, number.to_string());
            assert_eq!(enqueued(&mut tx, EMAILS).await.expect("read").len(), 1);
            let drained = drain_in_transaction(&mut tx, EMAILS, answer)
                .await
                .expect("drained");
            assert_eq!(drained.done, [ours.id]);
            let receipts = drain(&mut tx, RECEIPTS, |delivery: Delivery<i64>| async move {
                assert_eq!(*delivery.payload(), number);
                pgqrs::Ok(())
            });
            assert_eq!(receipts.await.expect("drained").done.len(), 1);
            tx.rollback().await.expect("rolled back");
        });
    }
    while let Some(test) = tests.join_next().await {
        test?;
    }
    shared.close().await;
    assert_eq!(support::places(&pool).await?, (0, 0, 0));
    Ok(())
}
