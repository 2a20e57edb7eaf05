//! Batches: their order, and that they are stored whole.

use super::*;

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
