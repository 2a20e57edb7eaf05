//! `enqueue().to(..).import(..)`: large imports, a chunk at a time.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use pgqrs::{Error, Priority};
use serde::Serialize;
use serde_json::json;
use sqlx::PgPool;

use crate::support::{TestResult, count, stored, with_queues};

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn an_import_stores_chunk_by_chunk_and_holds_no_more_than_one(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let pulled = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&pulled);
    let rows = (0..2_500_u32).inspect(move |_| {
        counter.fetch_add(1, Ordering::Relaxed);
    });
    let enqueue = pgqrs::enqueue().priority(Priority::High).to("tasks");
    let mut import = enqueue.import(rows);
    let mut ids = Vec::new();
    while let Some(chunk) = import.next(&store).await? {
        ids.extend(chunk.iter().map(|id| id.get()));
        assert_eq!(import.sent(), ids.len());
        assert_eq!(count(&pool).await?, ids.len() as i64);
        assert_eq!(pulled.load(Ordering::Relaxed), ids.len());
    }
    let stored = stored(&pool).await?;
    let in_order = stored
        .iter()
        .map(|message| (message.id, message.payload.clone()));
    let expected = ids.into_iter().zip((0..2_500).map(|n| n.to_string()));
    assert_eq!(in_order.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn an_import_in_a_transaction_is_stored_with_it_or_not_at_all(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    for commit in [false, true] {
        let mut tx = pool.begin().await?;
        let mut import = pgqrs::enqueue().to("tasks").import(0..3_000);
        while import.next(&mut tx).await?.is_some() {}
        assert_eq!(import.sent(), 3_000);
        assert_eq!(count(&pool).await?, 0);
        if commit {
            tx.commit().await?
        } else {
            tx.rollback().await?
        }
    }
    assert_eq!(count(&pool).await?, 3_000);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn after_an_error_the_same_chunk_is_sent_again(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &[]).await?;
    let mut import = pgqrs::enqueue().to("tasks").import(0..1_500);
    let refused = import.next(&store).await.unwrap_err();
    assert!(
        matches!(refused, Error::QueueNotFound { .. }),
        "{refused:?}"
    );
    store.queue("tasks").await?;
    while import.next(&store).await?.is_some() {}
    assert_eq!(count(&pool).await?, 1_500);
    Ok(())
}

/// All can be written but one.
struct Fickle(u32);

impl Serialize for Fickle {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            3 => Err(serde::ser::Error::custom("not this one")),
            n => json!({"n": n}).serialize(serializer),
        }
    }
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_payload_that_cannot_be_encoded_is_reported_with_its_index_and_skipped(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let mut import = pgqrs::enqueue().to("tasks").import((0..6).map(Fickle));
    assert_eq!(
        import.next(&store).await?.expect("those before it").len(),
        3
    );
    let refused = import.next(&store).await.unwrap_err();
    assert!(
        matches!(refused, Error::Serialize { index: 3, .. }),
        "{refused:?}"
    );
    assert_eq!(import.next(&store).await?.expect("those after it").len(), 2);
    assert!(import.next(&store).await?.is_none());
    assert_eq!(count(&pool).await?, 5);
    Ok(())
}
