//! Administration of queues and messages with groups.

use pgqrs::{MessagePlace, MessageState};

use super::*;
use crate::support::expire;

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn groups_are_listed_by_what_is_parked_by_age_and_if_they_are_stopped(
    pool: PgPool,
) -> TestResult {
    let store = with_groups(&pool, Groups::default()).await?;
    for (group, messages) in [("a", 2), ("b", 4), ("c", 3), ("d", 1)] {
        for payload in 0..messages {
            send(&store, group, payload).await?;
        }
    }
    let admin = pgqrs::admin(&store);
    admin.stop_group("tasks", "c").await?;
    let names = async |order, limit| -> pgqrs::Result<Vec<String>> {
        let groups = admin.groups("tasks", order, limit).await?;
        Ok(groups.into_iter().map(|group| group.group).collect())
    };
    assert_eq!(names(GroupOrder::Parked, 10).await?, ["b", "c", "a", "d"]);
    assert_eq!(names(GroupOrder::Parked, 2).await?, ["b", "c"]);
    assert_eq!(names(GroupOrder::Oldest, 3).await?, ["a", "b", "c"]);
    assert_eq!(names(GroupOrder::Stopped, 10).await?, ["c"]);
    let groups = admin.groups("tasks", GroupOrder::Parked, 1).await?;
    assert_eq!((groups[0].live, groups[0].parked), (1, 3));
    assert!(groups[0].oldest_parked.is_some());
    let absent = admin.groups("absent", GroupOrder::Parked, 1).await;
    assert!(matches!(absent, Err(Error::QueueNotFound { .. })));
    let absent = admin.promote_groups("absent").await;
    assert!(matches!(absent, Err(Error::QueueNotFound { .. })));
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn settings_are_returned_and_can_be_removed(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let owner = Store::from(pool.clone());
    let admin = pgqrs::admin(&owner);
    assert_eq!(admin.queue("tasks").await?.groups, None);
    configure(&pool, stopping()).await?;
    let groups = admin.queue("tasks").await?.groups.expect("set");
    assert_eq!(groups, stopping());
    assert_eq!(groups.at_once(), 1);
    assert_eq!(groups.after_dead_letter(), AfterDeadLetter::Stop);
    // Others stay as they are.
    let other = QueueOptions::builder().max_attempts(3).build();
    let queue = admin.configure_queue("tasks", other).await?;
    assert_eq!(queue.groups, Some(stopping()));
    for payload in 1..=2 {
        send(&store, "a", payload).await?;
    }
    let none = QueueOptions::builder().groups(None).build();
    assert_eq!(admin.configure_queue("tasks", none).await?.groups, None);
    assert!(send(&store, "a", 3).await.is_err());
    // Those that it has are handled as before.
    for expected in 1..=2 {
        let delivery = one(&store).await?;
        assert_eq!(number(&delivery), expected);
        delivery.ack(&store).await?;
    }
    let refused = configure(&pool, at_once(0)).await;
    assert!(matches!(refused, Err(Error::InvalidSetting { .. })));
    assert_counted(&pool).await
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn purged_groups_and_queues_are_counted_anew(pool: PgPool) -> TestResult {
    let store = with_groups(&pool, Groups::default()).await?;
    let owner = Store::from(pool.clone());
    let admin = pgqrs::admin(&owner);
    let fill = async || -> pgqrs::Result<()> {
        for payload in 1..=3 {
            send(&store, "a", payload).await?;
            send(&store, "b", payload + 10).await?;
        }
        pgqrs::enqueue()
            .message(&21)
            .to("tasks")
            .execute(&store)
            .await?;
        Ok(())
    };
    fill().await?;
    assert_eq!(admin.purge_group("tasks", "a").await?, 2);
    assert_eq!(admin.purge_group("tasks", "nobody").await?, 0);
    assert_counted(&pool).await?;
    let running = ready(&store).await?;
    assert_eq!(numbers(&running), [1, 11, 21]);
    admin.set_group_limit("tasks", "b", 2).await?;
    assert_eq!(admin.purge_queue("tasks").await?, 5);
    assert_counted(&pool).await?;
    assert_eq!(pgqrs::ack_all(running, &store).await?.len(), 3);
    assert_counted(&pool).await?;
    fill().await?;
    assert_eq!(numbers(&ready(&store).await?), [1, 11, 12, 21]);
    assert_counted(&pool).await?;
    assert!(admin.delete_queue("tasks").await.is_err());
    admin.purge_queue("tasks").await?;
    admin.delete_queue("tasks").await?;
    let left: i64 = sqlx::query_scalar("select count(*) from pgqrs.groups")
        .fetch_one(&pool)
        .await?;
    assert_eq!(left, 0);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_parked_message_that_is_rescheduled_stays_parked(pool: PgPool) -> TestResult {
    let store = with_groups(&pool, Groups::default()).await?;
    send(&store, "a", 1).await?;
    let second = send(&store, "a", 2).await?;
    let admin = pgqrs::admin(&store);
    let hour = Duration::from_secs(3600);
    let time = crate::support::now(&pool).await? + hour;
    assert!(admin.reschedule("tasks", second, time).await?);
    assert_counted(&pool).await?;
    one(&store).await?.ack(&store).await?;
    assert!(ready(&store).await?.is_empty(), "it is delayed by now");
    assert_counted(&pool).await?;
    expire(&pool, second).await?;
    assert_eq!(numbers(&ready(&store).await?), [2]);
    // And several at once.
    let third = send(&store, "a", 3).await?;
    let plain = pgqrs::enqueue().message(&4).to("tasks");
    let plain = plain.execute(&store).await?[0];
    let many = [second, third, plain];
    // The one that is leased stays as it is.
    assert_eq!(admin.reschedule_many("tasks", &many, time).await?, 2);
    assert_counted(&pool).await?;
    assert!(ready(&store).await?.is_empty());
    let found = admin.message("tasks", third).await?.expect("it is there");
    assert_eq!(found.group.as_deref(), Some("a"));
    match found.place {
        MessagePlace::Queued {
            state: MessageState::Delayed,
            is_parked: true,
            visible_at,
            ..
        } => assert_eq!(visible_at, time),
        other => panic!("{other:?}"),
    }
    let delayed = admin.search("tasks", MessageState::Delayed).await?.items;
    let parked: Vec<_> = delayed
        .iter()
        .map(|message| (message.id, message.is_parked, message.group.is_some()))
        .collect();
    assert!(parked.contains(&(third, true, true)) && parked.contains(&(plain, false, false)));
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn what_is_parked_and_what_is_stopped_is_counted(pool: PgPool) -> TestResult {
    let store = with_groups(&pool, Groups::default()).await?;
    for payload in 1..=3 {
        send(&store, "a", payload).await?;
    }
    let delayed = pgqrs::enqueue().message(&4).to("tasks");
    delayed
        .delay(Duration::from_secs(3600))
        .execute(&store)
        .await?;
    let running = one(&store).await?;
    let admin = pgqrs::admin(&store);
    admin.stop_group("tasks", "a").await?;
    admin.stop_group("tasks", "b").await?;
    let bounded = admin.queue_stats("tasks").await?;
    let exact = admin.exact_queue_stats("tasks").await?;
    assert_eq!(bounded, exact);
    let counts = [
        exact.ready,
        exact.delayed,
        exact.parked,
        exact.leased,
        exact.stopped_groups,
    ];
    assert_eq!(counts.map(|count| count.value), [0, 1, 2, 1, 2]);
    assert_eq!(exact.total(), 4);
    admin.resume_group("tasks", "b").await?;
    running.ack(&store).await?;
    let after = admin.queue_stats("tasks").await?;
    assert_eq!((after.parked.value, after.stopped_groups.value), (2, 1));
    Ok(())
}
