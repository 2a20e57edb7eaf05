//! Roles with no more privileges than they need: what each can do, and what is refused it.

use std::time::Duration;

use pgqrs::{
    Access, Admin, ConnectOptions, Error, MessageState, Outcome, Page, SchemaVersion, Store,
};
use sqlx::{AssertSqlSafe, PgPool};

use crate::support::{
    self, TestResult, claim,
    consumers::{consumer, drained, start},
    count, expire, one, places, url, with_queues,
};

/// A role with a name of its own, since all tests share a server, and a store that connects as it.
pub(crate) async fn as_role(
    pool: &PgPool,
    access: Option<Access>,
    work: impl AsyncFnOnce(&Store, &str) -> TestResult,
) -> TestResult {
    let role = support::access::role(pool);
    // A run that failed may have left it.
    run(pool, format!("drop role if exists \"{role}\"")).await?;
    let mut statements = format!("create role \"{role}\" login password 'role';");
    if let Some(access) = access {
        statements += &access.grants(&role);
    }
    run(pool, statements).await?;
    let outcome = async {
        let store = pgqrs::connect_with(options(pool, &role, access.is_some())?).await?;
        let outcome = work(&store, &role).await;
        store.pool().close().await;
        outcome
    }
    .await;
    run(
        pool,
        format!("drop owned by \"{role}\"; drop role \"{role}\""),
    )
    .await?;
    outcome
}

pub(crate) async fn run(pool: &PgPool, statements: String) -> TestResult {
    sqlx::raw_sql(AssertSqlSafe(statements))
        .execute(pool)
        .await?;
    Ok(())
}

fn options(
    pool: &PgPool,
    role: &str,
    install: bool,
) -> Result<ConnectOptions, Box<dyn std::error::Error>> {
    let mut url: url::Url = url(pool).parse()?;
    url.set_username(role).map_err(|()| "a URL with a user")?;
    url.set_password(Some("role"))
        .map_err(|()| "a URL with a password")?;
    Ok(ConnectOptions::builder()
        .url(url.as_str())
        .install(install)
        .build())
}

#[track_caller]
fn denied<T: std::fmt::Debug>(outcome: pgqrs::Result<T>, what: &str) {
    assert!(
        matches!(outcome, Err(Error::PermissionDenied { .. })),
        "{what}: {outcome:?}"
    );
}

/// What only the schema's owner can do.
async fn denied_to_all(admin: &Admin) {
    denied(admin.create_queue("other").await, "create a queue");
    denied(admin.delete_queue("tasks").await, "delete a queue");
    let options = pgqrs::QueueOptions::builder().max_attempts(3).build();
    denied(
        admin.configure_queue("tasks", options).await,
        "configure a queue",
    );
    denied(
        admin.purge_archive("tasks", Duration::ZERO).await,
        "purge the archive",
    );
}

