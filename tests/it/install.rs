//! `install` and `verify`: the schema, by whomever and however often.

use std::{process::Stdio, time::Duration};

use pgqrs::{ConnectOptions, Error, Fillfactor, SchemaVersion, Store};
use sqlx::{Connection, PgConnection, PgPool, Postgres, Transaction};
use tokio::{process::Command, time::timeout};

use crate::{
    examples::compiled,
    support::{self, TestResult, blocked_backend, until, url, with_queues},
};

const TABLES: [&str; 14] = [
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

fn is_up_to_date(version: &SchemaVersion) -> bool {
    // This runs on Citus too.
    matches!(version, SchemaVersion::UpToDate { installed, .. } if *installed == newest())
}

#[sqlx::test(migrations = false)]
async fn install_is_idempotent_and_verify_follows(pool: PgPool) -> TestResult {
    let store = Store::from(pool.clone());
    let admin = pgqrs::admin(&store);
    assert_eq!(admin.verify().await?, SchemaVersion::NotInstalled);
    let has_citus: bool =
        sqlx::query_scalar("select exists (select from pg_extension where extname = 'citus')")
            .fetch_one(&pool)
            .await?;
    let up_to_date = SchemaVersion::UpToDate {
        installed: newest(),
        on_citus: has_citus,
    };
    for _ in 0..3 {
        admin.install().await?;
        assert_eq!(admin.verify().await?, up_to_date);
    }
    assert_eq!(tables(&pool).await?, TABLES);
    Ok(())
}

#[sqlx::test(migrations = false)]
async fn connect_installs_the_schema_if_its_options_say_so(pool: PgPool) -> TestResult {
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
    assert!(is_up_to_date(&pgqrs::admin(&store).verify().await?));
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
    assert!(is_up_to_date(&pgqrs::admin(&store).verify().await?));
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
async fn a_newer_schema_is_reported_and_left_unchanged(pool: PgPool) -> TestResult {
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
async fn an_older_schema_is_reported_and_upgraded(pool: PgPool) -> TestResult {
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
    assert!(is_up_to_date(&admin.verify().await?));
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

/// Another transaction that has made the schema and isn't over: an install waits for it.
async fn in_the_way(pool: &PgPool) -> sqlx::Result<Transaction<'static, Postgres>> {
    let mut transaction = pool.begin().await?;
    sqlx::raw_sql("create schema pgqrs")
        .execute(&mut *transaction)
        .await?;
    Ok(transaction)
}

#[sqlx::test(migrations = false)]
async fn an_install_that_cannot_get_a_lock_is_tried_again_until_it_can(pool: PgPool) -> TestResult {
    let other = in_the_way(&pool).await?;
    let admin = pgqrs::admin(&Store::from(pool.clone()));
    let installing = tokio::spawn({
        let admin = admin.clone();
        async move { admin.install().await }
    });
    let first = blocked_backend(&pool, "CREATE SCHEMA").await;
    // Statements that waited behind it continued in between.
    until("another attempt waits", async || {
        blocked_backend(&pool, "CREATE SCHEMA").await != first
    })
    .await;
    other.rollback().await?;
    installing.await??;
    assert!(is_up_to_date(&admin.verify().await?));
    Ok(())
}

#[sqlx::test(migrations = false)]
async fn an_install_that_never_gets_a_lock_gives_up(pool: PgPool) -> TestResult {
    let other = in_the_way(&pool).await?;
    let admin = pgqrs::admin(&Store::from(pool.clone()));
    let refused = timeout(Duration::from_secs(120), admin.install()).await?;
    let refused = refused.unwrap_err();
    assert!(matches!(refused, Error::Migrate(_)), "{refused:?}");
    assert!(refused.is_retryable());
    other.rollback().await?;
    admin.install().await?;
    Ok(())
}

/// It would lock all tables, and all sends and claims would wait behind it for as long as it waits itself.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_way_back_gives_up_on_tables_that_are_in_use(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let mut open = pool.begin().await?;
    let enqueue = pgqrs::enqueue().message(&1).to("tasks");
    enqueue.execute(&mut open).await?;
    let mut apart = PgConnection::connect(&url(&pool)).await?;
    let sending = async {
        blocked_backend(&pool, "drop table").await;
        // Behind it.
        timeout(Duration::from_secs(30), support::send(&store, &[2])).await
    };
    let (undone, sent) = tokio::join!(pgqrs::MIGRATOR.undo(&mut apart, 0), sending);
    apart.close().await?;
    sent??;
    let refused = undone.unwrap_err();
    assert!(refused.to_string().contains("lock timeout"), "{refused}");
    open.commit().await?;
    assert_eq!(support::count(&pool).await?, 2);
    assert_eq!(tables(&pool).await?, TABLES);
    Ok(())
}

/// Refusals name them, and so do later migrations: none may depend on how a version of PostgreSQL makes up names.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn constraints_and_indexes_have_names_of_ours(pool: PgPool) -> TestResult {
    let names: Vec<String> = sqlx::query_scalar(
        "select conname::text from pg_constraint
         where connamespace = 'pgqrs'::regnamespace and contype <> 'n'
         union
         select relname::text from pg_class
         where relnamespace = 'pgqrs'::regnamespace and relkind in ('i', 'S')
         order by 1",
    )
    .fetch_all(&pool)
    .await?;
    let expected = [
        "_sqlx_migrations_pkey",
        "archive_age",
        "archive_pkey",
        "dead_letters_age",
        "dead_letters_pkey",
        "firings_pkey",
        "firings_schedule_id_fkey",
        "group_rates_pkey",
        "group_rates_rate_check",
        "groups_at_once_check",
        "groups_pkey",
        "groups_stopped",
        "joined_payload_at_most_64_mib",
        "messages_id_seq",
        "messages_max_attempts_check",
        "messages_parked",
        "messages_pkey",
        "messages_priority_check",
        "messages_ready",
        "messages_unique_key",
        "messages_waiting_key",
        "queues_archive_for_check",
        "queues_dead_letters_for_check",
        "queues_groups_at_once_check",
        "queues_groups_rate_check",
        "queues_id_seq",
        "queues_lease_check",
        "queues_max_attempts_check",
        "queues_max_running_check",
        "queues_name_key",
        "queues_pkey",
        "queues_rate_check",
        "queues_retry_max_check",
        "queues_retry_min_check",
        "rates_pkey",
        "rates_queue_id_fkey",
        "schedules_every_ms_check",
        "schedules_id_seq",
        "schedules_missed_check",
        "schedules_name_check",
        "schedules_name_key",
        "schedules_next",
        "schedules_pkey",
        "schedules_queue_id_fkey",
        "schedules_time_check",
        "seen_pkey",
        "seen_until",
        "slots_pkey",
        "slots_queue_id_fkey",
        "workers_hostname_check",
        "workers_id_seq",
        "workers_identity",
        "workers_kind_check",
        "workers_pkey",
        "workers_port_check",
        "workers_status_check",
        "writers_age",
        "writers_pkey",
    ];
    assert_eq!(names, expected);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn the_fillfactor_of_messages_can_be_changed_while_sends_are_open(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let admin = pgqrs::admin(&store);
    let fillfactor = async || -> sqlx::Result<String> {
        sqlx::query_scalar(
            "select option_value from pg_class, pg_options_to_table(reloptions)
             where oid = 'pgqrs.messages'::regclass and option_name = 'fillfactor'",
        )
        .fetch_one(&pool)
        .await
    };
    let others = "select count(*) from pg_class, pg_options_to_table(reloptions)
                  where oid = 'pgqrs.messages'::regclass";
    let others =
        async || -> sqlx::Result<i64> { sqlx::query_scalar(others).fetch_one(&pool).await };
    let before = others().await?;
    assert_eq!(fillfactor().await?, "50");
    let mut transaction = store.begin().await?;
    pgqrs::enqueue()
        .message(&1)
        .to("tasks")
        .execute(&mut transaction)
        .await?;
    for (value, expected) in [
        (Fillfactor::Percent60, "60"),
        (Fillfactor::Percent70, "70"),
        (Fillfactor::Percent80, "80"),
        (Fillfactor::Percent90, "90"),
        (Fillfactor::Percent100, "100"),
        (Fillfactor::default(), "50"),
    ] {
        admin.set_fillfactor(value).await?;
        assert_eq!(fillfactor().await?, expected);
    }
    transaction.commit().await?;
    assert_eq!(others().await?, before, "autovacuum's settings stay");
    Ok(())
}
