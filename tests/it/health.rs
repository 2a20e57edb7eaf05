//! `admin.health()`: what it finds, with real sessions and workers.

mod roles;
mod servers;

use std::{env, time::Duration};

use pgqrs::{
    Finding, FindingKind, Health, HealthPart, Horizon, HorizonHolder, HorizonSource, SchemaVersion,
    Severity, Store,
};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, PgPool};

use crate::{
    grants::run,
    support::{TestResult, age, claim, send, until, url, with_queues},
};

/// The finding of a kind that a test is about.
#[track_caller]
fn one<'a>(health: &'a Health, kind: &str) -> &'a Finding {
    let mut of_kind = health
        .findings
        .iter()
        .filter(|finding| finding.kind.as_str() == kind);
    let found = of_kind
        .next()
        .unwrap_or_else(|| panic!("no {kind}:\n{health}"));
    assert!(of_kind.next().is_none(), "more than one {kind}:\n{health}");
    found
}

#[track_caller]
fn none(health: &Health, kind: &str) {
    let found = health
        .findings
        .iter()
        .any(|finding| finding.kind.as_str() == kind);
    assert!(!found, "{kind}:\n{health}");
}

/// A session with an open snapshot, which has said `query` last.
async fn snapshot(url: &str, query: &'static str) -> sqlx::Result<(PgConnection, i32)> {
    let mut session = PgConnection::connect(url).await?;
    session
        .execute("begin isolation level repeatable read")
        .await?;
    let pid = sqlx::query_scalar("select pg_backend_pid()")
        .fetch_one(&mut session)
        .await?;
    session.execute(query).await?;
    Ok((session, pid))
}

#[track_caller]
fn horizon(health: &Health) -> &Horizon {
    health.horizon.as_ref().expect("it is visible")
}