async fn denied_statement(store: &Store, statement: &'static str) {
    let refused = sqlx::raw_sql(statement).execute(store.pool()).await;
    let code = refused
        .as_ref()
        .err()
        .and_then(|error| Some(error.as_database_error()?.code()?.into_owned()));
    assert_eq!(code.as_deref(), Some("42501"), "{statement}: {refused:?}");
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_producer_sends_and_manages_its_worker_and_reads_no_payload(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks", "others"]).await?;
    as_role(&pool, Some(Access::Producer), async |store, _| {
        let admin = pgqrs::admin(store);
        assert!(matches!(
            admin.verify().await?,
            SchemaVersion::UpToDate { .. }
        ));
        assert_eq!(store.queue("tasks").await?.name().as_str(), "tasks");
        // One, many, more than one statement's, in one transaction, and on a pool.
        support::send(store, &[1]).await?;
        support::send(store, &[2, 3]).await?;
        support::send(store, &vec![4; 1_500]).await?;
        let mut transaction = store.pool().begin().await?;
        pgqrs::enqueue()
            .message(&5)
            .to("tasks")
            .execute(&mut transaction)
            .await?;
        transaction.commit().await?;
        pgqrs::enqueue()
            .message(&6)
            .to("others")
            .execute(store.pool())
            .await?;
        let producer = pgqrs::producer("my-service", 3000, "tasks")
            .create(store)
            .await?;
        pgqrs::enqueue()
            .message(&7)
            .worker(&*producer)
            .execute(store)
            .await?;
        producer.heartbeat().await?;
        producer.suspend().await?;
        let refused = pgqrs::enqueue()
            .message(&8)
            .worker(&*producer)
            .execute(store)
            .await;
        assert!(
            matches!(refused, Err(Error::WorkerSuspended { .. })),
            "{refused:?}"
        );
        producer.resume().await?;
        producer.shutdown().await?;
        assert_eq!(count(&pool).await?, 1_506);
        for new in [true, false] {
            let hour = Duration::from_secs(3600);
            let batch = [
                pgqrs::message(&1).unique("a"),
                pgqrs::message(&2).once_within("a", hour),
                pgqrs::message(&3).unique_until_claimed("a").or_keep(),
            ];
            let sent = pgqrs::enqueue().to("others").batch(batch);
            let sent = sent.execute(store).await?;
            assert!(sent.outcomes().all(|sent| sent.new == new));
        }
        assert_eq!(count(&pool).await?, 1_509);
        let replace = pgqrs::enqueue().message(&4).to("others");
        let replace = replace.unique_until_claimed("a").or_replace();
        denied(replace.execute(store).await, "change what waits");

        denied_to_all(&admin).await;
        denied(claim(store, 1).await, "claim");
        denied(
            admin.messages("tasks", Page::default()).await,
            "list messages",
        );
        denied(admin.purge_queue("tasks").await, "purge a queue");
        denied(
            admin.dead_letters("tasks", Page::default()).await,
            "list dead letters",
        );
        denied(admin.requeue_all("tasks", Duration::ZERO).await, "requeue");
        for statement in [
            "select payload from pgqrs.messages",
            "update pgqrs.messages set priority = 0",
            "delete from pgqrs.messages",
            "truncate pgqrs.messages",
            "select payload from pgqrs.archive",
            "delete from pgqrs._sqlx_migrations",
            "create table pgqrs.mine (id int)",
        ] {
            denied_statement(store, statement).await;
        }
        Ok(())
    })
    .await?;
    assert_eq!(count(&pool).await?, 1_509);
    Ok(())
}

/// As `Access` says: roles that use one schema have to trust each other that far, and no further.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_producer_can_suspend_anothers_worker_and_neither_reads_nor_changes_what_it_sent(
    pool: PgPool,
) -> TestResult {
    let owner = with_queues(&pool, &["tasks"]).await?;
    let theirs = pgqrs::producer("their-service", 3000, "tasks");
    let theirs = theirs.create(&owner).await?;
    let send = || pgqrs::enqueue().message(&"secret").worker(&*theirs);
    let id = send().execute(&owner).await?[0];
    let before = support::everything(&pool).await?;
    as_role(&pool, Some(Access::Producer), async |store, _| {
        let admin = pgqrs::admin(store);
        admin.suspend_worker(theirs.id()).await?;
        let refused = send().execute(&owner).await;
        assert!(
            matches!(refused, Err(Error::WorkerSuspended { .. })),
            "{refused:?}"
        );
        admin.resume_worker(theirs.id()).await?;
        let later = support::now(&pool).await? + Duration::from_secs(60);
        denied(admin.reschedule("tasks", id, later).await, "reschedule");
        denied(admin.cancel("tasks", id).await, "cancel");
        denied(admin.release(theirs.id()).await, "release");
        denied_statement(store, "select * from pgqrs.messages").await;
        Ok(())
    })
    .await?;
    assert_eq!(support::everything(&pool).await?, before);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_consumer_handles_and_settles_and_touches_no_queue(pool: PgPool) -> TestResult {
    let owner = with_queues(&pool, &["tasks"]).await?;
    support::send(&owner, &["done", "archived", "retried", "dead"]).await?;
    as_role(&pool, Some(Access::Consumer), async |store, _| {
        let consumer = consumer().create(store).await?;
        let running = start(consumer, |delivery| {
            let outcome = match (delivery.raw_payload(), delivery.attempt()) {
                (r#""archived""#, _) => Outcome::Archive,
                (r#""retried""#, 1) => Outcome::Retry("again".to_owned()),
                (r#""dead""#, _) => Outcome::DeadLetter("for ever".into()),
                _ => Outcome::Done,
            };
            std::future::ready(outcome)
        });
        drained(&pool).await;
        let report = running.stop().await?;
        assert_eq!(
            (report.done, report.archived, report.retried, report.dead),
            (2, 1, 1, 1)
        );
        assert_eq!(places(&pool).await?, (0, 1, 1));

        // Without the loop; and a message whose attempts are used up.
        support::send(&owner, &["last"]).await?;
        let delivery = one(store).await?;
        delivery.extend(Duration::from_secs(60)).await?;
        delivery.nack(store).await?;
        sqlx::query("update pgqrs.messages set attempt = 100, visible_at = now(), lease_until = '-infinity'")
            .execute(&pool)
            .await?;
        assert!(claim(store, 1).await?.is_empty());
        assert_eq!(places(&pool).await?, (0, 2, 1));

        let admin = pgqrs::admin(store);
        denied_to_all(&admin).await;
        denied(admin.pause_queue("tasks").await, "pause a queue");
        denied(admin.close_queue("tasks").await, "close a queue");
        denied(support::send(store, &["mine"]).await, "enqueue");
        let own = pgqrs::enqueue().message(&1).to("tasks");
        denied(own.execute(store.pool()).await, "enqueue on a pool");
        denied(
            admin.dead_letters("tasks", Page::default()).await,
            "list dead letters",
        );
        denied(
            admin.archived("tasks", Page::default()).await,
            "list the archive",
        );
        denied(admin.requeue_all("tasks", Duration::ZERO).await, "requeue");
        for statement in [
            "insert into pgqrs.queues (name) values ('other')",
            "update pgqrs.messages set payload = '1'",
            "update pgqrs.messages set queue_id = 1",
            "delete from pgqrs.dead_letters",
            "delete from pgqrs.archive",
            "truncate pgqrs.messages",
        ] {
            denied_statement(store, statement).await;
        }
        Ok(())
    })
    .await
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn an_operator_reads_and_requeues_and_deletes_no_message(pool: PgPool) -> TestResult {
    let owner = with_queues(&pool, &["tasks"]).await?;
    let ids = support::send(&owner, &[1, 2, 3]).await?;
    let mut deliveries = claim(&owner, 2).await?;
    let (dead, archived) = (deliveries.remove(0), deliveries.remove(0));
    dead.dead_letter("for ever", &owner).await?;
    archived.archive(&owner).await?;
    let producer = pgqrs::producer("my-service", 3000, "tasks")
        .create(&owner)
        .await?;
    as_role(&pool, Some(Access::Operator), async |store, _| {
        let admin = pgqrs::admin(store);
        assert_eq!(admin.queues().await?.len(), 1);
        assert_eq!(admin.queue_stats("tasks").await?.total(), 1);
        assert_eq!(admin.messages("tasks", Page::default()).await?.len(), 1);
        assert_eq!(admin.archived("tasks", Page::default()).await?.len(), 1);
        assert_eq!(admin.dead_letters("tasks", Page::default()).await?.len(), 1);
        let ready = admin.search("tasks", MessageState::Ready).await?;
        assert_eq!(ready.items.len(), 1);
        assert_eq!(admin.search_dead_letters("tasks").await?.items.len(), 1);
        assert_eq!(admin.dead_letter_reasons("tasks").await?.len(), 1);
        assert!(admin.message("tasks", ids[1]).await?.is_some());
        assert!(admin.messages_with_key("tasks", "key").await?.is_empty());
        assert_eq!(admin.requeue_all("tasks", Duration::ZERO).await?.back, 1);
        assert_eq!(places(&pool).await?, (2, 0, 1));
        let later = support::now(&pool).await? + Duration::from_secs(60);
        assert!(admin.reschedule("tasks", ids[2], later).await?);
        expire(&pool, ids[2]).await?;
        assert_eq!(
            admin.workers(&pgqrs::WorkerFilter::default()).await?.len(),
            1
        );
        admin.suspend_worker(producer.id()).await?;
        admin.resume_worker(producer.id()).await?;
        assert!(admin.held_messages(producer.id()).await?.is_empty());
        admin.release(producer.id()).await?;
        admin.stop_worker(producer.id()).await?;
        admin.remove_worker(producer.id()).await?;

        admin.pause_queue("tasks").await?;
        admin.resume_queue("tasks").await?;
        admin.close_queue("tasks").await?;
        admin.reopen_queue("tasks").await?;

        denied_to_all(&admin).await;
        denied(support::send(store, &["mine"]).await, "enqueue");
        denied(claim(store, 1).await, "claim");
        denied(admin.purge_queue("tasks").await, "purge a queue");
        denied(admin.cancel("tasks", ids[2]).await, "cancel");
        denied(admin.cancel_many("tasks", &ids).await, "cancel many");
        denied(admin.edit("tasks", ids[2], &1).await, "edit");
        for statement in [
            "update pgqrs.messages set payload = '1'",
            "delete from pgqrs.messages",
            "delete from pgqrs.archive",
            "insert into pgqrs.workers (kind) values ('producer')",
        ] {
            denied_statement(store, statement).await;
        }
        Ok(())
    })
    .await?;
    assert_eq!(places(&pool).await?, (2, 0, 1));
    Ok(())
}

/// As on a managed service, which has no superuser for its users.
#[sqlx::test(migrations = false)]
async fn a_role_that_can_create_a_schema_installs_and_owns_it(pool: PgPool) -> TestResult {
    as_role(&pool, None, async |store, role| {
        let refused = pgqrs::admin(store).install().await;
        assert!(matches!(refused, Err(Error::Migrate(_))), "{refused:?}");
        let database = support::database(&pool);
        let grant = format!("grant create on database \"{database}\" to \"{role}\"");
        run(&pool, grant).await?;
        let owner = pgqrs::connect_with(options(&pool, role, true)?).await?;
        owner.queue("tasks").await?;
        support::send(&owner, &[1]).await?;
        one(&owner).await?.ack(&owner).await?;
        pgqrs::admin(&owner).delete_queue("tasks").await?;
        owner.pool().close().await;
        Ok(())
    })
    .await
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_missing_privilege_names_the_role_the_object_and_the_grants(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    as_role(&pool, None, async |store, role| {
        let named = |refused: &Error, what: &str| {
            let text = refused.to_string();
            let grants = format!("cargo xtask migrate grants --producer {role}");
            assert!(
                text.contains(&format!("role `{role}`"))
                    && text.contains(what)
                    && text.contains(&grants),
                "{text}"
            );
            assert!(!refused.is_retryable());
            matches!(refused, Error::PermissionDenied { role: Some(name), object, .. }
                if name == role && object == what)
        };
        let refused = support::send(store, &[1]).await.unwrap_err();
        assert!(named(&refused, "schema pgqrs"), "{refused:?}");
        // It can't even find out that there is nothing to install.
        let installing = pgqrs::connect_with(options(&pool, role, true)?).await;
        let refused = installing.unwrap_err();
        assert!(named(&refused, "schema pgqrs"), "{refused:?}");
        run(&pool, format!("grant usage on schema pgqrs to \"{role}\"")).await?;
        let refused = pgqrs::admin(store).queues().await.unwrap_err();
        assert!(named(&refused, "pgqrs.queues"), "{refused:?}");
        let installing = pgqrs::connect_with(options(&pool, role, true)?).await;
        let refused = installing.unwrap_err();
        assert!(named(&refused, "pgqrs._sqlx_migrations"), "{refused:?}");
        // With its GRANTs it goes on, on the same store.
        run(&pool, Access::Producer.grants(role)).await?;
        support::send(store, &[1]).await?;
        assert_eq!(count(&pool).await?, 1);
        Ok(())
    })
    .await
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_loop_that_loses_its_privileges_ends_with_the_reason(pool: PgPool) -> TestResult {
    let owner = with_queues(&pool, &["tasks"]).await?;
    as_role(&pool, Some(Access::Consumer), async |store, role| {
        let seen = support::consumers::Seen::default();
        let running = start(consumer().create(store).await?, seen.handler());
        support::send(&owner, &[1]).await?;
        drained(&pool).await;
        run(&pool, format!("revoke select on pgqrs.queues from \"{role}\"")).await?;
        let ended = tokio::time::timeout(Duration::from_secs(60), running.task).await??;
        assert!(
            matches!(&ended, Err(Error::PermissionDenied { object, .. }) if object == "pgqrs.queues"),
            "{ended:?}"
        );
        Ok(())
    })
    .await
}
