//! Many senders at once.

use std::collections::HashSet;

use tokio::task::JoinSet;

use super::*;

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn of_a_thousand_senders_of_one_key_one_stores_it_and_the_others_are_notified(
    pool: PgPool,
) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let stores = [
        connect(&pool).await?,
        connect(&pool).await?,
        connect(&pool).await?,
    ];
    for round in 0..3 {
        let key = format!("key {round}");
        let mut sending = JoinSet::new();
        for sender in 0..1_000_u32 {
            let (store, key) = (stores[sender as usize % 3].clone(), key.clone());
            let pool = pool.clone();
            sending.spawn(async move {
                let enqueue = pgqrs::enqueue().message(&sender).to("tasks");
                let enqueue = enqueue.unique(key);
                if sender % 50 == 0 {
                    enqueue.execute(&pool).await
                } else {
                    enqueue.execute(&store).await
                }
            });
        }
        let mut new = Vec::new();
        let mut ids = HashSet::new();
        while let Some(sent) = sending.join_next().await {
            let sent = only(&sent??);
            ids.insert(sent.id);
            if sent.new {
                new.push(sent.id);
            } else {
                assert_eq!(sent.same_payload, Some(false));
            }
        }
        assert_eq!((new.len(), ids.len()), (1, 1));
        assert_eq!(count(&pool).await?, round + 1);
    }
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn batches_with_overlapping_keys_never_deadlock(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let stores = [connect(&pool).await?, connect(&pool).await?];
    let mut sending = JoinSet::new();
    for sender in 0..24_u32 {
        let (store, pool) = (stores[sender as usize % 2].clone(), pool.clone());
        sending.spawn(async move {
            for round in 0..20_u32 {
                // The same keys for all senders of a round, each in another order.
                let mut keys: Vec<u32> = (0..50).map(|key| round * 50 + key).collect();
                keys.rotate_left(sender as usize * 7 % 50);
                if sender % 3 == 0 {
                    keys.reverse();
                }
                let enqueue = pgqrs::enqueue().to("tasks");
                let enqueue = enqueue
                    .unique_by(|key: &u32| key.to_string())
                    .messages(&keys);
                match sender % 4 {
                    0 => {
                        let mut tx = pool.begin().await?;
                        enqueue.execute(&mut tx).await?;
                        tx.commit().await?;
                    }
                    _ => {
                        enqueue.execute(&store).await?;
                    }
                }
            }
            Ok::<_, Error>(())
        });
    }
    while let Some(sent) = sending.join_next().await {
        sent??;
    }
    assert_eq!(count(&pool).await?, 1_000);
    let deadlocks: i64 = sqlx::query_scalar(
        "select deadlocks from pg_stat_database where datname = current_database()",
    )
    .fetch_one(&pool)
    .await?;
    assert_eq!(deadlocks, 0);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn requeued_dead_letters_and_batches_with_their_keys_never_deadlock(
    pool: PgPool,
) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let store = connect(&pool).await?;
    let send = |keys: Vec<u32>| {
        let enqueue = pgqrs::enqueue().to("tasks");
        enqueue
            .unique_by(|key: &u32| format!("{key:03}"))
            .messages(&keys)
    };
    for _ in 0..20 {
        // The later a dead letter, the earlier its key.
        let keys: Vec<u32> = (0..100).rev().collect();
        send(keys.clone()).execute(&store).await?;
        let dead = "with dead as (delete from pgqrs.messages returning *)
             insert into pgqrs.dead_letters
                 (queue_id, priority, id, enqueued_at, attempt, unique_key, payload, reason)
             select queue_id, priority, id, enqueued_at, 1, unique_key, payload, 'a reason' from dead";
        sqlx::query(dead).execute(&pool).await?;
        let in_transaction = async {
            let mut tx = pool.begin().await?;
            let sent = send(keys.clone()).execute(&mut tx).await?;
            tx.commit().await?;
            Ok::<_, Error>(sent)
        };
        let admin = pgqrs::admin(&store);
        let requeue = admin.requeue_all("tasks", Duration::ZERO);
        let (requeued, sent) = tokio::join!(requeue, in_transaction);
        let new = sent?.outcomes().filter(|sent| sent.new).count() as u64;
        let requeued = requeued?;
        assert_eq!((requeued.back + new, requeued.held), (100, new));
        assert_eq!(count(&pool).await?, 100);
        for table in ["messages", "dead_letters"] {
            let empty = sqlx::AssertSqlSafe(format!("delete from pgqrs.{table}"));
            sqlx::query(empty).execute(&pool).await?;
        }
    }
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn sends_with_other_keys_have_their_turn_while_several_keys_are_held(
    pool: PgPool,
) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let store = connect(&pool).await?;
    let held: Vec<_> = (0..8_u32).map(|n| format!("held {n}")).collect();
    let mut tx = pool.begin().await?;
    for key in &held {
        unique(&mut tx, key, 0).await?;
    }
    let send = |keys: Vec<String>| {
        let mut sending = JoinSet::new();
        for key in keys {
            let store = store.clone();
            sending.spawn(async move { unique(&store, &key, 1).await });
        }
        sending
    };
    let waiting = send(held.clone());
    crate::support::blocked_backend(&pool, "pgqrs").await;
    for round in 0..3 {
        let others = (0..50).map(|n| format!("{round} {n}")).collect();
        for sent in send(others).join_all().await {
            assert!(sent?.new);
        }
    }
    for sent in waiting.join_all().await {
        assert!(matches!(sent, Err(Error::KeyHeld { .. })), "{sent:?}");
    }
    // They wait again, and this time not in vain.
    let waiting = send(held.clone());
    crate::support::blocked_backend(&pool, "pgqrs").await;
    tx.rollback().await?;
    for sent in waiting.join_all().await {
        assert!(sent?.new);
    }
    assert_eq!(count(&pool).await?, 158);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_held_key_holds_up_neither_plain_sends_nor_the_others_of_its_group_for_long(
    pool: PgPool,
) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let store = connect(&pool).await?;
    let mut tx = pool.begin().await?;
    unique(&mut tx, "held", 0).await?;
    let mut sending = JoinSet::new();
    for sender in 0..100_u32 {
        let store = store.clone();
        sending.spawn(async move {
            let key = if sender == 50 {
                "held".to_owned()
            } else {
                sender.to_string()
            };
            unique(&store, &key, sender).await
        });
    }
    let plain = pgqrs::enqueue().message(&0).to("tasks").execute(&store);
    assert!(plain.await.is_ok());
    let (mut new, mut held) = (0, 0);
    while let Some(sent) = sending.join_next().await {
        match sent? {
            Ok(sent) => new += i32::from(sent.new),
            Err(Error::KeyHeld { .. }) => held += 1,
            Err(error) => return Err(error.into()),
        }
    }
    assert_eq!((new, held), (99, 1));
    tx.rollback().await?;
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn two_transactions_with_a_key_each_crosswise_end_in_an_error_and_not_in_a_hang(
    pool: PgPool,
) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let (mut one, mut other) = (pool.begin().await?, pool.begin().await?);
    unique(&mut one, "a", 1).await?;
    unique(&mut other, "b", 2).await?;
    let crossed = tokio::join!(unique(&mut one, "b", 1), unique(&mut other, "a", 2));
    let failed = [&crossed.0, &crossed.1];
    let failed: Vec<_> = failed
        .into_iter()
        .filter_map(|sent| sent.as_ref().err())
        .collect();
    assert!(!failed.is_empty());
    assert!(
        failed.iter().all(|error| error.is_retryable()),
        "{failed:?}"
    );
    one.rollback().await?;
    other.rollback().await?;
    assert!(unique(&pool, "a", 1).await?.new);
    Ok(())
}
