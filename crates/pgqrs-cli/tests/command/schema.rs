//! `install`, `migrate`, `verify`, `health`.

use sqlx::PgPool;

use crate::support::{TestResult, run, tasks};

#[sqlx::test(migrations = false)]
async fn a_schema_is_installed_once_and_verified(pool: PgPool) -> TestResult {
    let verified = run(&pool, &["verify"]).await;
    assert_eq!(verified.code, 5);
    assert_eq!(
        verified.out,
        "the schema is not installed; run `pgqrs install`\n"
    );

    let would = run(&pool, &["install", "--dry-run"]).await.done();
    assert!(would.starts_with("would apply 0001 "), "{would}");
    assert_eq!(run(&pool, &["verify"]).await.code, 5, "nothing was changed");

    let installed = run(&pool, &["install"]).await.done();
    assert!(installed.starts_with("applied "), "{installed}");
    let again = run(&pool, &["install", "--json"]).await;
    assert_eq!(again.code, 0);
    assert_eq!(again.json()["applied"], 0);

    let verified = run(&pool, &["verify", "--json"]).await;
    assert_eq!(verified.code, 0);
    assert_eq!(verified.json()["state"], "up to date");
    assert_eq!(verified.json()["on_citus"], false);
    assert_eq!(verified.json()["installed"], again.json()["installed"]);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn tables_that_are_not_local_are_reported(pool: PgPool) -> TestResult {
    // As Citus marks the tables that it manages.
    sqlx::raw_sql(
        "create function citus_truncate_trigger() returns trigger language plpgsql as 'begin return null; end';
         create trigger truncate_trigger_1 after truncate on pgqrs.messages
         execute function citus_truncate_trigger();",
    )
    .execute(&pool)
    .await?;
    let verified = run(&pool, &["verify"]).await;
    assert_eq!(verified.code, 5);
    assert!(
        verified
            .out
            .starts_with("the schema is managed by Citus: version "),
        "{verified:?}"
    );
    for part in ["these tables are not local: messages; ", "`pg_dump "] {
        assert!(verified.out.contains(part), "{verified:?}");
    }
    let refused = run(&pool, &["install"]).await.fails(1);
    assert!(
        refused.starts_with("error: Citus manages pgqrs.messages, "),
        "{refused}"
    );
    Ok(())
}

#[sqlx::test(migrations = false)]
async fn only_a_schema_that_is_there_is_migrated(pool: PgPool) -> TestResult {
    let refused = run(&pool, &["migrate"]).await.fails(1);
    assert_eq!(
        refused,
        "error: pgqrs is not installed in this database; run `pgqrs install`\n"
    );

    run(&pool, &["install"]).await.done();
    // As a version of the command that didn't know the last migration has left it.
    let last = "delete from pgqrs._sqlx_migrations
                where version = (select max(version) from pgqrs._sqlx_migrations)";
    sqlx::query(last).execute(&pool).await?;
    let verified = run(&pool, &["verify"]).await;
    assert_eq!(verified.code, 5);
    assert!(verified.out.contains("run `pgqrs migrate`"), "{verified:?}");
    let would = run(&pool, &["migrate", "--dry-run"]).await.done();
    assert_eq!(would.lines().count(), 1, "{would}");
    let sql = run(&pool, &["migrate", "--sql"]).await.done();
    assert!(sql.contains("-- Why: "), "{sql}");
    assert_eq!(run(&pool, &["verify"]).await.code, 5, "nothing was changed");
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn health_reports_what_to_act_on_and_exits_with_its_severity(pool: PgPool) -> TestResult {
    let store = tasks(&pool).await?;
    let healthy = run(&pool, &["health"]).await;
    assert!(
        healthy.out.starts_with("pgqrs in database `"),
        "{healthy:?}"
    );

    // A message that waits for an hour, and nobody who takes it.
    pgqrs::enqueue()
        .message(&1)
        .to("tasks")
        .execute(&store)
        .await?;
    sqlx::query("update pgqrs.messages set visible_at = visible_at - interval '1 hour', enqueued_at = enqueued_at - interval '1 hour'")
        .execute(&pool)
        .await?;
    let found = run(&pool, &["health"]).await;
    assert_eq!(found.code, 5, "{found:?}");
    assert!(
        found
            .out
            .contains("the oldest ready message of queue `tasks`")
    );
    assert!(found.out.contains("`pgqrs queue purge tasks`"), "{found:?}");
    assert!(!found.out.contains("admin(&store)"), "{found:?}");
    let json = run(&pool, &["health", "--json", "--fail-on", "never"]).await;
    assert_eq!(json.code, 0, "{json:?}");
    let findings = json.json()["findings"].clone();
    let backlog = findings
        .as_array()
        .expect("a list")
        .iter()
        .find(|finding| finding["kind"] == "backlog");
    assert!(backlog.is_some(), "{findings}");
    Ok(())
}
