//! Connections whose statements have a time-out. A connection that was dropped in the middle of a statement is closed,
//! and the server cancels that statement.

use std::{
    future::Future,
    pin::pin,
    sync::{Arc, OnceLock},
    time::Duration,
};

use sqlx::{
    ConnectOptions as _, Connection, PgConnection, PgPool, Postgres,
    pool::PoolConnection,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::{
    runtime::Handle,
    time::{Instant, sleep, timeout, timeout_at},
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
/// Pause between two searches of a call that waits for a host.
const SEARCH_INTERVAL: Duration = Duration::from_millis(250);

/// The connections of a store: its pool, and a reserve that the application can't use up.
#[derive(Debug, Clone)]
pub(crate) struct Connections(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    pool: PgPool,
    /// Created on first use, since that needs a runtime.
    reserve: OnceLock<PgPool>,
    /// If the URL names several hosts, or asks for attributes of the session.
    hosts: Option<Arc<Hosts>>,
    /// Where connections for LISTEN lead, if not where the pool's do.
    listen: Option<Arc<Hosts>>,
    server: ServerState,
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

    /// Waits for a connection. If that takes long, finds out whether the server is away or the pool too small, which the
    /// pool doesn't say; and whether another host is to be used.
    async fn explained<A>(&self, acquire: impl Fn() -> A) -> Result<PoolConnection<Postgres>>
    where
        A: Future<Output = Result<PoolConnection<Postgres>>>,
    {
        let before = self.0.server.outages();
        let acquired = match &self.0.hosts {
            None => self.acquired(acquire()).await,
            // Boxed: it is large, and would be part of every call.
            Some(hosts) => Box::pin(self.acquired_of(hosts, acquire)).await,
        };
        let explain = |error| {
            let options = self.0.pool.connect_options();
            self.0.server.explain(&options, error, before)
        };
        acquired.map_err(explain)
    }

    fn suspicious_wait(&self) -> Duration {
        SUSPICIOUS_WAIT.min(self.acquire_timeout() / 2)
    }

    async fn acquired(
        &self,
        acquiring: impl Future<Output = Result<PoolConnection<Postgres>>>,
    ) -> Result<PoolConnection<Postgres>> {
        let mut acquiring = pin!(acquiring);
        match timeout(self.suspicious_wait(), acquiring.as_mut()).await {
            Ok(acquired) => acquired,
            Err(_) => {
                // Boxed: it is large, and would be part of every call.
                let probing = Box::pin(self.probe(Suspicion::Wait));
                tokio::select! {
                    biased;
                    acquired = acquiring.as_mut() => acquired,
                    _ = probing => acquiring.await,
                }
            }
        }
    }

    /// Searches until a host is found. What waits for another one then begins again.
    async fn acquired_of<A>(
        &self,
        hosts: &Hosts,
        acquire: impl Fn() -> A,
    ) -> Result<PoolConnection<Postgres>>
    where
        A: Future<Output = Result<PoolConnection<Postgres>>>,
    {
        let after = self.acquire_timeout();
        let ends_at = Instant::now() + after;
        let mut moves = hosts.moves();
        let mut acquiring = pin!(acquire());
        let is_away = self.0.server.outage() != 0;
        let suspicious = if is_away {
            Duration::ZERO
        } else {
            self.suspicious_wait()
        };
        let first = timeout(suspicious, acquiring.as_mut()).await;
        match first {
            Ok(Err(error)) if is_of_host(&error) => acquiring.set(acquire()),
            Ok(acquired) => return acquired,
            Err(_) => {}
        }
        let searched = async {
            let mut searching = Box::pin(self.search_until_found());
            loop {
                tokio::select! {
                    biased;
                    acquired = acquiring.as_mut() => match acquired {
                        Err(error) if is_of_host(&error) => {
                            let pause = timeout(SEARCH_INTERVAL, hosts.moved(moves));
                            tokio::select! {
                                _ = pause => {}
                                () = &mut searching => {}
                            }
                        }
                        acquired => return acquired,
                    },
                    () = hosts.moved(moves) => {}
                    () = &mut searching => {}
                }
                moves = hosts.moves();
                acquiring.set(acquire());
            }
        };
        timeout_at(ends_at, searched)
            .await
            .unwrap_or(Err(Error::AcquireTimeout { after }))
    }

    /// Never ends: the caller waits for its connection meanwhile.
    async fn search_until_found(&self) {
        while !self.probe(Suspicion::Wait).await {
            sleep(SEARCH_INTERVAL).await;
        }
        std::future::pending().await
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
    fn reserve(&self) -> &PgPool {
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

    /// How often the store has moved from one host to another.
    pub(super) fn moves(&self) -> u64 {
        self.0.hosts.as_ref().map_or(0, |hosts| hosts.moves())
    }

    /// Waits for a move beyond this number of them.
    pub(super) async fn moved(&self, before: u64) {
        match &self.0.hosts {
            None => std::future::pending().await,
            Some(hosts) => hosts.moved(before).await,
        }
    }

    pub(super) fn has_several_hosts(&self) -> bool {
        self.0.hosts.is_some()
    }

    /// Finds out whether the server can be reached, and moves to another host if that is the one to be used: makes
    /// connections outside of the pool, unless another call is doing so. Returns whether it has found a server.
    pub(super) async fn probe(&self, why: Suspicion) -> bool {
        let server = &self.0.server;
        let Some(_guard) = server.begin_probe() else {
            return false;
        };
        let outage = server.outage();
        let options = self.0.pool.connect_options();
        let found = match &self.0.hosts {
            None => match timeout(PING_TIMEOUT, options.connect()).await {
                Ok(Ok(connection)) => Ok(connection),
                Ok(Err(error)) => Err(Error::Connect(Arc::new(error))),
                Err(_) => Err(no_answer()),
            },
            Some(hosts) => match hosts
                .search(outage != 0 || !matches!(why, Suspicion::Wait))
                .await
            {
                Ok(chosen) => {
                    self.move_to(hosts, chosen.place, outage);
                    Ok(chosen.candidate.connection)
                }
                Err(none) => Err(none.into_error()),
            },
        };
        match found {
            Ok(connection) => {
                server.answered(outage);
                if let Suspicion::Lost(error) = why
                    && outage == 0
                {
                    server.lost_one(&options, &error);
                }
                let _ = timeout(PING_TIMEOUT, connection.close()).await;
                true
            }
            Err(error) => {
                server.failed(&options, &error);
                false
            }
        }
    }

    fn move_to(&self, hosts: &Hosts, place: usize, outage: u64) {
        let Some(moved) = hosts.move_to(place) else {
            return;
        };
        self.0.pool.set_connect_options(hosts.options(place));
        self.reserve().set_connect_options(hosts.options(place));
        hosts.announce_move();
        self.0.server.moved(outage, &moved);
    }

    /// A connection broke, or a statement was not answered in time. Whether that is an outage, a new connection tells.
    fn connection_lost(&self, error: &Error) {
        if self.0.server.outage() != 0 && self.0.hosts.is_none() {
            let options = self.0.pool.connect_options();
            return self.0.server.failed(&options, error);
        }
        self.probe_later(Suspicion::Lost(error.clone()));
    }

    fn probe_later(&self, why: Suspicion) {
        if let Ok(runtime) = Handle::try_current() {
            let connections = self.clone();
            runtime.spawn(async move { connections.probe(why).await });
        }
    }
}

/// Why the server is probed.
pub(super) enum Suspicion {
    /// A call waits for a connection.
    Wait,
    /// A connection broke.
    Lost(Error),
    /// The server has become read-only, or its notifications have ended.
    Changed,
}

/// Whether another host may be reached.
fn is_of_host(error: &Error) -> bool {
    matches!(error, Error::Connect(_)) && error.is_retryable()
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
        if is_read_only && connections.has_several_hosts() {
            connections.probe_later(Suspicion::Changed);
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
