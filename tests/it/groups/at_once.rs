//! How many messages of a group are on their way at a time, and groups that are stopped.

use super::*;
use crate::support::expire;

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn several_of_a_group_are_on_their_way_if_the_queue_says_so(pool: PgPool) -> TestResult {
    let store = with_groups(&pool, at_once(3)).await?;
    for payload in 1..=3 {
        send(&store, "a", payload).await?;
    }
    // More than there is room for, in one batch.
    let rest = pgqrs::enqueue().messages(&[4, 5, 6]).to("tasks").group("a");
    rest.execute(&store).await?;
    let together = pgqrs::enqueue()
        .messages(&[11, 12, 13, 14])
        .to("tasks")
        .group("b");
    together.execute(&store).await?;
    assert_counted(&pool).await?;
    let deliveries = ready(&store).await?;
    assert_eq!(numbers(&deliveries), [1, 2, 3, 11, 12, 13]);
    let mut deliveries = deliveries.into_iter();
    let first_two = deliveries.by_ref().take(2).collect();
    pgqrs::ack_all(first_two, &store).await?;
    assert_eq!(numbers(&ready(&store).await?), [4, 5]);
    pgqrs::ack_all(deliveries.collect(), &store).await?;
    assert_eq!(numbers(&ready(&store).await?), [6, 14]);
    assert_counted(&pool).await
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_limit_that_is_raised_lets_more_in_and_one_that_is_lowered_waits(
    pool: PgPool,
) -> TestResult {
    let store = with_groups(&pool, Groups::default()).await?;
    for payload in 1..=9 {
        send(&store, "a", payload).await?;
    }
    configure(&pool, at_once(3)).await?;
    let first = ready(&store).await?;
    assert_eq!(numbers(&first), [1]);
    pgqrs::ack_all(first, &store).await?;
    let three = ready(&store).await?;
    assert_eq!(numbers(&three), [2, 3, 4], "as many as there is room for");
    configure(&pool, at_once(4)).await?;
    pgqrs::admin(&store).promote_groups("tasks").await?;
    let fourth = ready(&store).await?;
    assert_eq!(numbers(&fourth), [5]);
    configure(&pool, at_once(2)).await?;
    let mut running = three.into_iter().chain(fourth);
    for _ in 0..2 {
        let one = running.next().expect("four are running");
        one.ack(&store).await?;
        assert!(ready(&store).await?.is_empty());
    }
    running.next().expect("two are running").ack(&store).await?;
    assert_eq!(numbers(&ready(&store).await?), [6]);
    assert_counted(&pool).await?;
    // A message that is sent meanwhile overtakes none.
    configure(&pool, at_once(100)).await?;
    send(&store, "a", 10).await?;
    assert!(ready(&store).await?.is_empty());
    pgqrs::admin(&store).promote_groups("tasks").await?;
    assert_eq!(numbers(&ready(&store).await?), [7, 8, 9, 10]);
    assert_counted(&pool).await
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_group_has_a_limit_of_its_own_if_an_operator_says_so(pool: PgPool) -> TestResult {
    let store = with_groups(&pool, Groups::default()).await?;
    let admin = pgqrs::admin(&store);
    // Before there are messages, and it outlives them.
    admin.set_group_limit("tasks", "a", 2).await?;
    for round in 0..2 {
        for payload in 1..=4 {
            send(&store, "a", payload).await?;
            send(&store, "b", payload + 10).await?;
        }
        let deliveries = ready(&store).await?;
        assert_eq!(numbers(&deliveries), [1, 2, 11], "{round}");
        let group = admin.group("tasks", "a").await?.expect("it has messages");
        assert_eq!((group.live, group.parked), (2, 2));
        assert_eq!(group.at_once, Some(2));
        pgqrs::ack_all(deliveries, &store).await?;
        loop {
            let more = ready(&store).await?;
            if more.is_empty() {
                break;
            }
            pgqrs::ack_all(more, &store).await?;
        }
        assert_eq!(count(&pool).await?, 0);
    }
    for payload in 1..=4 {
        send(&store, "a", payload).await?;
    }
    admin.set_group_limit("tasks", "a", 3).await?;
    assert_eq!(numbers(&ready(&store).await?), [1, 2, 3]);
    admin.set_group_limit("tasks", "a", None).await?;
    assert_counted(&pool).await?;
    let refused = admin.set_group_limit("tasks", "a", 0).await;
    assert!(matches!(refused, Err(Error::InvalidSetting { .. })));
    admin.set_group_limit("tasks", "nobody", None).await?;
    assert_eq!(admin.group("tasks", "nobody").await?, None);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_dead_letter_stops_its_group_until_it_is_put_back_in_front(pool: PgPool) -> TestResult {
    let store = with_groups(&pool, stopping()).await?;
    for payload in 1..=3 {
        send(&store, "a", payload).await?;
        send(&store, "b", payload + 10).await?;
    }
    let admin = pgqrs::admin(&store);
    let deliveries = ready(&store).await?;
    let id = deliveries[0].id();
    for delivery in deliveries {
        match number(&delivery) {
            1 => delivery.dead_letter("no use", &store).await?,
            _ => delivery.ack(&store).await?,
        }
    }
    assert_eq!(numbers(&ready(&store).await?), [12], "b goes on");
    let stopped = admin.groups("tasks", GroupOrder::Stopped, 10).await?;
    assert_eq!(stopped.len(), 1);
    assert_eq!(stopped[0].group, "a");
    assert_eq!(stopped[0].stopped_by, Some(id));
    assert!(stopped[0].stopped_at.is_some());
    // What is sent meanwhile waits as well, even if nothing is on its way.
    send(&store, "a", 4).await?;
    assert!(ready(&store).await?.is_empty());
    assert_counted(&pool).await?;
    assert_eq!(admin.requeue("tasks", id).await?.back, 1);
    assert_counted(&pool).await?;
    for expected in 1..=4 {
        let delivery = one(&store).await?;
        assert_eq!(number(&delivery), expected);
        delivery.ack(&store).await?;
    }
    assert_counted(&pool).await
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_stopped_group_goes_on_once_its_dead_letter_is_purged_or_an_operator_resumes_it(
    pool: PgPool,
) -> TestResult {
    let store = with_groups(&pool, stopping()).await?;
    let owner = Store::from(pool.clone());
    let admin = pgqrs::admin(&owner);
    for payload in 1..=4 {
        send(&store, "a", payload).await?;
    }
    one(&store).await?.dead_letter("no use", &store).await?;
    assert!(ready(&store).await?.is_empty());
    assert_eq!(admin.purge_dead_letters("tasks", Duration::ZERO).await?, 1);
    let second = one(&store).await?;
    assert_eq!(number(&second), 2);
    second.dead_letter("no use", &store).await?;
    assert!(admin.resume_group("tasks", "a").await?);
    assert!(!admin.resume_group("tasks", "a").await?);
    let third = one(&store).await?;
    assert_eq!(number(&third), 3);
    // By an operator: that isn't resumed by what happens to dead letters.
    admin.stop_group("tasks", "a").await?;
    third.ack(&store).await?;
    assert_eq!(admin.requeue_all("tasks", Duration::ZERO).await?.back, 1);
    assert!(ready(&store).await?.is_empty());
    assert_counted(&pool).await?;
    assert!(admin.resume_group("tasks", "a").await?);
    for expected in [2, 4] {
        let delivery = one(&store).await?;
        assert_eq!(number(&delivery), expected, "what was put back is in front");
        delivery.ack(&store).await?;
    }
    assert_counted(&pool).await
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_stopped_group_goes_on_once_the_dead_letter_that_has_stopped_it_is_deleted(
    pool: PgPool,
) -> TestResult {
    let store = with_groups(&pool, stopping()).await?;
    for (group, payload) in [("a", 1), ("b", 11), ("a", 2), ("b", 12), ("b", 13)] {
        send(&store, group, payload).await?;
    }
    let admin = pgqrs::admin(&store);
    let mut dead = Vec::new();
    for delivery in ready(&store).await? {
        dead.push(delivery.id());
        delivery.dead_letter("no use", &store).await?;
    }
    // Of `b` there is an older one too.
    assert!(admin.resume_group("tasks", "b").await?);
    let twelfth = one(&store).await?;
    dead.push(twelfth.id());
    twelfth.dead_letter("no use", &store).await?;
    let owner = Store::from(pool.clone());
    let owner = pgqrs::admin(&owner);
    assert_eq!(
        owner.delete_dead_letters("tasks", &[dead[1]]).await?,
        1,
        "it isn't why the group is stopped"
    );
    assert!(ready(&store).await?.is_empty());
    assert_counted(&pool).await?;
    let letters = [dead[0], dead[2], dead[1], dead[0]];
    assert_eq!(owner.delete_dead_letters("tasks", &letters).await?, 2);
    assert_counted(&pool).await?;
    assert_eq!(numbers(&ready(&store).await?), [2, 13]);
    assert_eq!(
        admin.groups("tasks", GroupOrder::Stopped, 10).await?,
        Vec::new()
    );
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn several_that_are_put_back_at_once_keep_their_order(pool: PgPool) -> TestResult {
    let store = with_groups(&pool, stopping()).await?;
    let mut dead = Vec::new();
    for payload in 1..=4 {
        send(&store, "a", payload).await?;
    }
    let admin = pgqrs::admin(&store);
    for _ in 0..3 {
        let delivery = one(&store).await?;
        dead.push(delivery.id());
        delivery.dead_letter("no use", &store).await?;
        admin.resume_group("tasks", "a").await?;
    }
    let ids = [dead[2], dead[0], dead[1]];
    assert_eq!(admin.requeue_many("tasks", &ids).await?.back, 3);
    assert_counted(&pool).await?;
    // The fourth was on its way already.
    for expected in [4, 1, 2, 3] {
        let delivery = one(&store).await?;
        assert_eq!(number(&delivery), expected);
        delivery.ack(&store).await?;
    }
    assert_counted(&pool).await
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_crashed_consumer_s_last_attempt_stops_its_group(pool: PgPool) -> TestResult {
    let store = with_groups(&pool, stopping()).await?;
    let enqueue = pgqrs::enqueue().message(&1).to("tasks").group("a");
    let first = enqueue.max_attempts(1).execute(&store).await?[0];
    send(&store, "a", 2).await?;
    drop(one(&store).await?);
    expire(&pool, first).await?;
    assert!(ready(&store).await?.is_empty());
    let group = pgqrs::admin(&store).group("tasks", "a").await?;
    assert_eq!(group.expect("it is stopped").stopped_by, Some(first));
    assert_counted(&pool).await
}
