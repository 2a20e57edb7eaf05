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

use super::{
    hosts::Hosts,
    server::{self, PING_TIMEOUT, ServerState, moved_on, no_answer},
};
use crate::error::{Error, Result};

/// Default statement time-out.
pub(crate) const STATEMENT_TIMEOUT: Duration = Duration::from_secs(30);
/// Time-out of statements on very many rows.
pub(crate) const LONG_STATEMENT_TIMEOUT: Duration = Duration::from_secs(30 * 60);
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
pub(crate) struct Connections(pub(super) Arc<Inner>);

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) pool: PgPool,
    /// Created on first use, since that needs a runtime.
    reserve: OnceLock<PgPool>,
    /// If the URL names several hosts, or asks for attributes of the session.
    pub(super) hosts: Option<Arc<Hosts>>,
    /// Where connections for LISTEN lead, if not where the pool's do.
    listen: Option<Arc<Hosts>>,
    pub(super) server: ServerState,
}

tokio::task_local! {
    /// Set while a connection is returned on which no transaction can be open.
    static OUTSIDE_TRANSACTIONS: ();
}

/// The settings of a store's own pool, whatever its size.
pub(crate) fn pool_options() -> PgPoolOptions {
    pool_options_for(None)
}

/// Connections to a host that the store has left are closed at their next use.
pub(crate) fn pool_options_for(hosts: Option<Arc<Hosts>>) -> PgPoolOptions {
    PgPoolOptions::new()
        // A ping before every statement is too slow; ping only connections that may have broken while they were idle.
        .test_before_acquire(false)
        .before_acquire(move |connection, meta| {
            let hosts = hosts.as_ref();
            let is_left = hosts.is_some_and(|hosts| hosts.have_moved_since(meta.age));
            Box::pin(async move {
                if is_left {
                    return Ok(false);
                }
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
        Self::to_hosts(pool, None, None)
    }

    /// The pool leads to the current one of the hosts. LISTEN uses others, if there are any.
    pub(crate) fn to_hosts(
        pool: PgPool,
        hosts: Option<Arc<Hosts>>,
        listen: Option<Arc<Hosts>>,
    ) -> Self {
        Self(Arc::new(Inner {
            pool,
            reserve: OnceLock::new(),
            hosts,
            listen,
            server: ServerState::default(),
        }))
    }

    /// Where a connection for LISTEN leads.
    pub(super) async fn listen_options(&self) -> Result<PgConnectOptions> {
        match &self.0.listen {
            None => Ok((*self.0.pool.connect_options()).clone()),
            Some(hosts) => hosts.choose().await,
        }
    }

    pub(crate) fn pool(&self) -> &PgPool {
        &self.0.pool
    }

    pub(crate) fn max_connections(&self) -> u32 {
        self.0.pool.options().get_max_connections()
    }

    pub(crate) fn acquire_timeout(&self) -> Duration {
        self.0.pool.options().get_acquire_timeout()
    }

    /// Whether the pool is large enough for a connection to be kept between two uses.
    pub(crate) fn can_keep(&self) -> bool {
        self.max_connections() >= MIN_POOL_TO_KEEP
    }

    /// Where the server is, for metrics.
    pub(crate) fn server_name(&self) -> String {
        server::server_name(&self.0.pool.connect_options())
    }

    #[cfg(any(feature = "metrics", feature = "opentelemetry"))]
    pub(crate) fn is_server_away(&self) -> bool {
        self.0.server.outage() != 0
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.0.pool.is_closed()
    }

    /// A connection from the pool.
    pub(crate) async fn acquire(&self) -> Result<StoreConnection> {
        let moves = self.moves();
        Ok(self.of_store(self.acquire_for_caller().await?, moves))
    }

    /// The same, for the application's own statements.
    pub(crate) async fn acquire_for_caller(&self) -> Result<PoolConnection<Postgres>> {
        self.explained(|| acquire(&self.0.pool)).await
    }

    /// A connection for lease extensions, settlements and heartbeats: from the pool, or from the reserve while all of
    /// the pool's are in use, for example by handlers.
    pub(crate) async fn acquire_reserved(&self) -> Result<StoreConnection> {
        let moves = self.moves();
        let connection = async || {
            let reserve = async {
                sleep(RESERVE_AFTER).await;
                acquire(self.reserve()).await
            };
            tokio::select! {
                biased;
                connection = acquire(&self.0.pool) => connection,
                connection = reserve => connection,
            }
        };
        Ok(self.of_store(self.explained(connection).await?, moves))
    }

    fn of_store(&self, connection: PoolConnection<Postgres>, moves: u64) -> StoreConnection {
        StoreConnection {
            connection: Some(connection),
            connections: self.clone(),
            moves,
            is_answered: true,
            acquired: Instant::now(),
        }
    }

    /// The reserve, which is closed when the pool is.
    pub(super) fn reserve(&self) -> &PgPool {
        let pool = &self.0.pool;
        self.0.reserve.get_or_init(|| {
            let options = pool.options().clone();
            let reserve = options
                .min_connections(0)
                .max_connections(RESERVE)
                .idle_timeout(RESERVE_IDLE)
                .connect_lazy_with((*pool.connect_options()).clone());
            let (closed, closing) = (pool.close_event(), reserve.clone());
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
    connections: Connections,
    /// How often the store had moved to another host before.
    moves: u64,
    is_answered: bool,
    acquired: Instant,
}

impl StoreConnection {
    /// Whether it leads to a host that the store has left.
    pub(crate) fn is_left(&self) -> bool {
        self.moves != self.connections.moves()
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
        let connections = &self.connections;
        let server = &connections.0.server;
        let outage = server.outage();
        let outcome = tokio::select! {
            biased;
            outcome = answer_within(limit, statements(connection)) => outcome.unwrap_or_else(|| Err(no_answer())),
            () = connections.moved(self.moves) => return Err(moved_on()),
        };
        match &outcome {
            Err(error @ Error::ConnectionLost(_)) => {
                connections.connection_lost(error);
                return outcome;
            }
            _ => server.answered(outage),
        }
        // A server that is read-only is a standby by now: another connection may lead to its successor.
        let is_read_only = outcome.as_ref().is_err_and(Error::is_read_only);
        if is_read_only {
            connections.became_read_only();
        }
        self.is_answered = !is_read_only;
        let role = || {
            connections
                .0
                .pool
                .connect_options()
                .get_username()
                .to_owned()
        };
        outcome.map_err(|error| error.of_role(role))
    }
}

impl Drop for StoreConnection {
    fn drop(&mut self) {
        let Some(mut connection) = self.connection.take() else {
            return;
        };
        match Handle::try_current() {
            // The pool pings returned connections, and for a vanished server would wait until TCP gives up.
            Ok(runtime) if self.is_answered && !self.is_left() => {
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
