//! Groups: few messages of each are on their way at a time, in the order in which they were sent.

mod admin;
mod at_once;
mod open;
mod order;
mod rates;
mod settled;
mod typed;

use std::time::Duration;

use pgqrs::{
    AfterDeadLetter, Delivery, Error, GroupOrder, Groups, MessageId, QueueOptions, Store, Unchecked,
};
use serde_json::Value;
use sqlx::PgPool;

use crate::support::{TestResult, claim, count, one, until, with_queues};

/// The queue `tasks`, which takes groups.
async fn with_groups(pool: &PgPool, groups: Groups) -> pgqrs::Result<Store> {
    let store = with_queues(pool, &["tasks"]).await?;
    configure(pool, groups).await?;
    Ok(store)
}

/// As the owner of the schema, who alone may.
async fn configure(pool: &PgPool, groups: Groups) -> pgqrs::Result<()> {
    let options = QueueOptions::builder().groups(groups).build();
    let owner = Store::from(pool.clone());
    pgqrs::admin(&owner)
        .configure_queue("tasks", options)
        .await?;
    Ok(())
}

fn at_once(at_once: u32) -> Groups {
    Groups::builder().at_once(at_once).build()
}

fn stopping() -> Groups {
    Groups::builder()
        .after_dead_letter(AfterDeadLetter::Stop)
        .build()
}

async fn send(store: &Store, group: &str, payload: u32) -> pgqrs::Result<MessageId> {
    let enqueue = pgqrs::enqueue().message(&payload).to("tasks").group(group);
    Ok(enqueue.execute(store).await?[0])
}

/// What can be claimed now, by payload.
async fn ready(store: &Store) -> pgqrs::Result<Vec<Delivery<Value, Unchecked>>> {
    let mut deliveries = claim(store, 100).await?;
    deliveries.sort_by_key(number);
    Ok(deliveries)
}

fn number<D>(delivery: &Delivery<Value, D>) -> u64 {
    let number: Result<u64, _> = delivery.raw_payload().parse();
    number.expect("a number")
}

fn numbers<D>(deliveries: &[Delivery<Value, D>]) -> Vec<u64> {
    deliveries.iter().map(number).collect()
}

