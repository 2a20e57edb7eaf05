//! `install` and `verify`: the schema, by whomever and however often.

use std::process::Stdio;

use pgqrs::{ConnectOptions, Error, SchemaVersion, Store};
use sqlx::{Connection, PgConnection, PgPool};
use tokio::process::Command;

use crate::{
    examples::compiled,
    support::{TestResult, url},
};

const TABLES: [&str; 7] = [
    "_sqlx_migrations",
    "archive",
    "dead_letters",
    "messages",
    "queues",
    "workers",
    "writers",
];

async fn tables(pool: &PgPool) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar(
        "select tablename::text from pg_tables where schemaname = 'pgqrs' order by 1",
    )
    .fetch_all(pool)
    .await
}

fn newest() -> i64 {
    pgqrs::MIGRATOR
        .iter()
        .map(|migration| migration.version)
        .max()
        .expect("there are some")
}

#[sqlx::test(migrations = false)]
async fn install_is_idempotent_and_verify_follows(pool: PgPool) -> TestResult {
    let store = Store::from(pool.clone());
    let admin = pgqrs::admin(&store);
    assert_eq!(admin.verify().await?, SchemaVersion::NotInstalled);
    for _ in 0..3 {
        admin.install().await?;
        assert_eq!(
            admin.verify().await?,
            SchemaVersion::UpToDate {
                installed: newest()
            }
        );
    }
    assert_eq!(tables(&pool).await?, TABLES);
    Ok(())
}

#[sqlx::test(migrations = false)]
async fn connect_installs_where_it_is_told_to(pool: PgPool) -> TestResult {
    let options = ConnectOptions::builder()
        .url(url(&pool))
        .install(true)
        .build();
    let store = pgqrs::connect_with(options).await?;
    store.queue("tasks").await?;
    pgqrs::enqueue()
        .message(&1)
        .to("tasks")
        .execute(&store)
        .await?;
    Ok(())
}

