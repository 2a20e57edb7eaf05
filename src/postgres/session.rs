//! Settings of a session or a transaction.

use std::time::Duration;

use sqlx::{Connection, PgConnection};

use crate::error::Result;

/// Makes the server check every second, during a statement, whether its client is still connected, and cancel the
/// statement if it isn't. Otherwise a statement whose caller has given up would continue, take locks, and take effect
/// much later.
///
/// A server that doesn't support this, such as before PostgreSQL 14 or on Windows, is left as it is.
pub(crate) async fn end_abandoned_statements(connection: &mut PgConnection) {
    let _ = sqlx::query!("select set_config('client_connection_check_interval', '1000', false)")
        .fetch_all(connection)
        .await;
}

/// For a transaction of several statements: if its client vanishes between them, the server ends it after `limit`.
/// Otherwise it would hold the lock of the writer's row until TCP gives up after hours, and until then the outcome of
/// the attempt could not be queried.
pub(crate) async fn limit_idle_in_transaction(
    connection: &mut PgConnection,
    limit: Duration,
) -> Result<()> {
    let milliseconds = limit.as_millis().to_string();
    sqlx::query!(
        "select set_config('idle_in_transaction_session_timeout', $1, true)",
        milliseconds,
    )
    .fetch_all(connection)
    .await?;
    Ok(())
}

/// The server cancels each statement of this transaction after `limit`, unless it would do so earlier.
pub(crate) async fn limit_statements(connection: &mut PgConnection, limit: Duration) -> Result<()> {
    let milliseconds = i64::try_from(limit.as_millis()).unwrap_or(i64::MAX);
    sqlx::query!(
        "select set_config(
             'statement_timeout',
             least(greatest($1::bigint, 1), nullif(setting::bigint, 0), 2147483647)::text,
             true
         )
         from pg_settings where name = 'statement_timeout'",
        milliseconds,
    )
    .fetch_all(connection)
    .await?;
    Ok(())
}

/// Runs statements that only read, wait at most two seconds for each lock, such as that of a migration, and run at most
/// five, such as over many dead rows. The transaction is rolled back, so that the session can go on after a statement
/// that was refused.
pub(crate) async fn read_briefly<T>(
    connection: &mut PgConnection,
    statements: impl AsyncFnOnce(&mut PgConnection) -> Result<T>,
) -> Result<T> {
    let mut transaction = connection.begin().await?;
    sqlx::query!(
        "select set_config('lock_timeout', '2s', true) as of_locks,
             set_config('statement_timeout', '5s', true) as of_statements"
    )
    .fetch_all(&mut *transaction)
    .await?;
    let outcome = statements(&mut transaction).await;
    let ended = transaction.rollback().await;
    if outcome.is_ok() {
        ended?;
    }
    outcome
}

/// Runs a statement that searches, likewise, for at most two seconds. It is planned to read along an index, whatever the
/// statistics say: they can't know where a range ends, and guess that reading and sorting all of it is cheap. What can't
/// do without a sort then seems so costly that it would be compiled, which takes longer than to run it. No other statement
/// may be run here, since a session keeps plans.
pub(crate) async fn search<T>(
    connection: &mut PgConnection,
    statements: impl AsyncFnOnce(&mut PgConnection) -> Result<T>,
) -> Result<T> {
    let mut transaction = connection.begin().await?;
    sqlx::query!(
        "select set_config('lock_timeout', '2s', true) as of_locks,
             set_config('statement_timeout', '2s', true) as of_statements,
             set_config('enable_bitmapscan', 'off', true) as of_bitmaps,
             set_config('enable_seqscan', 'off', true) as of_whole_tables,
             set_config('enable_sort', 'off', true) as of_sorts,
             set_config('jit', 'off', true) as of_compilation"
    )
    .fetch_all(&mut *transaction)
    .await?;
    let outcome = statements(&mut transaction).await;
    let ended = transaction.rollback().await;
    if outcome.is_ok() {
        ended?;
    }
    outcome
}

/// What a connection leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Server {
    Plain,
    /// A pooler such as PgBouncer.
    Pooled,
    /// The database has the extension Citus.
    Citus,
}

/// What is at the other end of a session that has set `plan_cache_mode` at start-up, as a store's connections do. If it
/// isn't set, a pooler has ignored it. A session that can't be queried counts as a plain one.
pub(crate) async fn server(connection: &mut PgConnection) -> Server {
    let found = sqlx::query!(
        r#"select current_setting('plan_cache_mode') as "plans!",
             exists (select from pg_extension where extname = 'citus') as "has_citus!""#
    )
    .fetch_one(connection)
    .await;
    match found {
        Ok(found) if found.plans != "force_generic_plan" => Server::Pooled,
        Ok(found) if found.has_citus => Server::Citus,
        _ => Server::Plain,
    }
}

/// Whether a session can write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Writability {
    pub(crate) is_standby: bool,
    pub(crate) is_read_only: bool,
}

pub(crate) async fn writability(connection: &mut PgConnection) -> Result<Writability> {
    let found = sqlx::query!(
        r#"select pg_is_in_recovery() as "is_standby!",
             current_setting('transaction_read_only') = 'on' as "is_read_only!""#
    )
    .fetch_one(connection)
    .await?;
    Ok(Writability {
        is_standby: found.is_standby,
        is_read_only: found.is_read_only,
    })
}

/// Which history of which database cluster a primary writes: each promotion begins another one, with a higher number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Timeline {
    /// Shared by a primary and its standbys.
    pub(crate) system: i64,
    pub(crate) number: i32,
}

/// That of a primary. A standby, and a service that doesn't show its log, return an error.
pub(crate) async fn timeline(connection: &mut PgConnection) -> Result<Timeline> {
    let found = sqlx::query!(
        // The timeline is the first part of a log file's name. `pg_control_checkpoint` learns of a promotion later.
        r#"select system_identifier as "system!",
             ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int as "number!"
         from pg_control_system()"#
    )
    .fetch_one(connection)
    .await?;
    Ok(Timeline {
        system: found.system,
        number: found.number,
    })
}
