//! Counts of messages: bounded on large queues, exact on small ones, and always those of one snapshot.

use std::time::Duration;

use pgqrs::{Count, Priority};
use sqlx::PgPool;

use crate::support::{self, TestResult, age, claim, send, with_queues};

async fn insert(pool: &PgPool, priority: i16, delay: &str, count: i32) -> TestResult {
    sqlx::query(
        "insert into pgqrs.messages (queue_id, priority, visible_at, payload)
         select q.id, $1, now() + $2::text::interval, '1'
         from pgqrs.queues q, generate_series(1, $3) where q.name = 'tasks'",
    )
    .bind(priority)
    .bind(delay)
    .bind(count)
    .execute(pool)
    .await?;
    Ok(())
}

#[track_caller]
fn shown(count: Count, text: &str) {
    assert_eq!(count.to_string(), text);
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn counts_of_a_large_queue_stop_at_ten_thousand_of_each_priority_and_say_so(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let admin = pgqrs::admin(&store);
    insert(&pool, 2, "-1 hour", 9_999).await?;
    insert(&pool, 2, "1 hour", 9_999).await?;
    let stats = admin.queue_stats("tasks").await?;
    shown(stats.ready, "9,999");
    shown(stats.delayed, "9,999");
    shown(stats.total(), "19,998");

    insert(&pool, 2, "-1 minute", 2_000).await?;
    insert(&pool, 0, "-1 minute", 3).await?;
    // Of a low priority, behind all of those, and the oldest.
    insert(&pool, 3, "-2 hours", 1).await?;
    insert(&pool, 2, "1 hour", 2_000).await?;
    sqlx::query(
        "insert into pgqrs.dead_letters (queue_id, id, priority, enqueued_at, attempt, payload, reason)
         select q.id, n, 2, now(), 1, '1', 'broken' from pgqrs.queues q, generate_series(1, 10001) n",
    )
    .execute(&pool)
    .await?;
    let claimed = claim(&store, 5).await?;
    let stats = admin.queue_stats("tasks").await?;
    // Three urgent ones and two normal ones are leased.
    shown(stats.ready, "9,999+");
    shown(stats.leased, "5+");
    shown(stats.delayed, "10,000+");
    shown(stats.dead, "10,000+");
    let oldest = stats.oldest_ready.expect("many are ready");
    assert!(oldest >= Duration::from_secs(2 * 60 * 60), "{oldest:?}");

    let exact = admin.exact_queue_stats("tasks").await?;
    shown(exact.ready, "11,998");
    shown(exact.leased, "5");
    shown(exact.delayed, "11,999");
    shown(exact.dead, "10,001");
    assert!(exact.oldest_ready >= Some(oldest), "{exact:?}");
    assert!(pgqrs::ack_all(claimed, &store).await?.is_empty());
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn on_a_small_queue_bounded_and_exact_counts_agree(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let admin = pgqrs::admin(&store);
    let ids = send(&store, &[1, 2, 3, 4]).await?;
    let priorities = [
        Priority::Urgent,
        Priority::High,
        Priority::Normal,
        Priority::Low,
    ];
    for priority in priorities {
        let urgent = pgqrs::enqueue().message(&0).to("tasks");
        urgent.priority(priority).execute(&store).await?;
    }
    let later = pgqrs::enqueue().message(&0).to("tasks").delay(60);
    later.execute(&store).await?;
    let mut leased = claim(&store, 3).await?;
    leased
        .pop()
        .expect("three")
        .dead_letter("no", &store)
        .await?;
    age(&pool, ids[3], Duration::from_secs(100)).await?;
    let bounded = admin.queue_stats("tasks").await?;
    let exact = admin.exact_queue_stats("tasks").await?;
    assert_eq!(
        (
            bounded.ready.value,
            bounded.delayed.value,
            bounded.leased.value,
            bounded.dead.value
        ),
        (5, 1, 2, 1)
    );
    assert_eq!(
        (bounded.ready, bounded.delayed, bounded.leased, bounded.dead),
        (exact.ready, exact.delayed, exact.leased, exact.dead)
    );
    let oldest = bounded.oldest_ready.expect("five are ready").as_secs();
    assert!((100..160).contains(&oldest), "{bounded:?}");
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn all_queues_are_counted_at_once_and_fewer_messages_of_each_if_there_are_many(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let admin = pgqrs::admin(&store);
    insert(&pool, 2, "-1 minute", 150).await?;
    let all = admin.all_queue_stats().await?;
    assert_eq!(all.len(), 1);
    shown(all[0].ready, "150");

    sqlx::query(
        "insert into pgqrs.queues (name) select 'queue ' || n from generate_series(1, 10000) n",
    )
    .execute(&pool)
    .await?;
    let all = admin.all_queue_stats().await?;
    // The last one by name is left out.
    assert_eq!(all.len(), 10_000);
    assert!(all.is_sorted_by_key(|stats| stats.queue.as_str().to_owned()));
    assert!(
        all.iter()
            .all(|stats| stats.ready == 0 && stats.oldest_ready.is_none())
    );

    sqlx::query("delete from pgqrs.queues where name like 'queue 1%'")
        .execute(&pool)
        .await?;
    let all = admin.all_queue_stats().await?;
    let tasks = all.last().expect("the last by name");
    shown(tasks.ready, "100+");
    assert_eq!(support::count(&pool).await?, 150);
    shown(admin.queue_stats("tasks").await?.ready, "150");
    Ok(())
}
