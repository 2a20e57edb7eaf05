//! `store.schedules("billing").replace([..])`: an owner's schedules, exactly these.

use pgqrs::{Admin, ScheduleSpec};

use super::*;

fn spec(name: &str, payload: u32, version: u32) -> ScheduleSpec {
    let schedule = pgqrs::schedule(name, "tasks").every(Duration::from_secs(60));
    schedule.message(&payload).version(version).spec()
}

async fn names(admin: &Admin) -> pgqrs::Result<Vec<String>> {
    let schedules = admin.schedules().await?.into_iter();
    let of = |schedule: pgqrs::ScheduleInfo| {
        format!(
            "{}.{}.{}",
            schedule.owner.unwrap_or_default(),
            schedule.name,
            schedule.version
        )
    };
    Ok(schedules.map(of).collect())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn an_owners_schedules_become_exactly_these_and_no_other_owners_change(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(&pool, &["tasks", "mails"]).await?;
    let admin = pgqrs::admin(&store);
    let alone = pgqrs::schedule("alone", "tasks")
        .cron(cron!("@daily"))
        .message(&1);
    alone.install(&store).await?;
    store
        .schedules("shipping")
        .replace([spec("s", 1, 1)])
        .await?;
    const MAILS: Queue<String> = Queue::new("mails");
    let changes = store
        .schedules("billing")
        .replace([
            spec("b", 1, 1),
            // Of another type.
            pgqrs::schedule("a", MAILS)
                .cron(cron!("@hourly"))
                .message(&"x".to_owned())
                .spec(),
        ])
        .await?;
    assert_eq!((changes.created.len(), changes.deleted.len()), (2, 0));
    assert_eq!(
        names(&admin).await?,
        ["billing.a.1", ".alone.1", "billing.b.1", "shipping.s.1"]
    );

    let changes = store
        .schedules("billing")
        .replace([spec("b", 2, 2), spec("c", 1, 1)])
        .await?;
    assert_eq!(changes.created, ["c"]);
    assert_eq!(changes.replaced, ["b"]);
    assert_eq!(changes.deleted, ["a"]);
    assert_eq!(
        names(&admin).await?,
        [".alone.1", "billing.b.2", "billing.c.1", "shipping.s.1"]
    );
    // The same once more.
    let changes = store
        .schedules("billing")
        .replace([spec("b", 2, 2), spec("c", 1, 1)])
        .await?;
    assert_eq!(
        (
            changes.created.len(),
            changes.replaced.len(),
            changes.deleted.len()
        ),
        (0, 0, 0)
    );
    assert!(!changes.is_outdated);
    let changes = store.schedules("billing").version(3).replace([]).await?;
    assert_eq!(changes.deleted.len(), 2);
    assert_eq!(names(&admin).await?, [".alone.1", "shipping.s.1"]);
    Ok(())
}

/// The old version of a service starts again while the new one runs.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn an_older_deployment_changes_nothing_of_a_newer_ones(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let admin = pgqrs::admin(&store);
    let old = || {
        store
            .schedules("billing")
            .version(7)
            .replace([spec("a", 1, 1), spec("b", 1, 1)])
    };
    let new = || {
        store
            .schedules("billing")
            .version(8)
            .replace([spec("a", 2, 1), spec("c", 2, 1)])
    };
    assert_eq!(old().await?.created.len(), 2);
    assert!(!new().await?.is_outdated);
    for _ in 0..2 {
        let changes = old().await?;
        assert!(changes.is_outdated, "{changes:?}");
        assert_eq!(names(&admin).await?, ["billing.a.8", "billing.c.8"]);
        new().await?;
    }
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_name_of_another_owner_is_refused_and_nothing_is_changed(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let admin = pgqrs::admin(&store);
    store
        .schedules("billing")
        .replace([spec("a", 1, 1)])
        .await?;
    spec_alone(&store, "alone").await?;
    let before = names(&admin).await?;
    let taken = |outcome: Result<(), Error>, by: Option<&str>| {
        assert!(
            matches!(&outcome, Err(Error::ScheduleTaken { owner, .. }) if owner.as_deref() == by),
            "{outcome:?}"
        );
    };
    let others = store
        .schedules("shipping")
        .replace([spec("b", 1, 9), spec("a", 1, 9)]);
    taken(others.await.map(drop), Some("billing"));
    let others = store
        .schedules("shipping")
        .replace([spec("b", 1, 9), spec("alone", 1, 9)]);
    taken(others.await.map(drop), None);
    taken(spec_alone(&store, "a").await, Some("billing"));
    taken(
        admin.set_schedule(spec("a", 1, 9)).await.map(drop),
        Some("billing"),
    );
    let missing = pgqrs::schedule("c", "no such queue")
        .cron(cron!("@daily"))
        .message(&1)
        .spec();
    let missing = store
        .schedules("billing")
        .replace([spec("a", 1, 9), missing])
        .await;
    assert!(
        matches!(missing, Err(Error::QueueNotFound { .. })),
        "{missing:?}"
    );
    let twice = store
        .schedules("billing")
        .replace([spec("d", 1, 1), spec("d", 2, 2)])
        .await;
    assert!(
        matches!(twice, Err(Error::InvalidSetting { .. })),
        "{twice:?}"
    );
    assert_eq!(names(&admin).await?, before);
    Ok(())
}

async fn spec_alone(store: &Store, name: &str) -> Result<(), Error> {
    let schedule = pgqrs::schedule(name, "tasks")
        .every(Duration::from_secs(60))
        .message(&1);
    schedule.version(9).install(store).await.map(drop)
}

/// Many processes of a deployment start at once.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn many_that_install_the_same_at_once_all_succeed(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let mut all = tokio::task::JoinSet::new();
    for round in 0..20 {
        let store = store.clone();
        all.spawn(async move {
            let mut specs: Vec<_> = (0..30)
                .map(|n| spec(&format!("s{n}"), round, round / 4 + 1))
                .collect();
            if round % 2 == 0 {
                specs.reverse();
            }
            store.schedules("billing").replace(specs).await
        });
    }
    while let Some(done) = all.join_next().await {
        done??;
    }
    let versions: Vec<i32> = sqlx::query_scalar("select distinct version from pgqrs.schedules")
        .fetch_all(&pool)
        .await?;
    assert_eq!(versions, [5]);
    Ok(())
}
