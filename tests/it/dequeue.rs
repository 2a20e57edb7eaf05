//! `dequeue()`: which messages it returns, in which order, and for how long.

use std::{collections::HashSet, time::Duration};

use pgqrs::{Error, Priority, RetryPolicy, Store};
use sqlx::{PgPool, postgres::PgPoolOptions};

use crate::support::{
    TestResult, age, blocked_backend, claim, connect, expire, newcomer, now, send, stored,
    terminate, with_queues,
};

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn nothing_ready_is_an_empty_vector(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    assert!(claim(&store, 10).await?.is_empty());
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn an_unknown_queue_is_an_error_and_not_an_empty_vector(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let refused = pgqrs::dequeue().from("taks").execute(&store).await;
    assert!(matches!(refused, Err(Error::QueueNotFound { queue }) if queue.as_str() == "taks"));
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_leased_message_is_not_delivered_again_until_its_lease_runs_out(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let ids = send(&store, &["hello"]).await?;
    let lease = Duration::from_secs(60);
    let before = now(&pool).await?;
    let first = pgqrs::dequeue()
        .from("tasks")
        .lease(lease)
        .execute(&store)
        .await?;
    assert_eq!(first.len(), 1);
    assert_eq!((first[0].id(), first[0].attempt()), (ids[0], 1));
    assert_eq!(first[0].payload()?, "hello");
    assert_eq!(first[0].priority(), Priority::Normal);
    let after = now(&pool).await?;
    let expires_at = first[0].lease_expires_at();
    assert!(
        (before + lease..=after + lease).contains(&expires_at),
        "{expires_at}"
    );
    assert!(first[0].enqueued_at() <= before);

    assert!(claim(&store, 1).await?.is_empty());
    expire(&pool, ids[0]).await?;
    let second = claim(&store, 1).await?;
    assert_eq!((second[0].id(), second[0].attempt()), (ids[0], 2));
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn the_order_is_priority_then_visible_time_then_id(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    // Sent in an order that is neither that of priorities nor that of times.
    let mut expected = Vec::new();
    for (priority, rank) in [
        (Priority::Low, 3),
        (Priority::Urgent, 0),
        (Priority::Normal, 2),
        (Priority::High, 1),
    ] {
        for delay in [30, 10, 20] {
            let batch = pgqrs::enqueue()
                .messages(&[0, 1])
                .to("tasks")
                .delay(delay)
                .priority(priority);
            for id in batch.execute(&store).await? {
                age(&pool, id, Duration::from_secs(60)).await?;
                expected.push((rank, delay, id));
            }
        }
    }
    expected.sort_unstable();
    let mut delivered = Vec::new();
    for limit in [1, 7, 100] {
        let deliveries = claim(&store, limit).await?;
        delivered.extend(deliveries.iter().map(pgqrs::Delivery::id));
    }
    assert_eq!(
        delivered,
        expected
            .into_iter()
            .map(|(_, _, id)| id)
            .collect::<Vec<_>>()
    );
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn queues_are_apart(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks", "Tasks"]).await?;
    send(&store, &[1]).await?;
    assert!(
        pgqrs::dequeue()
            .from("Tasks")
            .execute(&store)
            .await?
            .is_empty()
    );
    assert_eq!(claim(&store, 1).await?.len(), 1);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn limits_and_leases_out_of_range_are_refused(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    for limit in [0, 10_001, u32::MAX] {
        let refused = pgqrs::dequeue()
            .from("tasks")
            .limit(limit)
            .execute(&store)
            .await;
        assert!(
            matches!(refused, Err(Error::LimitOutOfRange { .. })),
            "{limit}: {refused:?}"
        );
    }
    for lease in [Duration::ZERO, Duration::from_secs(86_401), Duration::MAX] {
        let refused = pgqrs::dequeue()
            .from("tasks")
            .lease(lease)
            .execute(&store)
            .await;
        assert!(
            matches!(refused, Err(Error::LeaseOutOfRange { .. })),
            "{lease:?}: {refused:?}"
        );
    }
    for lease in [Duration::from_millis(1), Duration::from_secs(86_400)] {
        pgqrs::dequeue()
            .from("tasks")
            .limit(10_000)
            .lease(lease)
            .execute(&store)
            .await?;
    }
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn eight_consumers_at_once_get_each_message_once(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let payloads: Vec<_> = (0..2_000).collect();
    let ids = send(&store, &payloads).await?;
    let consumers: Vec<_> = (0..8)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut got = Vec::new();
                loop {
                    let deliveries = claim(&store, 7).await?;
                    if deliveries.is_empty() {
                        return Ok::<_, pgqrs::Error>(got);
                    }
                    got.extend(deliveries.iter().map(pgqrs::Delivery::id));
                }
            })
        })
        .collect();
    let mut all = Vec::new();
    for consumer in consumers {
        all.extend(consumer.await??);
    }
    // A consumer may find nothing for a moment, while others hold what is left; whatever that leaves:
    loop {
        let rest = claim(&store, 100).await?;
        if rest.is_empty() {
            break;
        }
        all.extend(rest.iter().map(pgqrs::Delivery::id));
    }
    assert_eq!(all.len(), 2_000);
    assert_eq!(
        all.into_iter().collect::<HashSet<_>>(),
        ids.into_iter().collect()
    );
    Ok(())
}

/// It dies before it commits: no consumer has to wait for leases without a holder.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_claim_whose_connection_breaks_leaves_everything_ready(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let store = connect(&pool).await?;
    let ids = send(&store, &[1, 2, 3]).await?;
    let mut blocker = pool.begin().await?;
    sqlx::query("lock table pgqrs.messages in share mode")
        .execute(&mut *blocker)
        .await?;
    let call = tokio::spawn({
        let store = store.clone();
        async move { claim(&store, 3).await }
    });
    // The server shows the first kilobyte of a statement.
    terminate(
        &pool,
        blocked_backend(&pool, "with queue as materialized").await,
    )
    .await?;
    let failed = call.await?.unwrap_err();
    assert!(failed.is_retryable(), "{failed:?}");
    blocker.rollback().await?;
    let deliveries = claim(&store, 3).await?;
    let delivered: Vec<_> = deliveries.iter().map(pgqrs::Delivery::id).collect();
    assert_eq!(delivered, *ids);
    assert!(deliveries.iter().all(|delivery| delivery.attempt() == 1));
    Ok(())
}

/// It holds a lock on the head of the queue, as a claim does while it is under way.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_claim_steps_over_what_another_is_just_claiming(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let ids = send(&store, &[1, 2, 3]).await?;
    let mut other = pool.begin().await?;
    sqlx::query("select from pgqrs.messages where id = $1 for update")
        .bind(ids[0].get())
        .execute(&mut *other)
        .await?;
    assert_eq!(claim(&store, 1).await?[0].id(), ids[1]);
    other.rollback().await?;
    // And it is found again, although a later one has been read by then.
    assert_eq!(claim(&newcomer(&pool), 1).await?[0].id(), ids[0]);
    Ok(())
}

