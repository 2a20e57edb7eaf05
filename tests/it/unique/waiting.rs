//! Keys until a message is claimed, and what a duplicate does to the one that waits.

use super::*;

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_duplicate_replaces_the_one_that_waits(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let store = connect(&pool).await?;
    let enqueue = |payload: u32| {
        let enqueue = pgqrs::enqueue().message(&payload).to("tasks");
        enqueue.unique_until_claimed("a").or_replace()
    };
    let first = enqueue(1).delay(HOUR).execute(&store).await?[0];
    let urgent = enqueue(2)
        .priority(pgqrs::Priority::Urgent)
        .header("tenant", "acme");
    let second = urgent.max_attempts(3).execute(&store).await?;
    assert_eq!(
        outcomes_of(&second),
        [duplicate_of(first, true)],
        "it has this payload by now"
    );
    let delivery = one(&store).await?;
    assert_eq!(
        (delivery.id(), delivery.headers().get("tenant")),
        (first, Some("acme"))
    );
    assert_eq!(delivery.priority(), pgqrs::Priority::Urgent);
    assert_eq!(delivery.payload()?, 2);
    // It runs: this one is another message.
    let third = enqueue(3).execute(&store).await?;
    assert!(only(&third).new);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_duplicate_postpones_the_one_that_waits_but_not_for_ever(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let store = connect(&pool).await?;
    let send = async |delay: u64| {
        let enqueue = pgqrs::enqueue().message(&delay).to("tasks");
        let enqueue = enqueue
            .unique_until_claimed("a")
            .or_postpone(Duration::from_secs(600));
        enqueue.delay(delay).execute(&store).await
    };
    let waits = async || -> sqlx::Result<i64> {
        let message = stored(&pool).await?.remove(0);
        Ok((message.visible_at - message.enqueued_at).num_seconds())
    };
    send(60).await?;
    send(120).await?;
    assert!((120..180).contains(&waits().await?));
    send(10).await?;
    assert!(
        (120..180).contains(&waits().await?),
        "it is never moved to an earlier time"
    );
    send(6_000).await?;
    assert_eq!(waits().await?, 600);
    assert_eq!(payloads(&pool).await?, ["60"]);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn duplicates_are_appended_to_the_array_that_waits(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let store = connect(&pool).await?;
    let send = async |payload: &[f64]| {
        let enqueue = pgqrs::enqueue().message(payload).to("tasks");
        enqueue
            .unique_until_claimed("a")
            .or_append()
            .execute(&store)
            .await
    };
    send(&[]).await?;
    send(&[]).await?;
    assert_eq!(payloads(&pool).await?, ["[]"]);
    send(&[1.5]).await?;
    send(&[2.0, 1e30]).await?;
    send(&[]).await?;
    assert_eq!(payloads(&pool).await?, ["[1.5,2.0,1e+30]"]);
    let bytes: i32 = sqlx::query_scalar("select payload_bytes from pgqrs.messages")
        .fetch_one(&pool)
        .await?;
    assert_eq!(bytes, 15);
    let keep = |payload: &[f64]| {
        let enqueue = pgqrs::enqueue().message(payload).to("tasks");
        enqueue.unique_until_claimed("a").execute(&store)
    };
    for (payload, same) in [(&[1.5, 2.0, 1e30][..], true), (&[1.5], false)] {
        assert_eq!(only(&keep(payload).await?).same_payload, Some(same));
    }
    let refused = pgqrs::enqueue()
        .message(&1)
        .to("tasks")
        .unique_until_claimed("a")
        .or_append();
    let refused = refused.execute(&store).await;
    assert!(
        matches!(refused, Err(Error::InvalidKey { index: 0, .. })),
        "{refused:?}"
    );
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn an_array_doesn_t_grow_beyond_the_largest_payload(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let store = connect(&pool).await?;
    let send = async |payload: &str| {
        let enqueue = pgqrs::enqueue().message(&[payload]).to("tasks");
        enqueue
            .unique_until_claimed("a")
            .or_append()
            .execute(&store)
            .await
    };
    send("").await?;
    let size = (64 << 20) - r#"["",""]"#.len() as i32;
    let grow = "update pgqrs.messages set payload = ('[\"' || repeat('x', $1) || '\"]')::json";
    sqlx::query(grow).bind(size).execute(&pool).await?;
    let refused = send("x").await;
    assert!(matches!(refused, Err(Error::Database(_))), "{refused:?}");
    assert!(!only(&send("").await?).new);
    let bytes: i32 = sqlx::query_scalar("select payload_bytes from pgqrs.messages")
        .fetch_one(&pool)
        .await?;
    assert_eq!(bytes, 64 << 20);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn changes_of_many_senders_at_once_are_all_kept(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let stores = [connect(&pool).await?, connect(&pool).await?];
    let mut sending = tokio::task::JoinSet::new();
    for sender in 0..100_u32 {
        let store = stores[sender as usize % 2].clone();
        sending.spawn(async move {
            let enqueue = pgqrs::enqueue().message(&[sender]).to("tasks");
            enqueue
                .unique_until_claimed("a")
                .or_append()
                .execute(&store)
                .await
        });
    }
    while let Some(sent) = sending.join_next().await {
        sent??;
    }
    let all = payloads(&pool).await?;
    let mut all: Vec<u32> = serde_json::from_str(&all[0])?;
    all.sort_unstable();
    assert!(all.into_iter().eq(0..100));
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn what_waits_is_not_claimed_before_a_transaction_with_its_duplicate_ends(
    pool: PgPool,
) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let store = connect(&pool).await?;
    let enqueue = || {
        pgqrs::enqueue()
            .message(&1)
            .to("tasks")
            .unique_until_claimed("a")
    };
    let first = enqueue().execute(&store).await?[0];
    let mut tx = pool.begin().await?;
    let duplicate = enqueue().execute(&mut tx).await?;
    assert_eq!(outcomes_of(&duplicate), [duplicate_of(first, true)]);
    assert!(
        claim(&store, 1).await?.is_empty(),
        "its handler would not see what the transaction changes"
    );
    tx.commit().await?;
    until("it can be claimed", async || {
        claim(&store, 1)
            .await
            .is_ok_and(|claimed| claimed.len() == 1)
    })
    .await;
    Ok(())
}
