//! Deliveries whose lease or connection is lost, and those that are settled at the same time as something else.

use super::*;

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn extend_after_the_message_went_to_another_is_lease_lost(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let id = send(&store, &[1]).await?[0];
    let late = one(&store).await?;
    let ended = late.lease_expires_at();
    expire(&pool, id).await?;
    let holder = one(&store).await?;
    let before = everything(&pool).await?;
    let lost = late.extend(Duration::from_secs(3_600)).await;
    assert!(
        matches!(lost, Err(Error::LeaseLost { message }) if message == id),
        "{lost:?}"
    );
    assert_eq!(late.lease_expires_at(), ended);
    assert_eq!(everything(&pool).await?, before);
    holder.extend(Duration::from_secs(3_600)).await?;

    pgqrs::admin(&store).purge_queue("tasks").await?;
    let lost = holder.extend(Duration::from_secs(60)).await;
    assert!(matches!(lost, Err(Error::LeaseLost { .. })), "{lost:?}");
    Ok(())
}

/// While no other consumer has claimed the message, its holder may settle it.
/// As if a handler extends its lease while the loop does.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn an_extension_that_meets_another_waits_and_is_made(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    send(&store, &[1]).await?;
    let delivery = one(&store).await?;
    let mut other = pool.begin().await?;
    sqlx::query("update pgqrs.messages set lease_until = lease_until + interval '1 second'")
        .execute(&mut *other)
        .await?;
    let extending = tokio::spawn(async move {
        let extended = delivery.extend(Duration::from_secs(3_600)).await;
        extended.map(|()| delivery)
    });
    blocked_backend(&pool, "update pgqrs.messages").await;
    other.commit().await?;
    let delivery = extending.await??;
    assert!(delivery.lease_expires_at() > now(&pool).await? + TimeDelta::minutes(50));
    delivery.ack(&store).await?;
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_lease_that_ran_out_unnoticed_can_be_extended_and_settled(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    for verb in VERBS {
        let id = send(&store, &[1]).await?[0];
        let delivery = one(&store).await?;
        expire(&pool, id).await?;
        delivery.extend(Duration::from_secs(60)).await?;
        assert!(claim(&newcomer(&pool), 1).await?.is_empty());
        expire(&pool, id).await?;
        verb.settle(delivery, &store).await?;
        assert_eq!(places(&pool).await?, verb.leaves(), "{verb:?}");
        clear(&pool).await?;
    }
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn after_the_message_went_to_another_each_verb_is_lease_lost_and_changes_nothing(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    for verb in VERBS {
        let id = send(&store, &[1]).await?[0];
        let late = one(&store).await?;
        expire(&pool, id).await?;
        let holder = one(&store).await?;
        let before = everything(&pool).await?;

        let unsettled = verb.settle(late, &store).await.unwrap_err();
        assert!(
            matches!(unsettled.error(), Error::LeaseLost { message } if *message == id),
            "{unsettled:?}"
        );
        assert!(!unsettled.error().is_retryable());
        // In a transaction too, which goes on.
        let mut tx = pool.begin().await?;
        let again = verb
            .settle(unsettled.into_delivery(), &mut tx)
            .await
            .unwrap_err();
        assert!(
            matches!(again.error(), Error::LeaseLost { .. }),
            "{again:?}"
        );
        tx.commit().await?;
        assert_eq!(again.into_delivery().id(), id);
        assert_eq!(everything(&pool).await?, before, "{verb:?}");

        verb.settle(holder, &store).await?;
        assert_eq!(places(&pool).await?, verb.leaves(), "{verb:?}");
        clear(&pool).await?;
    }
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn of_a_purged_message_each_verb_says_that_it_is_gone(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    for verb in VERBS {
        send(&store, &[1]).await?;
        let delivery = one(&store).await?;
        assert_eq!(pgqrs::admin(&store).purge_queue("tasks").await?, 1);
        let lost: Error = verb.settle(delivery, &store).await.unwrap_err().into();
        assert!(
            matches!(lost, Error::LeaseLost { .. }),
            "{verb:?}: {lost:?}"
        );
        assert!(lost.to_string().contains("gone"), "{lost}");
        assert_eq!(places(&pool).await?, (0, 0, 0), "{verb:?}");
    }
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn when_the_connection_breaks_the_delivery_is_returned_for_a_retry(
    pool: PgPool,
) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let store = connect(&pool).await?;
    for verb in VERBS {
        send(&store, &[1]).await?;
        let delivery = one(&store).await?;
        let before = everything(&pool).await?;
        let mut blocker = pool.begin().await?;
        let lock = "lock table pgqrs.messages in share mode";
        sqlx::query(lock).execute(&mut *blocker).await?;
        let call = tokio::spawn({
            let store = store.clone();
            async move { verb.settle(delivery, &store).await }
        });
        terminate(&pool, blocked_backend(&pool, "pgqrs.messages").await).await?;
        let unsettled = call.await?.unwrap_err();
        assert!(unsettled.error().is_retryable(), "{unsettled:?}");
        blocker.rollback().await?;
        assert_eq!(everything(&pool).await?, before, "{verb:?}");
        verb.settle(unsettled.into_delivery(), &store).await?;
        assert_eq!(places(&pool).await?, verb.leaves(), "{verb:?}");
        clear(&pool).await?;
    }
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn when_a_transactions_connection_breaks_the_delivery_is_handed_back_too(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    for verb in VERBS {
        send(&store, &[1]).await?;
        let delivery = one(&store).await?;
        let mut tx = pool.begin().await?;
        let backend: i32 = sqlx::query_scalar("select pg_backend_pid()")
            .fetch_one(&mut *tx)
            .await?;
        terminate(&pool, backend).await?;
        let unsettled = verb.settle(delivery, &mut tx).await.unwrap_err();
        assert!(
            !matches!(unsettled.error(), Error::LeaseLost { .. }),
            "{unsettled:?}"
        );
        drop(tx);
        verb.settle(unsettled.into_delivery(), &store).await?;
        assert_eq!(places(&pool).await?, verb.leaves(), "{verb:?}");
        clear(&pool).await?;
    }
    Ok(())
}

/// The late one and the holder settle at the same moment, on connections of their own: it is the holder's
/// word that counts, whatever the late one says.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn of_two_consumers_that_settle_at_once_the_holder_wins(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    for late_verb in VERBS {
        for verb in VERBS {
            let id = send(&store, &[1]).await?[0];
            let late = one(&store).await?;
            expire(&pool, id).await?;
            let holder = one(&store).await?;
            let (store, other) = (store.clone(), newcomer(&pool));
            let late = tokio::spawn(async move { late_verb.settle(late, &other).await });
            let holder = tokio::spawn(async move { verb.settle(holder, &store).await });
            let lost = late.await?.unwrap_err();
            assert!(matches!(lost.error(), Error::LeaseLost { .. }), "{lost:?}");
            holder.await??;
            assert_eq!(
                places(&pool).await?,
                verb.leaves(),
                "{late_verb:?} against {verb:?}"
            );
            clear(&pool).await?;
        }
    }
    Ok(())
}

/// An acknowledgement that comes at the moment when the lease is over and another consumer claims.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn of_an_ack_and_a_claim_at_once_exactly_one_gets_the_message(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let mut acked = 0;
    for round in 0..100 {
        let id = send(&store, &[round]).await?[0];
        let delivery = one(&store).await?;
        expire(&pool, id).await?;
        let (here, there) = (store.clone(), newcomer(&pool));
        let late = async move { delivery.ack(&here).await };
        let claiming = async move { claim(&there, 1).await };
        // The task that is spawned first has a head start.
        let (late, claiming) = match round % 2 {
            0 => (tokio::spawn(late), tokio::spawn(claiming)),
            _ => {
                let claiming = tokio::spawn(claiming);
                (tokio::spawn(late), claiming)
            }
        };
        let claimed = claiming.await??;
        match late.await? {
            Ok(()) => {
                assert!(claimed.is_empty(), "both had it: {claimed:?}");
                acked += 1;
            }
            Err(unsettled) => {
                assert!(
                    matches!(unsettled, Error::LeaseLost { .. }),
                    "{unsettled:?}"
                );
                // The claim steps over a row that the acknowledgement is just locking, but then it is gone.
                assert_eq!(claimed.len(), 1, "neither had it");
                assert_eq!(claimed[0].attempt(), 2);
            }
        }
        clear(&pool).await?;
    }
    println!("{acked} of 100 acknowledgements came first");
    Ok(())
}

/// The acknowledgement's transaction is open while the lease ends: no other consumer gets the message meanwhile.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_message_that_is_being_acknowledged_is_not_delivered_although_its_lease_is_over(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let id = send(&store, &[1]).await?[0];
    let delivery = one(&store).await?;
    expire(&pool, id).await?;
    let mut tx = pool.begin().await?;
    delivery.ack(&mut tx).await?;
    let others = newcomer(&pool);
    assert!(claim(&others, 1).await?.is_empty());
    tx.rollback().await?;
    assert_eq!(claim(&newcomer(&pool), 1).await?[0].attempt(), 2);
    Ok(())
}