/// Compares the groups' rows with their messages. No send or settlement may be under way.
async fn assert_counted(pool: &PgPool) -> TestResult {
    let differences: Vec<(Option<String>, Option<i64>, Option<i64>)> = sqlx::query_as(
        "with counted as (
             select queue_id, group_key as key,
                 count(*) filter (where visible_at < 'infinity') as live,
                 count(*) filter (where visible_at = 'infinity') as parked
             from pgqrs.messages
             where group_key is not null
             group by queue_id, group_key
         )
         select coalesce(g.key, c.key), c.live, c.parked
         from pgqrs.groups g
         full join counted c on c.queue_id = g.queue_id and c.key = g.key
         where (coalesce(g.live, 0), coalesce(g.parked, 0)) <> (coalesce(c.live, 0), coalesce(c.parked, 0))
             -- A row is deleted with its last message.
             or c.key is null and g.at_once is null and g.stopped_at is null
             -- Nothing waits without a reason.
             or c.parked > 0 and g.stopped_at is null and c.live < coalesce(
                 g.at_once, (select groups_at_once from pgqrs.queues where id = c.queue_id), 1
             )",
    )
    .fetch_all(pool)
    .await?;
    assert_eq!(differences, [], "group, live, parked");
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn of_each_group_one_message_is_on_its_way_at_a_time(pool: PgPool) -> TestResult {
    let store = with_groups(&pool, Groups::default()).await?;
    for (group, payload) in [("a", 1), ("a", 2), ("b", 11), ("a", 3), ("b", 12)] {
        send(&store, group, payload).await?;
    }
    pgqrs::enqueue()
        .messages(&[21, 22])
        .to("tasks")
        .execute(&store)
        .await?;
    let deliveries = ready(&store).await?;
    assert_eq!(numbers(&deliveries), [1, 11, 21, 22]);
    assert_eq!(deliveries[0].group(), Some("a"));
    assert_eq!(deliveries[2].group(), None);
    assert!(ready(&store).await?.is_empty());
    assert_counted(&pool).await?;
    let mut deliveries = deliveries.into_iter();
    let first = deliveries.next().expect("of group a");
    first.ack(&store).await?;
    assert_counted(&pool).await?;
    let next = ready(&store).await?;
    assert_eq!(numbers(&next), [2]);
    assert!(pgqrs::ack_all(next, &store).await?.is_empty());
    // Those of others, and those without a group, together.
    let lost = pgqrs::ack_all(deliveries.collect(), &store).await?;
    assert!(lost.is_empty());
    let next = ready(&store).await?;
    assert_eq!(numbers(&next), [3, 12]);
    pgqrs::ack_all(next, &store).await?;
    assert_eq!(count(&pool).await?, 0);
    let groups: i64 = sqlx::query_scalar("select count(*) from pgqrs.groups")
        .fetch_one(&pool)
        .await?;
    assert_eq!(groups, 0, "no rows of groups without messages are left");
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_queue_that_takes_no_groups_refuses_them_and_the_error_names_the_remedy(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let enqueue = || pgqrs::enqueue().message(&1).to("tasks").group("a");
    let mut tx = store.begin().await?;
    let refused = [
        enqueue().execute(&store).await,
        enqueue().execute(&pool).await,
        enqueue().execute(&mut tx).await,
    ];
    for refused in refused {
        let error = refused.expect_err("no groups");
        assert!(matches!(error, Error::GroupsNotEnabled { .. }), "{error}");
        assert!(error.to_string().contains("groups(Groups::default())"));
        assert!(!error.is_retryable() && !error.aborted_transaction());
    }
    // The transaction goes on.
    pgqrs::enqueue()
        .message(&2)
        .to("tasks")
        .execute(&mut tx)
        .await?;
    tx.commit().await?;
    assert_eq!(count(&pool).await?, 1);
    // What is missing is reported first.
    let absent = pgqrs::enqueue().message(&1).to("absent").group("a");
    let error = absent.execute(&store).await.expect_err("no queue");
    assert!(matches!(error, Error::QueueNotFound { .. }));
    configure(&pool, Groups::default()).await?;
    let owner = Store::from(pool.clone());
    pgqrs::admin(&owner).close_queue("tasks").await?;
    let error = enqueue().execute(&store).await.expect_err("closed");
    assert!(matches!(error, Error::QueueClosed { .. }));
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_batch_is_in_line_in_its_order_on_every_connection(pool: PgPool) -> TestResult {
    let store = with_groups(&pool, Groups::default()).await?;
    let payloads: Vec<u32> = (0..2_500).collect();
    let mut tx = store.begin().await?;
    for round in 0..3 {
        let by = |payload: &u32| format!("group-{}", payload % 3);
        let enqueue = pgqrs::enqueue()
            .to("tasks")
            .group_by(by)
            .messages(&payloads);
        // Each takes several statements.
        let sent = match round {
            0 => enqueue.execute(&store).await?,
            1 => enqueue.execute(&pool).await?,
            _ => enqueue.execute(&mut tx).await?,
        };
        assert_eq!(sent.len(), payloads.len());
        assert!(sent.windows(2).all(|ids| ids[0] < ids[1]));
    }
    tx.commit().await?;
    assert_counted(&pool).await?;
    let in_order: Vec<(String, Vec<i32>)> = sqlx::query_as(
        "select group_key, array_agg(payload::text::integer order by group_place)
         from pgqrs.messages group by group_key order by group_key",
    )
    .fetch_all(&pool)
    .await?;
    assert_eq!(in_order.len(), 3);
    for (place, (_, of_group)) in (0_i32..).zip(in_order) {
        let once: Vec<_> = (0..2_500).filter(|number| number % 3 == place).collect();
        assert_eq!(of_group, [&once[..], &once, &once].concat());
    }
    let live: i64 =
        sqlx::query_scalar("select count(*) from pgqrs.messages where visible_at < 'infinity'")
            .fetch_one(&pool)
            .await?;
    assert_eq!(live, 3);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_parked_message_keeps_its_delay_and_a_delayed_one_holds_its_group(
    pool: PgPool,
) -> TestResult {
    let store = with_groups(&pool, Groups::default()).await?;
    let hour = Duration::from_secs(3600);
    send(&store, "a", 1).await?;
    let delayed = pgqrs::enqueue().message(&2).to("tasks").group("a");
    let delayed = delayed.delay(hour).execute(&store).await?[0];
    send(&store, "a", 3).await?;
    let admin = pgqrs::admin(&store);
    let listed = admin.messages("tasks", pgqrs::Page::default()).await?;
    let parked: Vec<_> = listed.iter().map(|message| message.is_parked).collect();
    assert_eq!(parked, [false, true, true]);
    assert!(listed[1].visible_at > listed[0].visible_at + hour / 2);
    assert_eq!(listed[1].group.as_deref(), Some("a"));
    one(&store).await?.ack(&store).await?;
    assert_counted(&pool).await?;
    assert!(
        ready(&store).await?.is_empty(),
        "it waits, and the next one with it"
    );
    crate::support::expire(&pool, delayed).await?;
    let second = ready(&store).await?;
    assert_eq!(numbers(&second), [2]);
    pgqrs::ack_all(second, &store).await?;
    assert_eq!(numbers(&ready(&store).await?), [3]);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn priority_overtakes_other_groups_and_not_its_own(pool: PgPool) -> TestResult {
    let store = with_groups(&pool, Groups::default()).await?;
    send(&store, "a", 1).await?;
    let urgent = |group: &'static str, payload: u32| {
        let enqueue = pgqrs::enqueue().message(&payload).to("tasks").group(group);
        enqueue.priority(pgqrs::Priority::Urgent)
    };
    urgent("a", 2).execute(&store).await?;
    urgent("b", 3).execute(&store).await?;
    let deliveries = claim(&store, 10).await?;
    assert_eq!(numbers(&deliveries), [3, 1]);
    pgqrs::ack_all(deliveries, &store).await?;
    assert_eq!(numbers(&ready(&store).await?), [2]);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn after_a_lost_answer_messages_are_counted_once(pool: PgPool) -> TestResult {
    let _ = with_groups(&pool, Groups::default()).await?;
    let (proxy, url) = crate::support::proxy::Proxy::before(&pool).await?;
    let options = pgqrs::ConnectOptions::builder()
        .url(url)
        .max_connections(2)
        .retry_for(Duration::from_secs(6));
    let store = pgqrs::connect_with(options.build()).await?;
    for (round, messages) in [1_u32, 3, 1_200].into_iter().enumerate() {
        send(&store, "warm", 0).await?;
        let before = count(&pool).await?;
        // The statement arrives and is committed; its answer doesn't come back.
        proxy.hold();
        let sending = tokio::spawn({
            let store = store.clone();
            async move {
                let payloads: Vec<_> = (0..messages).collect();
                let enqueue = pgqrs::enqueue().messages(&payloads).to("tasks");
                enqueue.group(format!("a-{round}")).execute(&store).await
            }
        });
        until("it is stored", async || {
            count(&pool).await.is_ok_and(|now| now > before)
        })
        .await;
        let sent = sending.await??;
        assert_eq!(sent.len(), messages as usize);
        assert_eq!(count(&pool).await?, before + i64::from(messages));
        assert_counted(&pool).await?;
    }
    Ok(())
}
