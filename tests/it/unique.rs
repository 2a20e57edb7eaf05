//! Messages with keys: what a second message with the key of another one becomes, and what its sender learns.

mod at_once;
mod lost;
mod options;
mod table;
mod waiting;

use std::time::Duration;

use pgqrs::{Enqueued, Error, Executor, MessageId, Sent};
use sqlx::PgPool;

use crate::support::{TestResult, claim, connect, count, one, stored, until, with_queues};

const HOUR: Duration = Duration::from_secs(3600);

async fn unique(on: impl Executor, key: &str, payload: u32) -> pgqrs::Result<Sent> {
    let enqueue = pgqrs::enqueue().message(&payload).to("tasks").unique(key);
    Ok(only(&enqueue.execute(on).await?))
}

fn only(enqueued: &Enqueued) -> Sent {
    let outcomes: Vec<_> = enqueued.outcomes().collect();
    assert_eq!(outcomes.len(), 1);
    assert_eq!(outcomes[0].id, enqueued[0]);
    outcomes[0]
}

/// Ids, whether new, and whether the payloads are the same.
fn outcomes_of(enqueued: &Enqueued) -> Vec<(i64, bool, Option<bool>)> {
    let outcomes = enqueued.outcomes();
    outcomes
        .map(|sent| (sent.id.get(), sent.new, sent.same_payload))
        .collect()
}

fn duplicate_of(id: MessageId, same_payload: bool) -> (i64, bool, Option<bool>) {
    (id.get(), false, Some(same_payload))
}

