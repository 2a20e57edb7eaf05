//! How many attempts of a group start within a time.

use chrono::{DateTime, Utc};
use pgqrs::{Outcome, Page, Rate};

use super::*;
use crate::support::{
    age, connect,
    consumers::{Seen, drained, prepare, start},
    expire, newcomer, now,
};

const HOUR: Duration = Duration::from_secs(3_600);

fn rated(at_once: u32, rate: Rate) -> Groups {
    Groups::builder().at_once(at_once).rate(rate).build()
}

fn hourly() -> Rate {
    Rate::new(1, HOUR)
}

/// When its messages that are on their way can start, in their order.
async fn starts(store: &Store) -> pgqrs::Result<Vec<DateTime<Utc>>> {
    let messages = pgqrs::admin(store)
        .messages("tasks", Page::default())
        .await?;
    let live = messages.iter().filter(|message| !message.is_parked);
    Ok(live.map(|message| message.visible_at).collect())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn messages_of_a_group_are_let_in_at_its_rate_and_others_beside_it(
    pool: PgPool,
) -> TestResult {
    let store = with_groups(&pool, rated(1, hourly())).await?;
    let first = send(&store, "a", 1).await?;
    let second = send(&store, "a", 2).await?;
    send(&store, "b", 10).await?;
    let before = now(&pool).await?;
    let mut deliveries = ready(&store).await?;
    assert_eq!(numbers(&deliveries), [1, 10]);
    assert_eq!(deliveries[0].id(), first);
    deliveries.remove(0).ack(&store).await?;
    // The next one is let in, and waits for its time.
    assert!(ready(&store).await?.is_empty());
    let starts = starts(&store).await?;
    assert!(starts[0] <= before + HOUR && starts[0] > before + HOUR / 2);
    age(&pool, second, HOUR).await?;
    let next = one(&newcomer(&pool)).await?;
    assert_eq!(number(&next), 2);
    // So does one that is sent after all others are gone.
    next.ack(&store).await?;
    let third = send(&store, "a", 3).await?;
    assert!(ready(&store).await?.is_empty());
    age(&pool, third, 2 * HOUR).await?;
    assert_eq!(numbers(&ready(&newcomer(&pool)).await?), [3]);
    assert_counted(&pool).await?;
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn each_attempt_counts_and_a_message_that_is_put_back_waits_for_its_turn(
    pool: PgPool,
) -> TestResult {
    let store = with_groups(&pool, rated(1, hourly())).await?;
    let id = send(&store, "a", 1).await?;
    let before = now(&pool).await?;
    one(&store).await?.retry_in(Duration::ZERO, &store).await?;
    let again = starts(&store).await?[0];
    assert!(again <= before + HOUR && again > before + HOUR / 2);
    age(&pool, id, HOUR).await?;
    one(&newcomer(&pool)).await?.later(5 * HOUR, &store).await?;
    let later = starts(&store).await?[0];
    assert!(later >= before + 5 * HOUR, "the longer wait counts");
    age(&pool, id, 5 * HOUR).await?;
    // A delivery after a lost lease isn't counted.
    let lost = one(&newcomer(&pool)).await?;
    expire(&pool, lost.id()).await?;
    assert_eq!(one(&store).await?.id(), id);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn several_that_are_let_in_at_once_are_apart(pool: PgPool) -> TestResult {
    // Two at once, and then one each half second.
    let store = with_groups(&pool, rated(6, Rate::new(2, Duration::from_secs(1)))).await?;
    let batch = pgqrs::enqueue().messages(&[0; 8]).to("tasks").group("a");
    batch.execute(&store).await?;
    let starts = starts(&store).await?;
    assert_eq!(starts.len(), 6);
    let from_first: Vec<_> = starts
        .iter()
        .map(|start| (*start - starts[1]).num_milliseconds())
        .collect();
    // The first one may have been ready when the statement began.
    assert!(from_first[0] <= 0);
    assert_eq!(from_first[1..], [0, 500, 1_000, 1_500, 2_000]);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn concurrent_sends_and_settlements_keep_a_groups_rate(pool: PgPool) -> TestResult {
    const MESSAGES: usize = 160;
    let store = with_groups(&pool, rated(40, Rate::new(1, Duration::from_millis(2)))).await?;
    // Each time at which a message can start.
    sqlx::raw_sql(
        "create table public.starts (visible_at timestamptz not null);
         create function public.note_start() returns trigger language plpgsql security definer as $$
         begin
             insert into public.starts values (new.visible_at);
             return null;
         end
         $$;
         create trigger note_sent after insert on pgqrs.messages for each row
             when (new.visible_at < 'infinity') execute function public.note_start();
         create trigger note_moved after update of visible_at on pgqrs.messages for each row
             when (new.visible_at < 'infinity') execute function public.note_start();",
    )
    .execute(&pool)
    .await?;
    let mut tasks = Vec::new();
    for _ in 0..4 {
        let store = connect(&pool).await?;
        tasks.push(tokio::spawn(async move {
            for _ in 0..MESSAGES / 8 {
                let batch = pgqrs::enqueue().messages(&[0; 2]).to("tasks").group("a");
                batch.execute(&store).await?;
                for delivery in claim(&store, 3).await? {
                    if delivery.attempt() == 1 && delivery.id().get() % 4 == 0 {
                        delivery.retry_in(Duration::ZERO, &store).await?;
                    } else {
                        delivery.ack(&store).await?;
                    }
                }
            }
            Ok::<_, Error>(())
        }));
    }
    for task in tasks {
        task.await??;
    }
    until("all are done", async || {
        for delivery in claim(&store, 100).await.expect("a claim") {
            delivery.ack(&store).await.expect("acknowledged");
        }
        count(&pool).await.expect("counted") == 0
    })
    .await;
    let (all, close): (i64, i64) = sqlx::query_as(
        "select count(*), count(*) filter (where visible_at < before + interval '2 ms')
         from (select visible_at, lag(visible_at) over (order by visible_at) as before from public.starts) s",
    )
    .fetch_one(&pool)
    .await?;
    assert!(all >= i64::try_from(MESSAGES)?);
    assert_eq!(close, 0, "of {all}, so many less than 2 ms after another");
    assert_counted(&pool).await?;
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn consumers_come_when_the_next_message_of_a_group_is_due(pool: PgPool) -> TestResult {
    let store = with_groups(&pool, rated(1, Rate::new(1, Duration::from_millis(10)))).await?;
    for number in 0..40 {
        send(&store, if number % 2 == 0 { "a" } else { "b" }, number).await?;
    }
    let seen = Seen::default();
    let consumer = pgqrs::consumer("tasks").identity("host", 1);
    // It would not poll before the test times out.
    let consumer = prepare(consumer).poll_interval(HOUR);
    let running = start(consumer.create(&store).await?, seen.handler());
    drained(&pool).await;
    assert_eq!(running.stop().await?.done, 40);
    assert_eq!(seen.len(), 40);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_group_has_a_rate_of_its_own_that_outlives_its_messages(pool: PgPool) -> TestResult {
    let store = with_groups(&pool, at_once(1)).await?;
    let owner = Store::from(pool.clone());
    let admin = pgqrs::admin(&owner);
    admin.set_group_rate("tasks", "a", hourly()).await?;
    let group = admin.group("tasks", "a").await?.expect("it has a rate");
    assert_eq!((group.rate, group.live), (Some(hourly()), 0));
    for number in 0..2 {
        send(&store, "a", number).await?;
        send(&store, "b", number + 10).await?;
    }
    for expected in [[0, 10].as_slice(), &[11], &[]] {
        let deliveries = ready(&store).await?;
        assert_eq!(numbers(&deliveries), expected);
        for delivery in deliveries {
            delivery.ack(&store).await?;
        }
    }
    // The next one is let in by the rate that there is then.
    admin.set_group_rate("tasks", "a", None).await?;
    assert_eq!(admin.group("tasks", "a").await?.expect("live").rate, None);
    admin.purge_queue("tasks").await?;
    let hourly_for_all = rated(1, hourly());
    configure(&pool, hourly_for_all).await?;
    assert_eq!(admin.queue("tasks").await?.groups, Some(hourly_for_all));
    admin
        .set_group_rate("tasks", "c", Rate::new(1_000, Duration::from_secs(1)))
        .await?;
    for number in 0..2 {
        send(&store, "c", number).await?;
        let next = one(&store).await?;
        assert_eq!(number, super::number(&next) as u32);
        next.ack(&store).await?;
    }
    admin.delete_queue("tasks").await?;
    let left: i64 = sqlx::query_scalar("select count(*) from pgqrs.group_rates")
        .fetch_one(&pool)
        .await?;
    assert_eq!(left, 0, "a queue is deleted with the rates of its groups");
    let refused = admin
        .set_group_rate("absent", "c", Rate::new(0, HOUR))
        .await;
    assert!(matches!(refused, Err(Error::InvalidSetting { .. })));
    let absent = admin.set_group_rate("absent", "c", None).await;
    assert!(matches!(absent, Err(Error::QueueNotFound { .. })));
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_message_slows_down_its_group_alone_if_groups_have_a_rate(pool: PgPool) -> TestResult {
    let store = with_groups(&pool, rated(1, Rate::new(1_000, Duration::from_secs(1)))).await?;
    for (number, group) in [(1, "a"), (2, "a"), (10, "b")] {
        send(&store, group, number).await?;
    }
    let before = now(&pool).await?;
    let mut deliveries = ready(&store).await?;
    assert_eq!(numbers(&deliveries), [1, 10]);
    deliveries.remove(0).slow_down(HOUR, &store).await?;
    assert_eq!(
        pgqrs::admin(&store).queue("tasks").await?.slowed_until,
        None
    );
    let a = pgqrs::admin(&store)
        .messages("tasks", Page::default())
        .await?;
    assert!(a[0].visible_at >= before + HOUR);
    assert_eq!((a[0].attempt, a[0].snoozes), (0, 1));
    send(&store, "b", 11).await?;
    deliveries.remove(0).ack(&store).await?;
    let mut others = ready(&store).await?;
    assert_eq!(numbers(&others), [11]);
    others.remove(0).ack(&store).await?;
    // What is let in after it waits as long.
    pgqrs::admin(&store).cancel("tasks", a[0].id).await?;
    let next = starts(&store).await?;
    assert_eq!(next.len(), 1);
    assert!(next[0] >= before + HOUR);
    // A message without a group slows the queue down.
    pgqrs::enqueue()
        .message(&1)
        .to("tasks")
        .execute(&store)
        .await?;
    one(&store).await?.slow_down(HOUR, &store).await?;
    assert!(
        pgqrs::admin(&store)
            .queue("tasks")
            .await?
            .slowed_until
            .is_some()
    );
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn what_is_known_of_idle_groups_is_deleted_by_consumers(pool: PgPool) -> TestResult {
    let store = with_groups(&pool, rated(1, Rate::new(1_000, Duration::from_secs(1)))).await?;
    let owner = Store::from(pool.clone());
    pgqrs::admin(&owner)
        .set_group_rate("tasks", "own", hourly())
        .await?;
    for number in 0..20 {
        send(&store, &format!("group {number}"), number).await?;
    }
    let consumer = pgqrs::consumer("tasks").identity("host", 1);
    let handler = async |_: Delivery<Value>| Outcome::Done;
    let running = start(prepare(consumer).create(&store).await?, handler);
    drained(&pool).await;
    running.stop().await?;
    let left = async || -> sqlx::Result<Vec<String>> {
        sqlx::query_scalar("select key from pgqrs.group_rates")
            .fetch_all(&pool)
            .await
    };
    until(
        "their times are over, and a consumer has come by",
        async || {
            let consumer = pgqrs::consumer("tasks").identity("host", 2);
            let consumer = prepare(consumer).create(&store).await.expect("registered");
            let running = start(consumer, handler);
            until("it has begun", async || {
                let workers = pgqrs::admin(&store)
                    .workers(&pgqrs::WorkerFilter::default())
                    .await;
                !workers.expect("listed").is_empty()
            })
            .await;
            running.stop().await.expect("stopped");
            left().await.expect("read") == ["own"]
        },
    )
    .await;
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_queue_forgets_rates_of_groups_with_the_last_of_them(pool: PgPool) -> TestResult {
    let store = with_groups(&pool, at_once(1)).await?;
    let owner = Store::from(pool.clone());
    let admin = pgqrs::admin(&owner);
    // Whether sends, settlements and claims look for rates, and of how many groups something is known.
    let known = async || -> sqlx::Result<(bool, i64)> {
        sqlx::query_as(
            "select groups_rated, (select count(*) from pgqrs.group_rates) from pgqrs.queues",
        )
        .fetch_one(&pool)
        .await
    };
    admin.set_group_rate("tasks", "a", hourly()).await?;
    admin.set_group_rate("tasks", "b", hourly()).await?;
    for group in ["a", "b", "c"] {
        send(&store, group, 1).await?;
    }
    assert_eq!(known().await?, (true, 2));
    // While another group has one, what the first one has drawn counts.
    admin.set_group_rate("tasks", "a", None).await?;
    assert_eq!(known().await?, (true, 2));
    admin.set_group_rate("tasks", "b", None).await?;
    assert_eq!(known().await?, (false, 0));
    // A group that has none.
    admin.set_group_rate("tasks", "d", None).await?;
    assert_eq!(known().await?, (false, 0));
    // The queue's own one is left, and goes by the queue's settings.
    configure(&pool, rated(1, hourly())).await?;
    admin.set_group_rate("tasks", "a", hourly()).await?;
    send(&store, "e", 1).await?;
    admin.set_group_rate("tasks", "a", None).await?;
    assert_eq!(known().await?, (true, 2));
    configure(&pool, at_once(1)).await?;
    assert_eq!(known().await?, (false, 0));
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn rates_of_groups_that_are_set_and_removed_at_the_same_time_are_all_known(
    pool: PgPool,
) -> TestResult {
    let store = with_groups(&pool, at_once(1)).await?;
    for round in 0..10 {
        let mut tasks = Vec::new();
        for group in ["a", "b", "c", "d"] {
            let owner = Store::from(pool.clone());
            tasks.push(tokio::spawn(async move {
                let admin = pgqrs::admin(&owner);
                for is_set in [true, false, true, false] {
                    let rate = is_set.then(hourly);
                    admin.set_group_rate("tasks", group, rate).await?;
                }
                // One of them stays, another one in each round.
                let stays = ["a", "b", "c", "d"][round % 4] == group;
                admin
                    .set_group_rate("tasks", group, stays.then(hourly))
                    .await
            }));
        }
        for task in tasks {
            task.await??;
        }
        let (is_rated, rates): (bool, i64) = sqlx::query_as(
            "select groups_rated, (select count(*) from pgqrs.group_rates where rate_n is not null)
             from pgqrs.queues",
        )
        .fetch_one(&pool)
        .await?;
        assert_eq!((is_rated, rates), (true, 1), "in round {round}");
    }
    drop(store);
    Ok(())
}