#[sqlx::test(migrations = false)]
async fn eight_processes_at_once_install_it_once(pool: PgPool) -> TestResult {
    let processes: Vec<_> = (0..8)
        .map(|_| {
            Command::new(compiled("install"))
                .env("DATABASE_URL", url(&pool))
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .kill_on_drop(true)
                .spawn()
        })
        .collect::<Result<_, _>>()?;
    for process in processes {
        let output = process.wait_with_output().await?;
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    assert_eq!(tables(&pool).await?, TABLES);
    let runs: i64 = sqlx::query_scalar("select count(*) from pgqrs._sqlx_migrations")
        .fetch_one(&pool)
        .await?;
    assert_eq!(runs, pgqrs::MIGRATOR.iter().count() as i64 / 2);
    Ok(())
}

#[sqlx::test(migrations = false)]
async fn it_lives_beside_an_application_with_migrations_of_its_own(pool: PgPool) -> TestResult {
    let theirs = sqlx::migrate::Migrator::with_migrations(vec![sqlx::migrate::Migration::new(
        1,
        "orders".into(),
        sqlx::migrate::MigrationType::Simple,
        sqlx::SqlSafeStr::into_sql_str("create table orders (id bigint)"),
        false,
    )]);
    let store = Store::from(pool.clone());
    theirs.run(&pool).await?;
    pgqrs::admin(&store).install().await?;
    theirs.run(&pool).await?;
    pgqrs::MIGRATOR.run(&pool).await?;
    assert_eq!(
        pgqrs::admin(&store).verify().await?,
        SchemaVersion::UpToDate {
            installed: newest()
        }
    );
    let public: i64 = sqlx::query_scalar("select count(*) from public._sqlx_migrations")
        .fetch_one(&pool)
        .await?;
    assert_eq!(public, 1);
    Ok(())
}

#[sqlx::test(migrations = false)]
async fn the_migrator_alone_is_as_good_as_install(pool: PgPool) -> TestResult {
    pgqrs::MIGRATOR.run(&pool).await?;
    let store = Store::from(pool.clone());
    assert_eq!(
        pgqrs::admin(&store).verify().await?,
        SchemaVersion::UpToDate {
            installed: newest()
        }
    );
    Ok(())
}

#[sqlx::test(migrations = false)]
async fn up_and_down_leave_only_the_history(pool: PgPool) -> TestResult {
    let store = Store::from(pool.clone());
    for _ in 0..2 {
        pgqrs::admin(&store).install().await?;
        pgqrs::MIGRATOR.undo(&pool, 0).await?;
        assert_eq!(tables(&pool).await?, ["_sqlx_migrations"]);
        assert_eq!(
            pgqrs::admin(&store).verify().await?,
            SchemaVersion::NotInstalled
        );
    }
    Ok(())
}

#[sqlx::test(migrations = false)]
async fn a_newer_schema_is_told_and_left_alone(pool: PgPool) -> TestResult {
    let store = Store::from(pool.clone());
    let admin = pgqrs::admin(&store);
    admin.install().await?;
    sqlx::query(
        "insert into pgqrs._sqlx_migrations (version, description, success, checksum, execution_time)
         values (9999, 'from the future', true, '', 0)",
    )
    .execute(&pool)
    .await?;
    let compiled = newest();
    assert_eq!(
        admin.verify().await?,
        SchemaVersion::Newer {
            installed: 9999,
            compiled
        }
    );
    let refused = admin.install().await;
    assert!(
        matches!(
            refused,
            Err(Error::SchemaNewer {
                installed: 9999,
                ..
            })
        ),
        "{refused:?}"
    );
    Ok(())
}

#[sqlx::test(migrations = false)]
async fn an_older_schema_is_told_and_upgraded(pool: PgPool) -> TestResult {
    let store = Store::from(pool.clone());
    let admin = pgqrs::admin(&store);
    admin.install().await?;
    // As a version from before the newest migration left it.
    pgqrs::MIGRATOR.undo(&pool, newest() - 1).await?;
    if newest() == 1 {
        sqlx::query(
            "insert into pgqrs._sqlx_migrations (version, description, success, checksum, execution_time)
             values (0, 'before the first', true, '', 0)",
        )
        .execute(&pool)
        .await?;
    }
    assert_eq!(
        admin.verify().await?,
        SchemaVersion::Older {
            installed: newest() - 1,
            compiled: newest()
        }
    );
    sqlx::query("delete from pgqrs._sqlx_migrations where version = 0")
        .execute(&pool)
        .await?;
    admin.install().await?;
    assert_eq!(
        admin.verify().await?,
        SchemaVersion::UpToDate {
            installed: newest()
        }
    );
    Ok(())
}

/// A role that may use the tables and create nothing, as a service's often is.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_role_that_may_create_nothing_can_call_install_and_work(pool: PgPool) -> TestResult {
    let role = format!("service_{}", std::process::id());
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!(
        "create role {role} login password 'service';
         grant usage on schema pgqrs to {role};
         grant select, insert, update, delete on all tables in schema pgqrs to {role};
         grant usage on all sequences in schema pgqrs to {role}"
    )))
    .execute(&pool)
    .await?;
    let outcome = async {
        let mut url: url::Url = url(&pool).parse()?;
        url.set_username(&role).map_err(|()| "a URL with a user")?;
        url.set_password(Some("service"))
            .map_err(|()| "a URL with a password")?;
        let options = ConnectOptions::builder()
            .url(url.as_str())
            .install(true)
            .build();
        let store = pgqrs::connect_with(options).await?;
        store.queue("tasks").await?;
        pgqrs::enqueue()
            .message(&1)
            .to("tasks")
            .execute(&store)
            .await?;
        for delivery in pgqrs::dequeue().from("tasks").execute(&store).await? {
            delivery.ack(&store).await?;
        }
        store.pool().close().await;
        Ok::<_, Box<dyn std::error::Error>>(())
    }
    .await;
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!(
        "drop owned by {role}; drop role {role}"
    )))
    .execute(&pool)
    .await?;
    outcome
}

#[sqlx::test(migrations = false)]
async fn a_failed_install_leaves_nothing_and_no_lock(pool: PgPool) -> TestResult {
    // Something is in the way of the second table.
    sqlx::raw_sql("create schema pgqrs; create table pgqrs.workers (x int)")
        .execute(&pool)
        .await?;
    let store = Store::from(pool.clone());
    let refused = pgqrs::admin(&store).install().await;
    assert!(matches!(refused, Err(Error::Migrate(_))), "{refused:?}");
    assert_eq!(tables(&pool).await?, ["_sqlx_migrations", "workers"]);

    sqlx::raw_sql("drop table pgqrs.workers")
        .execute(&pool)
        .await?;
    let mut apart = PgConnection::connect(&url(&pool)).await?;
    pgqrs::MIGRATOR.run_direct(None, &mut apart, false).await?;
    assert_eq!(tables(&pool).await?, TABLES);
    Ok(())
}
