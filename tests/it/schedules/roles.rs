//! What the roles can do with schedules.

use pgqrs::Access;

use super::*;
use crate::grants::as_role;

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn each_role_fires_schedules_and_a_consumer_installs_none(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let schedule = || {
        pgqrs::schedule("poll", "tasks")
            .every(Duration::from_secs(60))
            .message(&1)
    };
    schedule().install(&store).await?;
    for (sent, access) in [Access::Consumer, Access::Producer, Access::Operator]
        .into_iter()
        .enumerate()
    {
        as_role(&pool, Some(access), async |store, _| {
            due(&pool, "poll").await?;
            let scheduler = store.scheduler().await?;
            until("it is sent", async || {
                count(&pool)
                    .await
                    .is_ok_and(|count| count == sent as i64 + 1)
            })
            .await;
            drop(scheduler);
            let installed = schedule().version(9).install(store).await;
            assert_eq!(
                installed.is_ok(),
                access == Access::Producer,
                "{access:?}: {installed:?}"
            );
            let deleted = pgqrs::admin(store).delete_schedule("other").await;
            let may_delete = matches!(deleted, Err(Error::ScheduleNotFound { .. }));
            assert_eq!(
                may_delete,
                access != Access::Consumer,
                "{access:?}: {deleted:?}"
            );
            Ok(())
        })
        .await?;
    }
    as_role(&pool, Some(Access::Consumer), async |store, _| {
        // It can't send what is due to no schedule, nor another payload.
        let refused = pgqrs::enqueue()
            .message(&2)
            .to("tasks")
            .execute(store)
            .await;
        assert!(
            matches!(refused, Err(Error::PermissionDenied { .. })),
            "{refused:?}"
        );
        Ok(())
    })
    .await?;
    as_role(&pool, None, async |store, _| {
        let refused = store.scheduler().await.map(drop);
        assert!(
            matches!(refused, Err(Error::PermissionDenied { .. })),
            "{refused:?}"
        );
        Ok(())
    })
    .await?;
    Ok(())
}