fn is_session(holder: &HorizonHolder, wanted: i32) -> bool {
    matches!(holder.source, HorizonSource::Session { pid, .. } if pid == wanted)
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_new_database_has_no_findings_and_all_facts(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["emails", "tasks"]).await?;
    send(&store, &[1, 2]).await?;
    let consumer = pgqrs::consumer("tasks").identity("my-service", 3001);
    let _consumer = consumer.create(&store).await?;
    let health = pgqrs::admin(&store).health().await?;
    assert_eq!(health.findings, [], "{health}");
    let queues: Vec<_> = health
        .queues
        .iter()
        .map(|queue| {
            (
                queue.stats.queue.as_str(),
                queue.stats.ready.value,
                queue.consumers,
            )
        })
        .collect();
    assert_eq!(queues, [("emails", 0, 0), ("tasks", 2, 1)]);
    assert!(matches!(
        health.schema,
        Some(SchemaVersion::UpToDate { .. })
    ));
    let tables: Vec<_> = health
        .tables
        .iter()
        .filter(|table| !table.toast)
        .map(|table| table.name.as_str())
        .collect();
    assert_eq!(
        tables,
        [
            "_sqlx_migrations",
            "archive",
            "dead_letters",
            "firings",
            "group_rates",
            "groups",
            "messages",
            "queues",
            "rates",
            "schedules",
            "seen",
            "slots",
            "workers",
            "writers"
        ]
    );
    let messages = health.tables.iter().find(|table| table.name == "messages");
    let vacuum_at = messages.expect("it is there").vacuum_at;
    // As the schema sets it, and not the server: a thousand, and a fiftieth of the rows.
    assert!((1_000..1_010).contains(&vacuum_at), "{vacuum_at}");
    assert!(health.connections.expect("visible").used >= 1);
    assert!(
        health.connections.expect("visible").limit >= health.connections.expect("visible").used
    );
    assert!(health.autovacuum);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn an_idle_transaction_that_holds_back_vacuum_is_found_with_its_pid_and_statement(
    pool: PgPool,
) -> TestResult {
    let store = Store::from(pool.clone());
    let admin = pgqrs::admin(&store);
    let (mut session, pid) = snapshot(
        &url(&pool),
        "select\n  'a statement', repeat('x', 200)       -- xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
    )
    .await?;
    // Of another database: it holds back nothing here.
    let (_elsewhere, other_pid) = snapshot(&env::var("DATABASE_URL")?, "select 1").await?;
    let health = admin.health().await?;
    let holders = &horizon(&health).holders;
    let holder = holders.iter().find(|holder| is_session(holder, pid));
    let holder = holder.unwrap_or_else(|| panic!("{health}"));
    assert!(
        !holders.iter().any(|holder| is_session(holder, other_pid)),
        "{health}"
    );
    let HorizonSource::Session { state, query, .. } = &holder.source else {
        panic!("{holder:?}");
    };
    assert_eq!(state.as_deref(), Some("idle in transaction"));
    let query = query.as_deref().expect("a superuser sees it");
    assert!(
        query.starts_with("select 'a statement', repeat('x', 200) -- xx"),
        "{query}"
    );
    assert!(query.len() <= 120, "{query}");
    assert!(holder.held_for.is_some());

    session.execute("rollback").await?;
    let holders = horizon(&admin.health().await?).holders.clone();
    assert!(!holders.iter().any(|holder| is_session(holder, pid)));
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_transaction_that_has_written_holds_back_vacuum_without_a_snapshot(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let mut writing = pool.begin().await?;
    writing
        .execute("update pgqrs.queues set max_attempts = 7")
        .await?;
    let pid: i32 = sqlx::query_scalar("select pg_backend_pid()")
        .fetch_one(&mut *writing)
        .await?;
    let health = pgqrs::admin(&store).health().await?;
    assert!(
        horizon(&health)
            .holders
            .iter()
            .any(|holder| is_session(holder, pid)),
        "{health}"
    );
    writing.rollback().await?;
    Ok(())
}

/// Uses up transaction ids: each of these subtransactions has one.
async fn pass_transactions(pool: &PgPool, count: u32) -> TestResult {
    let burn = format!(
        "do $$ begin
             for n in 1..{count} loop
                 begin
                     perform pg_logical_emit_message(true, '', '');
                 exception when division_by_zero then null;
                 end;
             end loop;
         end $$"
    );
    sqlx::raw_sql(AssertSqlSafe(burn)).execute(pool).await?;
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn the_remedy_of_an_old_snapshot_ends_it(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let admin = pgqrs::admin(&store);
    let (_session, pid) = snapshot(&url(&pool), "select 1").await?;
    none(&admin.health().await?, "horizon_held");
    pass_transactions(&pool, 1_000_000).await?;
    let health = admin.health().await?;
    let finding = one(&health, "horizon_held");
    assert_eq!(finding.severity, Severity::Warning);
    let FindingKind::HorizonHeld(holder) = &finding.kind else {
        panic!("{finding:?}");
    };
    assert!(is_session(holder, pid), "{health}");
    assert!(holder.transactions >= 1_000_000, "{holder:?}");
    assert!(horizon(&health).transactions() >= 1_000_000);
    let remedy = format!("select pg_terminate_backend({pid})");
    assert!(finding.remedy.contains(&remedy), "{}", finding.remedy);
    sqlx::raw_sql(AssertSqlSafe(remedy)).execute(&pool).await?;
    until("it is gone", async || {
        let health = admin.health().await.expect("read");
        health.severity().is_none()
    })
    .await;
    Ok(())
}

#[sqlx::test(migrations = false)]
async fn a_database_without_the_schema_is_a_finding_and_no_error(pool: PgPool) -> TestResult {
    let store = Store::from(pool.clone());
    let health = pgqrs::admin(&store).health().await?;
    assert_eq!(health.severity(), Some(Severity::Critical));
    let finding = one(&health, "schema");
    assert!(finding.remedy.contains("install()"), "{}", finding.remedy);
    assert_eq!(health.findings.len(), 1, "{health}");
    assert!(health.queues.is_empty() && health.tables.is_empty());
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_schema_of_another_version_is_found(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let admin = pgqrs::admin(&store);
    // Of one migration alone, whose version is changed.
    let others = "delete from pgqrs._sqlx_migrations
                  where version < (select max(version) from pgqrs._sqlx_migrations)";
    sqlx::query(others).execute(&pool).await?;
    for (version, severity) in [(0_i64, Severity::Warning), (999, Severity::Info)] {
        sqlx::query("update pgqrs._sqlx_migrations set version = $1")
            .bind(version)
            .execute(&pool)
            .await?;
        let health = admin.health().await?;
        let finding = one(&health, "schema");
        assert_eq!(finding.severity, severity, "{health}");
        let text = finding.to_string();
        assert!(text.contains(&format!("version {version}")), "{text}");
    }
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn messages_that_wait_for_long_are_found_with_their_consumers(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks", "emails"]).await?;
    let admin = pgqrs::admin(&store);
    let ids = send(&store, &[1, 2]).await?;
    none(&admin.health().await?, "backlog");
    for (minutes, severity) in [(6, Severity::Warning), (60, Severity::Critical)] {
        age(&pool, ids[0], Duration::from_secs(minutes * 60)).await?;
        let health = admin.health().await?;
        let finding = one(&health, "backlog");
        assert_eq!(finding.severity, severity, "{health}");
        assert!(
            finding.remedy.contains("start a consumer"),
            "{}",
            finding.remedy
        );
    }
    let consumer = pgqrs::consumer("tasks").create(&store).await?;
    let health = admin.health().await?;
    let FindingKind::Backlog(queue) = &one(&health, "backlog").kind else {
        panic!("{health}");
    };
    assert_eq!((queue.consumers, queue.suspended_consumers), (1, 0));
    pgqrs::Worker::suspend(&*consumer).await?;
    let health = admin.health().await?;
    let remedy = &one(&health, "backlog").remedy;
    assert!(remedy.contains("resume_worker"), "{remedy}");
    // Nothing waits once they are leased.
    claim(&store, 2).await?;
    none(&admin.health().await?, "backlog");
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_worker_whose_heartbeat_stopped_is_found_until_it_is_removed(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let admin = pgqrs::admin(&store);
    let create = async |port| {
        let consumer = pgqrs::consumer("tasks").identity("my-service", port);
        consumer.create(&store).await
    };
    let crashed = create(1).await?;
    let id = crashed.id();
    none(&admin.health().await?, "missed_heartbeats");
    sqlx::query("update pgqrs.workers set heartbeat_at = heartbeat_at - interval '3 hours'")
        .execute(&pool)
        .await?;
    let health = admin.health().await?;
    let finding = one(&health, "missed_heartbeats");
    assert_eq!(finding.severity, Severity::Warning);
    let FindingKind::MissedHeartbeats(stale) = &finding.kind else {
        panic!("{finding:?}");
    };
    assert_eq!((stale.worker.id, stale.worker.port), (id, 1));
    assert!(stale.last_heartbeat >= Duration::from_secs(3 * 60 * 60));
    assert!(
        finding.remedy.contains(&format!("remove_worker({id})")),
        "{}",
        finding.remedy
    );
    // It is less urgent while another one does its work.
    let _running = create(2).await?;
    let health = admin.health().await?;
    assert_eq!(one(&health, "missed_heartbeats").severity, Severity::Info);
    assert_eq!(health.queues[0].consumers, 1);
    admin.remove_worker(id).await?;
    none(&admin.health().await?, "missed_heartbeats");
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_table_without_autovacuum_and_its_dead_rows_are_found(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let admin = pgqrs::admin(&store);
    run(
        &pool,
        "alter table pgqrs.messages set (autovacuum_enabled = off, toast.autovacuum_enabled = off)"
            .to_owned(),
    )
    .await?;
    let health = admin.health().await?;
    let off = one(&health, "autovacuum_off");
    assert_eq!(off.severity, Severity::Warning);
    let both = "alter table pgqrs.messages reset (autovacuum_enabled, toast.autovacuum_enabled)";
    assert_eq!(off.remedy, format!("run `{both}`"));
    let only = "alter table pgqrs.messages reset (autovacuum_enabled)";
    run(&pool, only.to_owned()).await?;
    let health = admin.health().await?;
    let off = one(&health, "autovacuum_off");
    let of_large = "run `alter table pgqrs.messages reset (toast.autovacuum_enabled)`";
    assert_eq!(off.remedy, of_large);
    run(
        &pool,
        "alter table pgqrs.messages set (autovacuum_enabled = off)".to_owned(),
    )
    .await?;

    // Ten times as many as autovacuum would start at.
    sqlx::raw_sql(
        "insert into pgqrs.messages (queue_id, priority, payload) select 1, 2, '1' from generate_series(1, 15000);
         delete from pgqrs.messages",
    )
    .execute(&pool)
    .await?;
    until("the server has counted the dead rows", async || {
        let health = admin.health().await.expect("read");
        health
            .findings
            .iter()
            .any(|finding| finding.kind.as_str() == "dead_rows")
    })
    .await;
    let health = admin.health().await?;
    assert_eq!(one(&health, "autovacuum_off").severity, Severity::Critical);
    let dead = one(&health, "dead_rows");
    assert_eq!(dead.severity, Severity::Warning);
    assert!(
        dead.remedy.contains("vacuum (verbose) pgqrs.messages"),
        "{}",
        dead.remedy
    );
    run(&pool, both.to_owned()).await?;
    run(&pool, "vacuum pgqrs.messages".to_owned()).await?;
    until("the server has counted the vacuum", async || {
        admin.health().await.expect("read").severity().is_none()
    })
    .await;
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn while_a_table_is_locked_the_rest_is_returned_and_who_locks_it(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let mut locking = pool.begin().await?;
    locking.execute("lock table pgqrs.messages").await?;
    let health = pgqrs::admin(&store).health().await?;
    let finding = one(&health, "not_visible");
    assert_eq!(finding.severity, Severity::Warning);
    assert!(
        matches!(
            &finding.kind,
            FindingKind::NotVisible {
                what: HealthPart::Queues,
                reason: Some(_)
            }
        ),
        "{health}"
    );
    assert!(health.schema.is_some() && !health.tables.is_empty());
    // Its remedy is a statement that runs, and finds the lock.
    let statement = finding.remedy.split('`').nth(1).expect("it names one");
    let locks: Vec<(i32, String, String, String)> = sqlx::query_as(AssertSqlSafe(
        statement.replace("l.relation::regclass", "l.relation::regclass::text"),
    ))
    .fetch_all(&pool)
    .await?;
    let is_ours = |(_, mode, table, _): &(i32, String, String, String)| {
        mode == "AccessExclusiveLock" && table == "pgqrs.messages"
    };
    assert!(locks.iter().any(is_ours), "{locks:?}");
    locking.rollback().await?;
    Ok(())
}
