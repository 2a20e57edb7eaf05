//! The schema itself: its migrations and its version, for `install` and `verify`. The history of migrations is in
//! `pgqrs._sqlx_migrations`, separate from the application's own `_sqlx_migrations`.

use std::{
    cmp::Ordering,
    sync::{Arc, LazyLock},
    time::Duration,
};

use sqlx::{Connection, PgConnection, migrate::Migrator, postgres::PgConnectOptions};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    admin::rows::{Fillfactor, SchemaVersion},
    error::{Error, Result},
};

/// The migrations as data, for applications that run all of their migrations in one place.
///
/// [`Admin::install`](crate::Admin::install) is the same with typed errors. Both are idempotent.
///
/// ```no_run
/// # async fn example(pool: sqlx::PgPool) -> Result<(), sqlx::migrate::MigrateError> {
/// pgqrs::MIGRATOR.run(&pool).await
/// # }
/// ```
pub static MIGRATOR: LazyLock<Migrator> = LazyLock::new(|| {
    let mut migrator = sqlx::migrate!();
    migrator.dangerous_set_table_name("pgqrs._sqlx_migrations");
    migrator.create_schema("pgqrs");
    migrator
});

/// The newest migration of this build.
fn compiled() -> i64 {
    MIGRATOR
        .iter()
        .map(|migration| migration.version)
        .max()
        .unwrap_or(0)
}

pub(crate) async fn version(connection: &mut PgConnection) -> Result<SchemaVersion> {
    let found = sqlx::query!(
        r#"
        select
            (select max(version) from pgqrs._sqlx_migrations where success) as installed,
            exists (select from pg_extension where extname = 'citus') as "on_citus!",
            -- Each table that Citus manages has this trigger. Its own catalog, `pg_dist_partition`, doesn't exist elsewhere,
            -- and couldn't be named here.
            array(
                select relname::text
                from pg_trigger
                join pg_class on pg_class.oid = tgrelid
                join pg_proc on pg_proc.oid = tgfoid
                where relnamespace = to_regnamespace('pgqrs') and proname = 'citus_truncate_trigger'
                order by relname
            ) as "distributed!"
        "#
    )
    .fetch_one(connection)
    .await
    .map_err(Error::from);
    let found = match found {
        Err(Error::NotInstalled) => return Ok(SchemaVersion::NotInstalled),
        found => found?,
    };
    let Some(installed) = found.installed else {
        return Ok(SchemaVersion::NotInstalled);
    };
    if !found.distributed.is_empty() {
        let tables = found.distributed;
        return Ok(SchemaVersion::Distributed { installed, tables });
    }
    let compiled = compiled();
    Ok(match installed.cmp(&compiled) {
        Ordering::Less => SchemaVersion::Older {
            installed,
            compiled,
        },
        Ordering::Equal => SchemaVersion::UpToDate {
            installed,
            on_citus: found.on_citus,
        },
        Ordering::Greater => SchemaVersion::Newer {
            installed,
            compiled,
        },
    })
}

/// When the server was started, in microseconds: after a restart or a fail-over this differs.
pub(crate) async fn started_at(connection: &mut PgConnection) -> Result<i64> {
    let started = sqlx::query_scalar!(r#"select pg_postmaster_start_time() as "started!""#)
        .fetch_one(connection)
        .await?;
    Ok(started.timestamp_micros())
}

/// A statement for each value: a storage parameter can't be a parameter of a statement.
pub(crate) async fn set_fillfactor(
    connection: &mut PgConnection,
    fillfactor: Fillfactor,
) -> Result<()> {
    match fillfactor {
        Fillfactor::Percent50 => sqlx::query!("alter table pgqrs.messages set (fillfactor = 50)"),
        Fillfactor::Percent60 => sqlx::query!("alter table pgqrs.messages set (fillfactor = 60)"),
        Fillfactor::Percent70 => sqlx::query!("alter table pgqrs.messages set (fillfactor = 70)"),
        Fillfactor::Percent80 => sqlx::query!("alter table pgqrs.messages set (fillfactor = 80)"),
        Fillfactor::Percent90 => sqlx::query!("alter table pgqrs.messages set (fillfactor = 90)"),
        Fillfactor::Percent100 => sqlx::query!("alter table pgqrs.messages set (fillfactor = 100)"),
    }
    .execute(connection)
    .await?;
    Ok(())
}

/// How long a migration retries to get its locks.
const RETRY_FOR: Duration = Duration::from_secs(30);

/// Pause between two attempts, so that statements queued behind the last one can run.
const PAUSE: Duration = Duration::from_millis(500);

/// Runs the missing migrations. If a lock isn't available, retries for [`RETRY_FOR`], each time on a new connection: a
/// run that fails keeps the migrator's lock until its connection is closed.
pub(crate) async fn migrate(options: &PgConnectOptions, connect_within: Duration) -> Result<()> {
    let give_up_at = Instant::now() + RETRY_FOR;
    loop {
        let mut connection = timeout(connect_within, PgConnection::connect_with(options))
            .await
            .map_err(|_| Error::AcquireTimeout {
                after: connect_within,
            })?
            .map_err(|error| Error::Connect(Arc::new(error)))?;
        let outcome = run(&mut connection).await;
        // The result doesn't matter: the server drops the session and its lock either way.
        let _ = connection.close().await;
        match outcome {
            Err(error) if error.is_migration_lock_timeout() && Instant::now() < give_up_at => {
                sleep(PAUSE).await;
            }
            outcome => {
                return outcome
                    .map_err(|error| error.of_role(|| options.get_username().to_owned()));
            }
        }
    }
}

async fn run(connection: &mut PgConnection) -> Result<()> {
    match version(connection).await? {
        // Before any DDL, so that a role that may only use the tables can also call `install`.
        SchemaVersion::UpToDate { .. } => Ok(()),
        SchemaVersion::Newer {
            installed,
            compiled,
        } => Err(Error::SchemaNewer {
            installed,
            compiled,
        }),
        SchemaVersion::Distributed { tables, .. } => Err(Error::SchemaDistributed { tables }),
        SchemaVersion::NotInstalled | SchemaVersion::Older { .. } => {
            prepare_session(connection).await?;
            MIGRATOR
                .run_direct(None, connection, false)
                .await
                .map_err(|error| Error::Migrate(Arc::new(error)))
        }
    }
}

/// Bounds each wait for a lock. Most such waits are for another installer. On a table that is in use, all later
/// statements queue up behind the waiting one. Not set as a startup parameter: PgBouncer refuses those.
///
/// On Citus, keeps the schema on the node that it is installed on: otherwise the coordinator creates parts of it on the
/// others, and these can't be given one of their own. Elsewhere the setting is unknown, and has no effect.
async fn prepare_session(connection: &mut PgConnection) -> Result<()> {
    sqlx::query!(
        "select set_config('lock_timeout', '2s', false) as of_locks,
             set_config('citus.enable_ddl_propagation', 'off', false) as of_nodes"
    )
    .fetch_all(connection)
    .await?;
    Ok(())
}