async fn payloads(pool: &PgPool) -> sqlx::Result<Vec<String>> {
    Ok(stored(pool).await?.into_iter().map(|m| m.payload).collect())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_second_message_with_the_key_is_not_stored_and_its_sender_is_notified(
    pool: PgPool,
) -> TestResult {
    with_queues(&pool, &["tasks", "other"]).await?;
    let store = connect(&pool).await?;
    let first = unique(&store, "a", 1).await?;
    assert!(first.new && first.same_payload.is_none());
    let same = unique(&store, "a", 1).await?;
    assert_eq!(
        (same.id, same.new, same.same_payload),
        (first.id, false, Some(true))
    );
    let different = unique(&store, "a", 2).await?;
    assert_eq!(
        (different.id, different.same_payload),
        (first.id, Some(false))
    );
    assert!(unique(&store, "b", 1).await?.new);
    let other = pgqrs::enqueue().message(&1).to("other").unique("a");
    assert!(
        only(&other.execute(&store).await?).new,
        "each queue has its own keys"
    );
    assert_eq!(count(&pool).await?, 3);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn duplicates_within_a_batch_resolve_to_the_first(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let store = connect(&pool).await?;
    let held = unique(&store, "key-7", 7).await?.id;
    let batch = |payloads: &[u32]| {
        let by = |payload: &u32| format!("key-{}", payload % 10);
        pgqrs::enqueue()
            .to("tasks")
            .unique_by(by)
            .messages(payloads)
    };
    let sent = batch(&[3, 13, 7, 3, 1, 17]).execute(&store).await?;
    let (three, one) = (sent[0], sent[4]);
    assert!(three < one, "ids are drawn in the order of the messages");
    assert_eq!(
        outcomes_of(&sent),
        [
            (three.get(), true, None),
            duplicate_of(three, false),
            duplicate_of(held, true),
            duplicate_of(three, true),
            (one.get(), true, None),
            duplicate_of(held, false),
        ]
    );
    // The same in a transaction of the caller's, and on a pool.
    let mut tx = pool.begin().await?;
    let again = batch(&[3, 23, 5, 5]).execute(&mut tx).await?;
    let five = again[2];
    let expected = [
        duplicate_of(three, true),
        duplicate_of(three, false),
        (five.get(), true, None),
        duplicate_of(five, true),
    ];
    assert_eq!(outcomes_of(&again), expected);
    tx.commit().await?;
    let again = batch(&[5, 3]).execute(&pool).await?;
    assert_eq!(
        outcomes_of(&again),
        [duplicate_of(five, true), duplicate_of(three, true)]
    );
    assert_eq!(payloads(&pool).await?, ["7", "3", "1", "5"]);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_batch_of_thousands_tells_each_of_its_duplicates(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let store = connect(&pool).await?;
    let numbers: Vec<u32> = (0..2_500).collect();
    let send = |from: u32| {
        let by = move |payload: &u32| format!("{}", (payload + from) % 2_000);
        pgqrs::enqueue()
            .to("tasks")
            .unique_by(by)
            .messages(&numbers)
    };
    let first = send(0).execute(&store).await?;
    assert_eq!(first.outcomes().filter(|sent| sent.new).count(), 2_000);
    for place in 2_000..2_500 {
        assert_eq!(first[place], first[place - 2_000]);
    }
    let ids: Vec<_> = first[..2_000].to_vec();
    assert!(ids.is_sorted());
    let delivered: Vec<_> = claim(&store, 1_000).await?.iter().map(|d| d.id()).collect();
    assert_eq!(
        delivered,
        ids[..1_000],
        "in the order of the batch, not of their keys"
    );
    let mut tx = pool.begin().await?;
    let again = send(0).execute(&mut tx).await?;
    assert!(again.outcomes().all(|sent| !sent.new));
    assert_eq!(again[..], first[..]);
    tx.commit().await?;
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_key_is_any_text_and_a_bad_one_is_refused_before_anything_is_sent(
    pool: PgPool,
) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let store = connect(&pool).await?;
    let long = "é".repeat(5_000);
    let longer = "é".repeat(5_001);
    for key in [
        " ",
        "\u{1}\n\u{7f}",
        "📮é\u{202e}",
        "'; drop table",
        "{1,NULL}",
        &long,
        &longer,
    ] {
        let first = unique(&store, key, 1).await?;
        assert!(first.new, "{key:?}");
        assert_eq!(unique(&store, key, 1).await?.id, first.id, "{key:?}");
    }
    for key in ["", "a\0b"] {
        let refused = unique(&store, key, 1).await;
        assert!(
            matches!(refused, Err(Error::InvalidKey { index: 0, .. })),
            "{refused:?}"
        );
    }
    let by = pgqrs::enqueue().to("tasks").unique_by(|key: &&str| *key);
    let refused = by.messages(&["a", ""]).execute(&store).await;
    assert!(
        matches!(refused, Err(Error::InvalidKey { index: 1, .. })),
        "{refused:?}"
    );
    assert_eq!(count(&pool).await?, 7);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_dead_letter_releases_its_key_and_is_not_put_back_while_another_has_it(
    pool: PgPool,
) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let store = connect(&pool).await?;
    let admin = pgqrs::admin(&store);
    let ids = [
        unique(&store, "a", 1).await?.id,
        unique(&store, "b", 2).await?.id,
    ];
    for delivery in claim(&store, 2).await? {
        delivery.dead_letter("a reason", &store).await?;
    }
    assert!(unique(&store, "a", 3).await?.new);
    let requeued = admin.requeue("tasks", ids[0]).await?;
    assert_eq!((requeued.back, requeued.held), (0, 1));
    let requeued = admin.requeue_all("tasks", Duration::ZERO).await?;
    assert_eq!((requeued.back, requeued.held), (1, 1));
    assert_eq!(payloads(&pool).await?, ["2", "3"]);
    // It has its key again.
    for (payload, same) in [(2, true), (3, false)] {
        let duplicate = unique(&store, "b", payload).await?;
        assert_eq!(
            (duplicate.id, duplicate.new, duplicate.same_payload),
            (ids[1], false, Some(same))
        );
    }
    for delivery in claim(&store, 2).await? {
        delivery.ack(&store).await?;
    }
    let requeued = admin.requeue_all("tasks", Duration::ZERO).await?;
    assert_eq!((requeued.back, requeued.held), (1, 0));
    Ok(())
}