/// The claim turns synchronous commit off for its own transaction only.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_claim_leaves_the_session_committing_synchronously(pool: PgPool) -> TestResult {
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .connect_with((*pool.connect_options()).clone())
        .await?;
    let store = with_queues(&pool, &["tasks"]).await?;
    send(&store, &[1]).await?;
    assert_eq!(claim(&store, 1).await?.len(), 1);
    let setting: String = sqlx::query_scalar("show synchronous_commit")
        .fetch_one(&pool)
        .await?;
    assert_eq!(setting, "on");
    Ok(())
}

/// The index returns the ready head in order; anything else would slow down with the backlog.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn the_claim_reads_the_index_and_sorts_nothing(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    sqlx::query(
        "insert into pgqrs.messages (queue_id, priority, payload)
         select id, n % 4, '{}' from pgqrs.queues, generate_series(1, 100000) n",
    )
    .execute(&pool)
    .await?;
    sqlx::query("analyze pgqrs.messages").execute(&pool).await?;
    // The statement as the server got it, on the one connection of this pool.
    let options = (*pool.connect_options())
        .clone()
        .options([("plan_cache_mode", "force_generic_plan")]);
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .connect_with(options)
        .await?;
    pgqrs::dequeue()
        .from("tasks")
        .limit(10)
        .execute(&Store::from(pool.clone()))
        .await?;
    let (name, statement): (String, String) = sqlx::query_as(
        "select name, statement from pg_prepared_statements where statement like '%skip locked%'
         and statement like '%update pgqrs.messages%'",
    )
    .fetch_one(&pool)
    .await?;
    let explain = format!(
        "explain (costs off) execute {name}('tasks', 10, 30000000, 1, 0, '{{0,1,2,3}}', '{{1970-01-01,1970-01-01,1970-01-01,1970-01-01}}', '{{0,0,0,0}}', 67108864, 30000000, 0)"
    );
    let plan: Vec<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(explain))
        .fetch_all(&pool)
        .await?;
    let plan = plan.join("\n");
    assert!(
        plan.contains("Index Scan using messages_ready"),
        "{plan}\n{statement}"
    );
    assert!(!plan.contains("Sort"), "{plan}");
    assert!(!plan.contains("Seq Scan on messages"), "{plan}");
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn what_waits_behind_messages_that_are_used_up_is_delivered_at_once(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    pgqrs::enqueue()
        .messages(&(0..40).collect::<Vec<_>>())
        .to("tasks")
        .priority(Priority::Urgent)
        .execute(&store)
        .await?;
    // Their consumers have crashed with them, again and again.
    sqlx::query(
        "update pgqrs.messages set attempt = 20
         where id in (select id from pgqrs.messages order by visible_at, id limit 30)",
    )
    .execute(&pool)
    .await?;
    assert_eq!(claim(&store, 10).await?.len(), 10);
    assert_eq!(pgqrs::admin(&store).dead_letter_count("tasks").await?, 30);
    assert_eq!(claim(&store, 10).await?.len(), 0);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_nack_waits_by_the_policy_of_its_dequeue(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let day = Duration::from_secs(24 * 60 * 60);
    let consumer = pgqrs::consumer("tasks").create(&store).await?;
    let policy = RetryPolicy::fixed(day);
    let of_consumer = || consumer.dequeue().retry(policy).execute(&store);
    let by_worker = || {
        pgqrs::dequeue()
            .retry(policy)
            .worker(&*consumer)
            .execute(&store)
    };
    let by_queue = || pgqrs::dequeue().from("tasks").retry(policy).execute(&store);
    for by in 0..3 {
        send(&store, &[1]).await?;
        let mut deliveries = match by {
            0 => of_consumer().await?,
            1 => by_worker().await?,
            _ => by_queue().await?,
        };
        let delivery = deliveries.pop().expect("a message is ready");
        let before = now(&pool).await?;
        delivery.nack(&store).await?;
        let visible_at = stored(&pool).await?.pop().expect("one").visible_at;
        assert!(visible_at >= before + day, "{visible_at}");
    }
    Ok(())
}

/// Something is wrong with the table of dead letters: it must not keep back what is ready.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn if_dead_lettering_fails_what_is_ready_is_delivered(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let ids = send(&store, &[1, 2, 3]).await?;
    sqlx::query("update pgqrs.messages set attempt = 20 where id = $1")
        .bind(ids[0].get())
        .execute(&pool)
        .await?;
    sqlx::query("alter table pgqrs.dead_letters add constraint never check (false)")
        .execute(&pool)
        .await?;
    let delivered: Vec<_> = claim(&store, 3)
        .await?
        .iter()
        .map(|delivery| delivery.id())
        .collect();
    assert_eq!(delivered, ids[1..]);
    // With nothing else to deliver, a claim that reads all of the queue fails.
    let failed = claim(&newcomer(&pool), 3).await.unwrap_err();
    assert!(matches!(failed, Error::Database(_)), "{failed}");

    sqlx::query("alter table pgqrs.dead_letters drop constraint never")
        .execute(&pool)
        .await?;
    assert!(claim(&newcomer(&pool), 3).await?.is_empty());
    assert_eq!(pgqrs::admin(&store).dead_letter_count("tasks").await?, 1);
    Ok(())
}
