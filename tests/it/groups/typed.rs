//! Where the group of a message comes from.

use pgqrs::{GroupedQueue, Queue};
use serde::{Deserialize, Serialize};

use super::*;

#[derive(Debug, Serialize, Deserialize)]
struct Order {
    customer: u64,
}

const ORDERS: GroupedQueue<Order> =
    Queue::<Order>::new("tasks").group_by(|order| format!("customer-{}", order.customer));

async fn groups(pool: &PgPool) -> sqlx::Result<Vec<Option<String>>> {
    sqlx::query_scalar("select group_key::text from pgqrs.messages order by group_key")
        .fetch_all(pool)
        .await
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_queue_computes_the_group_of_each_message_on_every_way(pool: PgPool) -> TestResult {
    let store = with_groups(&pool, Groups::default()).await?;
    let order = |customer| Order { customer };
    let orders = [order(1), order(2)];
    pgqrs::enqueue()
        .messages(&orders)
        .to(ORDERS)
        .execute(&store)
        .await?;
    pgqrs::enqueue()
        .to(&ORDERS)
        .message(&order(3))
        .execute(&pool)
        .await?;
    let mut import = pgqrs::enqueue().to(ORDERS).import([order(4)]);
    while import.next(&store).await?.is_some() {}
    let producer = pgqrs::producer("orders.example", 1, ORDERS)
        .create(&store)
        .await?;
    pgqrs::enqueue()
        .message(&order(5))
        .worker(&producer)
        .execute(&store)
        .await?;
    pgqrs::enqueue()
        .to(ORDERS)
        .batch([pgqrs::message(&order(6)).delay(60)])
        .execute(&store)
        .await?;
    let expected: Vec<_> = (1..=6)
        .map(|customer| Some(format!("customer-{customer}")))
        .collect();
    assert_eq!(groups(&pool).await?, expected);
    let delivery = pgqrs::dequeue().from(ORDERS).execute(&store).await?;
    assert_eq!(delivery[0].group(), Some("customer-1"));
    // By these ways the compiler doesn't know what the queue computes.
    let own = pgqrs::enqueue().message(&order(7)).worker(&producer);
    let refused = own.group("mine").execute(&store).await;
    assert!(
        matches!(refused, Err(Error::InvalidKey { .. })),
        "{refused:?}"
    );
    let own = pgqrs::message(&order(7)).unique("mine");
    let refused = pgqrs::enqueue().to(ORDERS).batch([own]).execute(&store);
    assert!(matches!(refused.await, Err(Error::InvalidKey { .. })));
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn messages_of_a_batch_have_groups_keys_or_neither(pool: PgPool) -> TestResult {
    let store = with_groups(&pool, Groups::default()).await?;
    let batch = || {
        [
            pgqrs::message(&1).group("a").into(),
            pgqrs::message(&2),
            pgqrs::message(&3).unique("k"),
            pgqrs::message(&4).group("a").into(),
            pgqrs::message(&5)
                .group("b")
                .max_attempts(2)
                .header("x", "y")
                .into(),
        ]
    };
    let sent = pgqrs::enqueue().to("tasks").batch(batch());
    let sent = sent.execute(&store).await?;
    assert!(sent.windows(2).all(|ids| ids[0] < ids[1]));
    let again = pgqrs::enqueue().to("tasks").batch(batch());
    let again = again.execute(&pool).await?;
    let new: Vec<_> = again.outcomes().map(|sent| sent.new).collect();
    assert_eq!(new, [true, true, false, true, true]);
    let deliveries = ready(&store).await?;
    assert_eq!(numbers(&deliveries), [1, 2, 2, 3, 5]);
    assert_eq!(deliveries[4].max_attempts(), 2);
    assert_eq!(deliveries[4].headers().get("x"), Some("y"));
    assert_counted(&pool).await?;
    let both = pgqrs::message(&1).unique("k").group("a");
    let refused = pgqrs::enqueue().to("tasks").batch([both]).execute(&store);
    assert!(matches!(refused.await, Err(Error::InvalidKey { .. })));
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn groups_that_can_t_be_stored_are_refused_before_anything_is_sent(
    pool: PgPool,
) -> TestResult {
    let store = with_groups(&pool, Groups::default()).await?;
    for group in [String::new(), "a\0".to_owned(), "g".repeat(256)] {
        let refused = send(&store, &group, 1).await;
        assert!(matches!(refused, Err(Error::InvalidKey { index: 0, .. })));
    }
    let longest = "ü".repeat(127);
    send(&store, &longest, 1).await?;
    send(&store, "", 1).await.expect_err("empty");
    let delivery = one(&store).await?;
    assert_eq!(delivery.group(), Some(&*longest));
    let text = format!("{delivery:?}");
    assert!(!text.contains('ü'), "no group is in a log");
    Ok(())
}
