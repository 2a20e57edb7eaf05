//! Connections whose statements have a time-out. A connection that was dropped in the middle of a statement is closed,
//! and the server cancels that statement.

use std::{
    future::Future,
    pin::pin,
    sync::{Arc, OnceLock},
    time::Duration,
};

use sqlx::{
    Connection, PgConnection, PgPool, Postgres,
    pool::PoolConnection,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::{
    runtime::Handle,
    time::{Instant, sleep, timeout},
};

use super::server::{PING_TIMEOUT, ServerState, no_answer};
use crate::error::{Error, Result};

/// Default statement time-out.
pub(crate) const STATEMENT_TIMEOUT: Duration = Duration::from_secs(30);
/// Time-out of statements on very many rows.
pub(crate) const LONG_STATEMENT_TIMEOUT: Duration = Duration::from_secs(30 * 60);
/// A wait for a connection that is longer than this has a reason: the server is away, or the pool too small.
const SUSPICIOUS_WAIT: Duration = Duration::from_secs(1);
/// How long a connection can be idle before it is pinged ahead of its next use.
const TRUSTED_IDLE: Duration = Duration::from_secs(5);
/// Minimum pool size at which idle writers and the notifier may keep a connection.
const MIN_POOL_TO_KEEP: u32 = 4;
/// Connections beyond the pool's: for settlements, lease extensions and heartbeats.
const RESERVE: u32 = 2;
/// How long a call that extends leases or sends heartbeats waits for the pool before it takes a connection of the
/// reserve.
const RESERVE_AFTER: Duration = Duration::from_millis(20);
/// The reserve's connections are closed after this time without use.
const RESERVE_IDLE: Duration = Duration::from_secs(30);

/// The connections of a store: its pool, and a reserve that the application can't use up.
#[derive(Debug, Clone)]
pub(crate) struct Connections {
    pool: PgPool,
    /// Created on first use, since that needs a runtime.
    reserve: Arc<OnceLock<PgPool>>,
    /// Options of connections for LISTEN, if they differ from the pool's.
    listen: Option<Arc<PgConnectOptions>>,
    server: Arc<ServerState>,
}

tokio::task_local! {
    /// Set while a connection is returned on which no transaction can be open.
    static OUTSIDE_TRANSACTIONS: ();
}

/// The settings of a store's own pool, whatever its size.
pub(crate) fn pool_options() -> PgPoolOptions {
    PgPoolOptions::new()
        // A ping before every statement is too slow; ping only connections that may have broken while they were idle.
        .test_before_acquire(false)
        .before_acquire(|connection, meta| {
            Box::pin(async move {
                if meta.idle_for < TRUSTED_IDLE {
                    return Ok(true);
                }
                let ping = timeout(PING_TIMEOUT, connection.ping()).await;
                Ok(matches!(ping, Ok(Ok(()))))
            })
        })
        .after_release(|connection, _| {
            Box::pin(async move {
                if OUTSIDE_TRANSACTIONS.try_with(|()| ()).is_ok() {
                    return Ok(true);
                }
                let ended = timeout(PING_TIMEOUT, end_transaction(connection)).await;
                // Otherwise it is closed, which ends the transaction as well.
                Ok(matches!(ended, Ok(Ok(()))))
            })
        })
}

/// Ends the transaction that the session is in, if it is in one. sqlx doesn't show whether it is: beginning another one
/// is only warned of, and the rollback ends both.
async fn end_transaction(connection: &mut PgConnection) -> sqlx::Result<()> {
    connection.begin().await?.rollback().await
}

impl Connections {
    pub(crate) fn new(pool: PgPool) -> Self {
        Self {
            pool,
            reserve: Arc::default(),
            listen: None,
            server: Arc::default(),
        }
    }

    /// LISTEN uses these options instead of the pool's.
    pub(crate) fn listening_at(mut self, options: Option<PgConnectOptions>) -> Self {
        self.listen = options.map(Arc::new);
        self
    }

    pub(crate) fn listen_options(&self) -> Arc<PgConnectOptions> {
        let own = self.listen.as_ref().map(Arc::clone);
        own.unwrap_or_else(|| self.pool.connect_options())
    }

    pub(crate) fn pool(&self) -> &PgPool {
        &self.pool
    }

    pub(crate) fn max_connections(&self) -> u32 {
        self.pool.options().get_max_connections()
    }

    pub(crate) fn acquire_timeout(&self) -> Duration {
        self.pool.options().get_acquire_timeout()
    }

    /// Whether the pool is large enough for a connection to be kept between two uses.
    pub(crate) fn can_keep(&self) -> bool {
        self.max_connections() >= MIN_POOL_TO_KEEP
    }

    /// Where the server is, for metrics.
    pub(crate) fn server_name(&self) -> String {
        super::server::name(&self.pool.connect_options())
    }

    #[cfg(any(feature = "metrics", feature = "opentelemetry"))]
    pub(crate) fn is_server_away(&self) -> bool {
        self.server.outage() != 0
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.pool.is_closed()
    }

    /// A connection from the pool.
    pub(crate) async fn acquire(&self) -> Result<StoreConnection> {
        Ok(self.of_store(self.acquire_for_caller().await?))
    }

    /// The same, for the application's own statements.
    pub(crate) async fn acquire_for_caller(&self) -> Result<PoolConnection<Postgres>> {
        self.explained(acquire(&self.pool)).await
    }

    /// Waits for a connection. If that takes long, finds out whether the server is away or the pool too small, which the
    /// pool doesn't say.
    async fn explained(
        &self,
        acquiring: impl Future<Output = Result<PoolConnection<Postgres>>>,
    ) -> Result<PoolConnection<Postgres>> {
        let mut acquiring = pin!(acquiring);
        let before = self.server.outages();
        let suspicious = SUSPICIOUS_WAIT.min(self.acquire_timeout() / 2);
        let acquired = match timeout(suspicious, acquiring.as_mut()).await {
            Ok(acquired) => acquired,
            Err(_) => {
                // Boxed: it is large, and would be part of every call.
                let probing = Box::pin(self.server.probe(self.pool.connect_options(), None));
                tokio::select! {
                    biased;
                    acquired = acquiring.as_mut() => acquired,
                    () = probing => acquiring.await,
                }
            }
        };
        let explain = |error| {
            let options = self.pool.connect_options();
            self.server.explain(&options, error, before)
        };
        acquired.map_err(explain)
    }

    /// A connection for lease extensions, settlements and heartbeats: from the pool, or from the reserve while all of
    /// the pool's are in use, for example by handlers.
    pub(crate) async fn acquire_reserved(&self) -> Result<StoreConnection> {
        let reserve = async {
            sleep(RESERVE_AFTER).await;
            acquire(self.reserve()).await
        };
        let connection = async {
            tokio::select! {
                biased;
                connection = acquire(&self.pool) => connection,
                connection = reserve => connection,
            }
        };
        Ok(self.of_store(self.explained(connection).await?))
    }

    fn of_store(&self, connection: PoolConnection<Postgres>) -> StoreConnection {
        let server = Arc::clone(&self.server);
        StoreConnection::new(connection, self.pool.connect_options(), server)
    }

    /// The reserve, which is closed when the pool is.
    fn reserve(&self) -> &PgPool {
        self.reserve.get_or_init(|| {
            let options = self.pool.options().clone();
            let reserve = options
                .min_connections(0)
                .max_connections(RESERVE)
                .idle_timeout(RESERVE_IDLE)
                .connect_lazy_with((*self.pool.connect_options()).clone());
            let (closed, closing) = (self.pool.close_event(), reserve.clone());
            tokio::spawn(async move {
                closed.await;
                closing.close().await;
            });
            reserve
        })
    }
}

/// A connection from `pool`, or the reason why there is none.
pub(crate) async fn acquire(pool: &PgPool) -> Result<PoolConnection<Postgres>> {
    pool.acquire().await.map_err(|error| match error {
        sqlx::Error::PoolTimedOut => Error::AcquireTimeout {
            after: pool.options().get_acquire_timeout(),
        },
        sqlx::Error::PoolClosed => Error::Closed,
        error => Error::Connect(Arc::new(error)),
    })
}

/// A connection of a store. If dropped in the middle of a statement, it is closed: the statement may never be answered,
/// and the connection would occupy its place in the pool until then.
pub(crate) struct StoreConnection {
    connection: Option<PoolConnection<Postgres>>,
    /// For the role's name in errors.
    options: Arc<PgConnectOptions>,
    server: Arc<ServerState>,
    is_answered: bool,
    acquired: Instant,
}

impl StoreConnection {
    fn new(
        connection: PoolConnection<Postgres>,
        options: Arc<PgConnectOptions>,
        server: Arc<ServerState>,
    ) -> Self {
        Self {
            connection: Some(connection),
            options,
            server,
            is_answered: true,
            acquired: Instant::now(),
        }
    }

    /// Time since it was acquired from the pool.
    pub(crate) fn held_for(&self) -> Duration {
        self.acquired.elapsed()
    }

    /// Runs statements, with the error of a broken connection if the server doesn't answer in time.
    pub(crate) async fn within<T>(
        &mut self,
        limit: Duration,
        statements: impl AsyncFnOnce(&mut PgConnection) -> Result<T>,
    ) -> Result<T> {
        let Some(connection) = &mut self.connection else {
            return Err(no_answer());
        };
        self.is_answered = false;
        let outage = self.server.outage();
        let outcome = answer_within(limit, statements(connection)).await;
        let outcome = outcome.unwrap_or_else(|| Err(no_answer()));
        match &outcome {
            Err(error @ Error::ConnectionLost(_)) => {
                self.server.connection_lost(&self.options, error);
                return outcome;
            }
            _ => self.server.answered(outage),
        }
        // A server that is read-only is a standby by now: another connection may lead to its successor.
        self.is_answered = !outcome.as_ref().is_err_and(Error::is_read_only);
        outcome.map_err(|error| error.of_role(|| self.options.get_username().to_owned()))
    }
}

impl Drop for StoreConnection {
    fn drop(&mut self) {
        let Some(mut connection) = self.connection.take() else {
            return;
        };
        match Handle::try_current() {
            // The pool pings returned connections, and for a vanished server would wait until TCP gives up.
            Ok(runtime) if self.is_answered => {
                let returned = timeout(PING_TIMEOUT, connection.return_to_pool());
                runtime.spawn(OUTSIDE_TRANSACTIONS.scope((), returned));
            }
            // Closes the socket, by which the server notices that its client no longer waits for the statement.
            _ => drop(connection.detach()),
        }
    }
}

/// Like tokio's `timeout`, except that a runtime whose threads are blocked hardly uses the time up: the answer may have
/// arrived, and was not read yet. Each interval ends only once the runtime has looked at its sockets.
async fn answer_within<T>(limit: Duration, answer: impl Future<Output = T>) -> Option<T> {
    const INTERVALS: u32 = 5;
    let mut answer = pin!(answer);
    for _ in 0..INTERVALS {
        if let Ok(answer) = timeout(limit / INTERVALS, answer.as_mut()).await {
            return Some(answer);
        }
    }
    None
}
