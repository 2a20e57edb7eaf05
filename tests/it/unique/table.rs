//! Each lifetime of a key, with the first message in each of its states.

use chrono::Utc;

use super::*;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lifetime {
    Unique,
    UntilClaimed,
    Within,
}

use Lifetime::{Unique, UntilClaimed, Within};

/// Sends with the key `a`.
async fn send(lifetime: Lifetime, on: impl Executor) -> pgqrs::Result<Sent> {
    let enqueue = pgqrs::enqueue().message(&1).to("tasks");
    let enqueued = match lifetime {
        Unique => enqueue.unique("a").execute(on).await?,
        UntilClaimed => enqueue.unique_until_claimed("a").execute(on).await?,
        Within => enqueue.once_within("a", HOUR).execute(on).await?,
    };
    Ok(only(&enqueued))
}

/// What the first message has become, by then.
#[derive(Debug, Clone, Copy)]
enum First {
    Waits,
    Delayed,
    HasExpired,
    Runs,
    IsRetried,
    WasHandled,
    WasArchived,
    IsDead,
    WasPurged,
    HadItsTime,
    IsAcknowledgedInAnOpenTransaction,
}

use First::*;

/// The state, and for which lifetimes a second message is new.
const TABLE: [(First, &[Lifetime]); 11] = [
    (Waits, &[]),
    (Delayed, &[]),
    (HasExpired, &[]),
    (Runs, &[UntilClaimed]),
    (IsRetried, &[UntilClaimed]),
    (WasHandled, &[Unique, UntilClaimed]),
    (WasArchived, &[Unique, UntilClaimed]),
    (IsDead, &[Unique, UntilClaimed]),
    (WasPurged, &[Unique, UntilClaimed]),
    (HadItsTime, &[Within]),
    (IsAcknowledgedInAnOpenTransaction, &[UntilClaimed]),
];

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn whether_a_second_message_is_new_follows_from_what_the_first_has_become(
    pool: PgPool,
) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let store = connect(&pool).await?;
    let admin = pgqrs::admin(&store);
    for (state, new_for) in TABLE {
        for lifetime in [Unique, UntilClaimed, Within] {
            for own_transaction in [false, true] {
                let first = send(lifetime, &store).await?;
                assert!(first.new, "{lifetime:?} {state:?}");
                let mut open = pool.begin().await?;
                match state {
                    Waits => {}
                    Delayed => {
                        let tomorrow = Utc::now() + 24 * HOUR;
                        admin.reschedule("tasks", first.id, tomorrow).await?;
                    }
                    HasExpired => {
                        sqlx::query("update pgqrs.messages set expires_at = now()")
                            .execute(&pool)
                            .await?;
                    }
                    Runs => std::mem::forget(one(&store).await?),
                    IsRetried => one(&store).await?.retry_in(HOUR, &store).await?,
                    WasHandled => one(&store).await?.ack(&store).await?,
                    WasArchived => one(&store).await?.archive(&store).await?,
                    IsDead => one(&store).await?.dead_letter("a reason", &store).await?,
                    WasPurged => {
                        admin.purge_queue("tasks").await?;
                    }
                    HadItsTime => {
                        sqlx::query("update pgqrs.seen set until = now()")
                            .execute(&pool)
                            .await?;
                    }
                    IsAcknowledgedInAnOpenTransaction => one(&store).await?.ack(&mut open).await?,
                }
                let second = if own_transaction {
                    let mut tx = pool.begin().await?;
                    let second = send(lifetime, &mut tx).await?;
                    tx.commit().await?;
                    second
                } else {
                    send(lifetime, &store).await?
                };
                let case = format!("{lifetime:?} {state:?} {own_transaction}: {second:?}");
                assert_eq!(second.new, new_for.contains(&lifetime), "{case}");
                assert_eq!(second.id == first.id, !second.new, "{case}");
                open.rollback().await?;
                sqlx::query("delete from pgqrs.messages")
                    .execute(&pool)
                    .await?;
                sqlx::query("delete from pgqrs.dead_letters")
                    .execute(&pool)
                    .await?;
                sqlx::query("delete from pgqrs.archive")
                    .execute(&pool)
                    .await?;
                sqlx::query("delete from pgqrs.seen").execute(&pool).await?;
            }
        }
    }
    Ok(())
}

#[derive(Debug, Clone, Copy)]
enum Ends {
    Committed,
    RolledBack,
    StaysOpen,
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_second_message_waits_for_the_transaction_of_the_first(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let store = connect(&pool).await?;
    for ends in [Ends::Committed, Ends::RolledBack, Ends::StaysOpen] {
        for lifetime in [Unique, UntilClaimed, Within] {
            for own_transaction in [false, true] {
                let mut tx = pool.begin().await?;
                let first = send(lifetime, &mut tx).await?;
                let second = tokio::spawn({
                    let (store, pool) = (store.clone(), pool.clone());
                    async move {
                        if !own_transaction {
                            return send(lifetime, &store).await;
                        }
                        let mut tx = pool.begin().await?;
                        let second = send(lifetime, &mut tx).await;
                        if let Err(error) = &second {
                            assert!(error.aborted_transaction());
                            return second;
                        }
                        let timeout: String = sqlx::query_scalar("show lock_timeout")
                            .fetch_one(&mut *tx)
                            .await?;
                        assert_eq!(timeout, "0", "the setting is for this statement only");
                        tx.commit().await?;
                        second
                    }
                });
                crate::support::blocked_backend(&pool, "pgqrs").await;
                match ends {
                    Ends::Committed => tx.commit().await?,
                    Ends::RolledBack => tx.rollback().await?,
                    Ends::StaysOpen => {
                        let second = second.await?;
                        let case = format!("{lifetime:?} {own_transaction}: {second:?}");
                        let Err(Error::KeyHeld { queue }) = &second else {
                            panic!("{case}");
                        };
                        assert_eq!(queue.as_str(), "tasks");
                        assert!(second.is_err_and(|error| error.is_retryable()));
                        tx.rollback().await?;
                        continue;
                    }
                }
                let second = second.await??;
                let case = format!("{ends:?} {lifetime:?} {own_transaction}: {second:?}");
                let committed = matches!(ends, Ends::Committed);
                assert_eq!(second.new, !committed, "{case}");
                assert_eq!(second.id == first.id, committed, "{case}");
                assert_eq!(second.same_payload, committed.then_some(true), "{case}");
                assert_eq!(count(&pool).await?, 1, "{case}");
                sqlx::query("delete from pgqrs.messages")
                    .execute(&pool)
                    .await?;
                sqlx::query("delete from pgqrs.seen").execute(&pool).await?;
            }
        }
    }
    Ok(())
}
