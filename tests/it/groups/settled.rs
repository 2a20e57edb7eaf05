//! What lets the next message of a group in, and what doesn't.

use pgqrs::{Access, Cancelled};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use super::*;
use crate::{
    grants::as_role,
    support::{expire, places, url},
};

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_message_that_fails_holds_its_group_until_it_is_done_or_dead(pool: PgPool) -> TestResult {
    let store = with_groups(&pool, Groups::default()).await?;
    for payload in 1..=3 {
        send(&store, "a", payload).await?;
    }
    let hour = Duration::from_secs(3600);
    for deed in ["retry", "later", "untouched", "dead"] {
        let delivery = one(&store).await?;
        let id = delivery.id();
        assert_eq!(number(&delivery), 1, "{deed}");
        match deed {
            "retry" => delivery.retry_in(hour, &store).await?,
            "later" => delivery.later(hour, &store).await?,
            "untouched" => drop(delivery),
            _ => {
                delivery.dead_letter("no use", &store).await?;
                break;
            }
        }
        assert_counted(&pool).await?;
        assert!(ready(&store).await?.is_empty(), "{deed}");
        expire(&pool, id).await?;
    }
    assert_counted(&pool).await?;
    let second = one(&store).await?;
    assert_eq!(number(&second), 2);
    second.archive(&store).await?;
    assert_eq!(number(&one(&store).await?), 3);
    assert_eq!(places(&pool).await?, (1, 1, 1));
    let groups: Vec<Option<String>> = sqlx::query_scalar(
        "select group_key from pgqrs.archive union all select group_key from pgqrs.dead_letters",
    )
    .fetch_all(&pool)
    .await?;
    assert_eq!(groups, [Some("a".to_owned()), Some("a".to_owned())]);
    assert_counted(&pool).await
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn used_up_attempts_and_expiry_let_the_next_one_in(pool: PgPool) -> TestResult {
    let store = with_groups(&pool, Groups::default()).await?;
    let enqueue = |payload: u32| pgqrs::enqueue().message(&payload).to("tasks").group("a");
    let first = enqueue(1).max_attempts(1).execute(&store).await?[0];
    let hour = Duration::from_secs(3600);
    let expiring = enqueue(2).expires_in(hour).execute(&store).await?[0];
    let dropped = enqueue(3).expires_in(hour).drop_if_expired();
    let dropped = dropped.execute(&store).await?[0];
    send(&store, "a", 4).await?;
    // Its consumer crashes.
    drop(one(&store).await?);
    for id in [expiring, dropped] {
        let over = "update pgqrs.messages set expires_at = now() where id = $1";
        sqlx::query(over).bind(id.get()).execute(&pool).await?;
    }
    expire(&pool, first).await?;
    until("those before it are over", async || {
        assert_counted(&pool).await.expect("counted");
        let ready = ready(&store).await.expect("a claim");
        !ready.is_empty() && numbers(&ready) == [4]
    })
    .await;
    assert_eq!(places(&pool).await?, (1, 2, 0));
    assert_counted(&pool).await
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_failed_transaction_lets_nothing_in(pool: PgPool) -> TestResult {
    let store = with_groups(&pool, Groups::default()).await?;
    send(&store, "a", 1).await?;
    send(&store, "a", 2).await?;
    let first = one(&store).await?;
    let id = first.id();
    let mut tx = store.begin().await?;
    first.ack(&mut tx).await?;
    tx.rollback().await?;
    assert_counted(&pool).await?;
    assert!(ready(&store).await?.is_empty());
    expire(&pool, id).await?;
    let again = one(&store).await?;
    let mut tx = store.begin().await?;
    again.ack(&mut tx).await?;
    assert!(ready(&store).await?.is_empty(), "not before the commit");
    tx.commit().await?;
    assert_eq!(numbers(&ready(&store).await?), [2]);
    assert_counted(&pool).await
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn the_statement_for_other_drivers_lets_the_next_one_in(pool: PgPool) -> TestResult {
    let store = with_groups(&pool, Groups::default()).await?;
    let mut connection = PgConnection::connect(&url(&pool)).await?;
    for is_archived in [false, true] {
        let options = QueueOptions::builder().archive_on_ack(is_archived).build();
        let owner = Store::from(pool.clone());
        pgqrs::admin(&owner)
            .configure_queue("tasks", options)
            .await?;
        send(&store, "a", 1).await?;
        send(&store, "a", 2).await?;
        for payload in [1, 2] {
            let delivery = one(&store).await?;
            assert_eq!(number(&delivery), payload);
            let statement = delivery.ack_statement();
            let rows: Vec<i64> = sqlx::query_scalar(AssertSqlSafe(statement.sql()))
                .bind(statement.queue_id())
                .bind(statement.id().get())
                .bind(statement.lease_token())
                .fetch_all(&mut connection)
                .await?;
            statement.check(rows)?;
            assert_counted(&pool).await?;
        }
    }
    assert_eq!(places(&pool).await?, (0, 0, 2));
    // A lease that is lost returns no row, and counts nothing.
    send(&store, "a", 1).await?;
    send(&store, "a", 2).await?;
    let delivery = one(&store).await?;
    expire(&pool, delivery.id()).await?;
    let other = one(&store).await?;
    let statement = delivery.ack_statement();
    let rows: Vec<i64> = sqlx::query_scalar(AssertSqlSafe(statement.sql()))
        .bind(statement.queue_id())
        .bind(statement.id().get())
        .bind(statement.lease_token())
        .fetch_all(&mut connection)
        .await?;
    let lost = statement.check(rows).expect_err("the lease is lost");
    assert!(matches!(lost, Error::LeaseLost { .. }));
    assert_counted(&pool).await?;
    assert!(ready(&store).await?.is_empty());
    other.ack(&store).await?;
    assert_counted(&pool).await
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_lost_lease_settles_nothing(pool: PgPool) -> TestResult {
    let store = with_groups(&pool, Groups::default()).await?;
    send(&store, "a", 1).await?;
    send(&store, "a", 2).await?;
    let late = one(&store).await?;
    expire(&pool, late.id()).await?;
    let other = one(&store).await?;
    assert_eq!(other.id(), late.id());
    let lost = pgqrs::ack_all(vec![late], &store).await?;
    assert_eq!(lost, [other.id()]);
    assert_counted(&pool).await?;
    assert!(ready(&store).await?.is_empty());
    other.ack(&store).await?;
    assert_eq!(numbers(&ready(&store).await?), [2]);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_cancelled_message_lets_the_next_one_in_if_it_was_on_its_way(pool: PgPool) -> TestResult {
    let store = with_groups(&pool, Groups::default()).await?;
    let mut ids = Vec::new();
    for payload in 1..=4 {
        ids.push(send(&store, "a", payload).await?);
    }
    let admin = pgqrs::admin(&store);
    // Parked.
    let was = admin.cancel("tasks", ids[1]).archive(true).await?;
    assert_eq!(was, Some(Cancelled::Waiting));
    assert_counted(&pool).await?;
    let first = one(&store).await?;
    assert_eq!(number(&first), 1);
    let was = admin.cancel("tasks", ids[0]).await?;
    assert_eq!(was, Some(Cancelled::Running));
    assert_counted(&pool).await?;
    assert!(first.ack(&store).await.is_err());
    let third = one(&store).await?;
    assert_eq!(number(&third), 3);
    assert_eq!(admin.cancel("tasks", ids[0]).await?, None);
    third.ack(&store).await?;
    assert_eq!(number(&one(&store).await?), 4);
    assert_counted(&pool).await
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn many_that_are_cancelled_let_the_next_ones_of_all_their_groups_in(
    pool: PgPool,
) -> TestResult {
    let store = with_groups(&pool, Groups::default()).await?;
    let mut of = [Vec::new(), Vec::new()];
    for payload in 1..=4 {
        of[0].push(send(&store, "a", payload).await?);
        of[1].push(send(&store, "b", payload + 10).await?);
    }
    let plain = pgqrs::enqueue().message(&21).to("tasks");
    let plain = plain.execute(&store).await?[0];
    let admin = pgqrs::admin(&store);
    let running = one(&store).await?;
    assert_eq!(running.id(), of[0][0]);
    // Of one group the one that runs and a parked one, of the other parked ones alone; one twice, and one that isn't there.
    let gone = MessageId::from(i64::MAX);
    let ids = [
        of[1][2], plain, of[0][0], of[1][1], of[0][1], of[1][1], gone,
    ];
    assert_eq!(admin.cancel_many("tasks", &ids).await?, 5);
    assert_counted(&pool).await?;
    let left = ready(&store).await?;
    assert_eq!(numbers(&left), [3, 11]);
    assert_eq!(admin.cancel_many("tasks", &ids).await?, 0);
    assert!(running.ack(&store).await.is_err());
    pgqrs::ack_all(left, &store).await?;
    assert_eq!(numbers(&ready(&store).await?), [4, 14]);
    assert_counted(&pool).await
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn roles_with_the_documented_privileges_can_use_groups(pool: PgPool) -> TestResult {
    with_groups(&pool, stopping()).await?;
    as_role(&pool, Some(Access::Producer), async |store, _| {
        for payload in 1..=4 {
            send(store, "a", payload).await?;
        }
        Ok(())
    })
    .await?;
    as_role(&pool, Some(Access::Consumer), async |store, _| {
        one(store).await?.ack(store).await?;
        one(store).await?.archive(store).await?;
        one(store).await?.dead_letter("no use", store).await?;
        assert!(ready(store).await?.is_empty(), "the group is stopped");
        Ok(())
    })
    .await?;
    as_role(&pool, Some(Access::Operator), async |store, _| {
        let operator = pgqrs::admin(store);
        assert_eq!(operator.requeue_all("tasks", Duration::ZERO).await?.back, 1);
        operator.stop_group("tasks", "a").await?;
        operator.set_group_limit("tasks", "a", 2).await?;
        assert!(operator.resume_group("tasks", "a").await?);
        operator.set_group_limit("tasks", "a", None).await?;
        operator.promote_groups("tasks").await?;
        Ok(())
    })
    .await?;
    as_role(&pool, Some(Access::Consumer), async |store, _| {
        let both = ready(store).await?;
        assert_eq!(
            numbers(&both),
            [3, 4],
            "both are on their way since the limit was 2"
        );
        pgqrs::ack_all(both, store).await?;
        Ok(())
    })
    .await?;
    assert_counted(&pool).await
}
