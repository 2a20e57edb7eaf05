//! Handlers that slow their queue down, and so all of its consumers.

use chrono::{DateTime, TimeDelta, Utc};
use pgqrs::{Page, RetryPolicy};

use super::*;
use crate::support::{notes::Notes, now};

/// Until when nothing is claimed.
async fn slowed_until(store: &Store) -> pgqrs::Result<Option<DateTime<Utc>>> {
    Ok(pgqrs::admin(store).queue("tasks").await?.slowed_until)
}

/// As an operator does.
async fn resume(pool: &PgPool) -> pgqrs::Result<()> {
    let owner = Store::from(pool.clone());
    pgqrs::admin(&owner).resume_queue("tasks").await
}

/// The wait is over.
async fn wait_over(pool: &PgPool) -> TestResult {
    sqlx::query("update pgqrs.queues set slowed_until = clock_timestamp()")
        .execute(pool)
        .await?;
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_message_that_slows_its_queue_down_waits_without_using_an_attempt_and_so_do_all_others(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let elsewhere = connect(&pool).await?;
    send(&store, &[0; 600]).await?;
    let seen = Seen::default();
    let handler = {
        let seen = seen.clone();
        move |delivery: Delivery<Value>| {
            seen.note(delivery.id().to_string());
            // By then it claims ahead.
            std::future::ready(if seen.len() == 300 {
                Outcome::SlowDown(HOUR)
            } else {
                Outcome::Done
            })
        }
    };
    let before = now(&pool).await?;
    let running = start(consumer().concurrency(1).create(&store).await?, handler);
    until("the queue is slowed down", async || {
        slowed_until(&store).await.expect("a queue").is_some()
    })
    .await;
    let after = now(&pool).await?;
    let until_then = slowed_until(&store).await?.expect("slowed down");
    let tenth = TimeDelta::milliseconds(100);
    assert!((before + HOUR..=after + HOUR + tenth).contains(&until_then));
    // What was claimed ahead is ready again, with all of its attempts, and nobody gets it.
    until("all others are ready again", async || {
        let stats = pgqrs::admin(&store).queue_stats("tasks").await;
        stats.expect("counted").ready == 300
    })
    .await;
    assert_eq!(claimed(&elsewhere).await?, 0);
    let page = Page::builder().limit(600).build();
    let messages = pgqrs::admin(&store).messages("tasks", page).await?;
    assert!(messages.iter().all(|message| message.attempt == 0));
    let (put_off, others): (Vec<_>, Vec<_>) =
        (messages.iter()).partition(|message| message.snoozes == 1);
    assert_eq!((put_off.len(), others.len()), (1, 300));
    assert!((before + HOUR..=after + HOUR).contains(&put_off[0].visible_at));
    assert_eq!(seen.len(), 300);
    // An operator's word counts more.
    resume(&pool).await?;
    assert_eq!(slowed_until(&store).await?, None);
    until("the others are done", async || {
        count(&pool).await.expect("counted") == 1
    })
    .await;
    let report = running.stop().await?;
    assert_eq!((report.done, report.snoozed), (599, 1));
    assert_eq!(report.retried + report.lost + report.dead, 0);
    assert!(seen.times().values().all(|times| *times == 1));
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn consumers_go_on_by_themselves_when_the_wait_is_over(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    send(&store, &[0; 20]).await?;
    let slowed = Arc::new(AtomicBool::new(false));
    let handler = {
        let slowed = Arc::clone(&slowed);
        move |_: Delivery<Value>| {
            std::future::ready(if slowed.swap(true, Ordering::SeqCst) {
                Outcome::Done
            } else {
                Outcome::SlowDown(Duration::from_millis(300))
            })
        }
    };
    let running = start(consumer().create(&store).await?, handler);
    drained(&pool).await;
    let report = running.stop().await?;
    assert_eq!((report.done, report.snoozed, report.retried), (20, 1, 0));
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn other_consumers_stop_too_and_put_back_what_they_have_claimed_ahead(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let elsewhere = connect(&pool).await?;
    send(&store, &[0; 60]).await?;
    let (handled, gate) = (Seen::default(), gate());
    let handler = {
        let (handled, gate) = (handled.clone(), Arc::clone(&gate));
        move |delivery: Delivery<Value>| {
            let (handled, gate) = (handled.clone(), Arc::clone(&gate));
            async move {
                pass(&gate).await;
                handled.note(delivery.id().to_string());
                Outcome::Done
            }
        }
    };
    let running = start(
        consumer()
            .concurrency(2)
            .prefetch(20)
            .create(&elsewhere)
            .await?,
        handler,
    );
    // Enough are done for it to claim ahead.
    gate.add_permits(30);
    until("some are done", async || handled.len() == 30).await;
    sqlx::query("update pgqrs.queues set slowed_until = clock_timestamp() + interval '1 hour'")
        .execute(&pool)
        .await?;
    // Its next claim finds that. What handlers have begun goes on.
    gate.add_permits(100);
    until("nothing is leased", async || {
        let stats = pgqrs::admin(&store).queue_stats("tasks").await;
        stats.expect("counted").leased == 0
    })
    .await;
    let left = pgqrs::admin(&store)
        .messages("tasks", Page::default())
        .await?;
    assert!(!left.is_empty(), "it held 22 at most");
    assert!(left.iter().all(|message| message.attempt == 0));
    resume(&pool).await?;
    drained(&pool).await;
    let report = running.stop().await?;
    assert_eq!(report.done, 60);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_rate_goes_on_after_a_slow_down_without_a_burst(pool: PgPool) -> TestResult {
    let store = rated(&pool, Rate::new(100, SECOND)).await?;
    send(&store, &[0; 60]).await?;
    one(&store).await?.slow_down(HOUR, &store).await?;
    assert_eq!(claimed(&store).await?, 0);
    wait_over(&pool).await?;
    let started = claimed(&store).await?;
    // One at once, and then one every 10 ms.
    let passed: f64 = sqlx::query_scalar(
        "select extract(epoch from r.asked_at - q.slowed_until)::float8
         from pgqrs.rates r join pgqrs.queues q on q.id = r.queue_id",
    )
    .fetch_one(&pool)
    .await?;
    assert!(
        started as f64 <= passed * 100.0 + 1.0,
        "{started} after {passed} s"
    );
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn the_longest_wait_counts_and_one_of_a_transaction_counts_when_it_commits(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    send(&store, &[0; 5]).await?;
    let mut held = claim(&store, 4).await?;
    let mut next = || held.pop().expect("one is held");
    next().slow_down(HOUR, &store).await?;
    let longest = slowed_until(&store).await?;
    assert!(longest.is_some());
    next().slow_down(SECOND, &store).await?;
    assert_eq!(slowed_until(&store).await?, longest);
    resume(&pool).await?;
    // No wait is none for others.
    next().slow_down(Duration::ZERO, &store).await?;
    assert_eq!(slowed_until(&store).await?, None);
    assert_eq!(claimed(&store).await?, 2);
    let mut transaction = store.begin().await?;
    let last = next();
    last.slow_down(HOUR, &mut transaction).await?;
    assert_eq!(slowed_until(&store).await?, None);
    transaction.rollback().await?;
    assert_eq!(slowed_until(&store).await?, None);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_lost_lease_slows_the_queue_down_and_changes_no_message(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    send(&store, &[0]).await?;
    let first = one(&store).await?;
    expire(&pool, first.id()).await?;
    let second = one(&store).await?;
    let lost = first.slow_down(HOUR, &store).await;
    assert!(matches!(lost, Err(Error::LeaseLost { .. })), "{lost:?}");
    assert!(slowed_until(&store).await?.is_some());
    second.ack(&store).await?;
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn many_that_slow_the_queue_down_at_once_change_its_row_a_few_times(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    sqlx::raw_sql(
        "create table public.changes (slowed_until timestamptz);
         create function public.note_change() returns trigger language plpgsql security definer as $$
         begin
             insert into public.changes values (new.slowed_until);
             return null;
         end
         $$;
         create trigger note_change after update on pgqrs.queues for each row execute function public.note_change();",
    )
    .execute(&pool)
    .await?;
    send(&store, &[0; 200]).await?;
    let mut tasks = Vec::new();
    for delivery in claim(&store, 200).await? {
        let store = store.clone();
        tasks.push(tokio::spawn(async move {
            delivery.slow_down(HOUR, &store).await
        }));
    }
    for task in tasks {
        task.await??;
    }
    let same: i64 =
        sqlx::query_scalar("select count(*) - count(distinct slowed_until) from public.changes")
            .fetch_one(&pool)
            .await?;
    assert_eq!(same, 0, "each end of the wait is written once");
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn messages_of_a_chunk_slow_the_queue_down_by_their_index(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    send(&store, &[0; 3]).await?;
    let prepared = consumer()
        .retry(RetryPolicy::fixed(HOUR))
        .create(&store)
        .await?;
    let running = crate::support::consumers::handle_and_spawn(prepared, |consumer| {
        consumer.run_chunks(3, SECOND, async |chunk: pgqrs::Chunk<Value>| {
            chunk.slow_down(1, HOUR);
            Outcome::Done
        })
    });
    until("two are done, and the queue is slowed down", async || {
        let is_slowed = slowed_until(&store).await.expect("a queue").is_some();
        is_slowed && count(&pool).await.expect("counted") == 1
    })
    .await;
    let report = running.stop().await?;
    assert_eq!((report.done, report.snoozed), (2, 1));
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_consumer_s_log_says_that_its_queue_is_slowed_down_and_when_it_is_not_any_more(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let (notes, _guard) = Notes::start();
    let slowed = Arc::new(AtomicBool::new(false));
    let handler = {
        let slowed = Arc::clone(&slowed);
        move |_: Delivery<Value>| {
            std::future::ready(if slowed.swap(true, Ordering::SeqCst) {
                Outcome::Done
            } else {
                Outcome::SlowDown(HOUR)
            })
        }
    };
    let running = start(consumer().create(&store).await?, handler);
    let worker = running.handle.id();
    send(&store, &[0; 3]).await?;
    notes.until("queue slowed down", 1).await;
    // It goes on claiming, and says no more.
    wait_over(&pool).await?;
    notes.until("not slowed down", 1).await;
    running.stop().await?;
    let lines = notes.lines("slowed down");
    let of = format!("queue=\"tasks\" worker_id={worker}");
    assert_eq!(lines.len(), 2, "{lines:?}");
    let start = format!(
        "INFO  queue slowed down by a handler: its consumers claim nothing until the wait is over {of} wait="
    );
    let wait = lines[0].strip_prefix(&start);
    assert!(
        wait.is_some_and(|wait| ["3600s", "1h"].contains(&wait) || wait.starts_with("3599")),
        "{lines:?}"
    );
    assert_eq!(
        lines[1],
        format!("INFO  queue not slowed down any more {of}")
    );
    Ok(())
}
