//! The [`Store`]: a pool, and the state that pgqrs keeps beside it. Cheap to clone; all clones share one pool.

use std::{
    fmt,
    sync::{Arc, atomic::AtomicI64},
    time::Duration,
};

use sqlx::{PgConnection, PgPool, Postgres, SqlSafeStr as _};

#[cfg(feature = "schedules")]
use crate::firing::Firing;
#[cfg(any(feature = "metrics", feature = "opentelemetry"))]
use crate::telemetry;
use crate::{
    error::Result,
    pool::{
        Connections, Heartbeats, LONG_STATEMENT_TIMEOUT, Notifier, STATEMENT_TIMEOUT,
        StoreConnection,
    },
    postgres::{queues, session},
    queue::{IntoQueue, Queue},
    send::{Batcher, SendOptions, Writer},
    transaction::Transaction,
    watermark::WatermarkCache,
};

/// A connected database: what every verb runs on.
///
/// Cheap to clone. Made by [`connect`](fn@crate::connect) or [`connect_with`](crate::connect_with), or from a pool that
/// the application has already:
///
/// ```no_run
/// # fn example(pool: sqlx::PgPool) {
/// let store = pgqrs::Store::from(pool);
/// # }
/// ```
///
/// A pool of the application keeps its own settings. Those that [`connect`](fn@crate::connect) makes serve claims and
/// single enqueues best: `plan_cache_mode = force_generic_plan`, except on Citus, and no ping before each use. They also
/// let the server detect within about a minute that this machine has vanished: `tcp_keepalives_*` and `tcp_user_timeout`,
/// unless the URL's `options` set them. Start from [`pool_options`](crate::pool_options()): a transaction that was left open on a
/// connection of another pool takes along what the store does there next.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    connections: Connections,
    options: StoreOptions,
    batcher: Arc<Batcher>,
    heartbeats: Heartbeats,
    watermarks: WatermarkCache,
    notifier: Notifier,
    #[cfg(feature = "schedules")]
    firing: Firing,
}

/// What a store is made with, besides its connections.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StoreOptions {
    pub(crate) sending: SendOptions,
    pub(crate) payload_limit: usize,
    /// Whether messages carry the trace context of their sender.
    pub(crate) trace_context: bool,
    /// Whether LISTEN reaches the server that NOTIFY is sent by.
    pub(crate) can_listen: bool,
}

/// The default of [`ConnectOptions::payload_limit`](crate::ConnectOptions), and the limit on a connection of the
/// caller's own.
pub(crate) const PAYLOAD_LIMIT: usize = 64 << 20;
/// The default of [`ConnectOptions::retry_for`](crate::ConnectOptions).
pub(crate) const DEFAULT_RETRY_FOR: Duration = Duration::from_secs(30);
/// Far less than the time for which a writer's row is kept.
pub(crate) const MAX_RETRY_FOR: Duration = Duration::from_secs(60 * 60);

mod sealed {
    pub trait Sealed {}
}

/// A [`Store`], also in an [`Arc`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a store",
    label = "expected `&store`",
    note = "make a store from a pool: `pgqrs::Store::from(pool)`"
)]
pub trait AsStore: sealed::Sealed {
    /// Returns the store.
    fn as_store(&self) -> &Store;
}

impl sealed::Sealed for Store {}
#[diagnostic::do_not_recommend]
impl AsStore for Store {
    fn as_store(&self) -> &Store {
        self
    }
}

impl sealed::Sealed for Arc<Store> {}
#[diagnostic::do_not_recommend]
impl AsStore for Arc<Store> {
    fn as_store(&self) -> &Store {
        self
    }
}

impl Store {
    /// `server` is the start time of the server of the last connection, and `first` a writer on it.
    pub(crate) fn new(
        connections: Connections,
        options: StoreOptions,
        server: Arc<AtomicI64>,
        first: Writer,
    ) -> Self {
        let notifier = Notifier::new(connections.clone());
        let batcher = Batcher::new(
            connections.clone(),
            notifier.clone(),
            options.sending,
            server,
            first,
        );
        let store = Self(Arc::new(Inner {
            options,
            batcher: Arc::new(batcher),
            heartbeats: Heartbeats::new(connections.clone()),
            watermarks: WatermarkCache::default(),
            #[cfg(feature = "schedules")]
            firing: Firing::new(connections.clone(), notifier.clone()),
            notifier,
            connections,
        }));
        #[cfg(any(feature = "metrics", feature = "opentelemetry"))]
        telemetry::watch(Arc::downgrade(&store.0) as _);
        store
    }

    /// Returns the store's pool, for the application's own statements.
    pub fn pool(&self) -> &PgPool {
        self.0.connections.pool()
    }

    pub(crate) fn can_listen(&self) -> bool {
        self.0.options.can_listen
    }

    pub(crate) fn payload_limit(&self) -> usize {
        self.0.options.payload_limit
    }

    pub(crate) fn trace_context(&self) -> bool {
        self.0.options.trace_context
    }

    pub(crate) fn watermarks(&self) -> &WatermarkCache {
        &self.0.watermarks
    }

    pub(crate) fn notifier(&self) -> &Notifier {
        &self.0.notifier
    }

    #[cfg(feature = "schedules")]
    pub(crate) fn firing(&self) -> &Firing {
        &self.0.firing
    }

    pub(crate) fn heartbeats(&self) -> &Heartbeats {
        &self.0.heartbeats
    }

    pub(crate) fn batcher(&self) -> &Arc<Batcher> {
        &self.0.batcher
    }

    pub(crate) fn acquire_timeout(&self) -> Duration {
        self.0.connections.acquire_timeout()
    }

    /// Where the server is, for metrics.
    pub(crate) fn server_name(&self) -> String {
        self.0.connections.server_name()
    }

    pub(crate) fn max_connections(&self) -> u32 {
        self.0.connections.max_connections()
    }

    /// Runs one statement of the store's own.
    pub(crate) async fn run<T>(
        &self,
        statement: impl AsyncFnOnce(&mut PgConnection) -> Result<T>,
    ) -> Result<T> {
        let mut connection = self.connection().await?;
        connection.within(STATEMENT_TIMEOUT, statement).await
    }

    /// Runs one statement that may read or change very many rows.
    pub(crate) async fn run_long<T>(
        &self,
        statement: impl AsyncFnOnce(&mut PgConnection) -> Result<T>,
    ) -> Result<T> {
        let mut connection = self.connection().await?;
        connection.within(LONG_STATEMENT_TIMEOUT, statement).await
    }

    /// A connection for statements that are bounded in time.
    pub(crate) async fn connection(&self) -> Result<StoreConnection> {
        self.0.connections.acquire().await
    }

    /// The same, for what extends leases: even while the application uses all of the pool's connections.
    pub(crate) async fn reserved(&self) -> Result<StoreConnection> {
        self.0.connections.acquire_reserved().await
    }

    /// Begins a transaction of a handler. Its isolation level is always read committed: at a stricter one, the message
    /// could not be settled any more once its lease was extended. If the handler is aborted after `limit`, its statements
    /// are so too.
    pub(crate) async fn begin_for_handler(&self, limit: Option<Duration>) -> Result<Transaction> {
        const BEGIN: &str = "begin isolation level read committed";
        let connection = self.0.connections.acquire_for_caller().await?;
        let mut begun = sqlx::Transaction::begin(connection, Some(BEGIN.into_sql_str())).await?;
        if let Some(limit) = limit {
            session::limit_statements(&mut begun, limit).await?;
        }
        Ok(self.transaction(begun))
    }

    /// Begins a transaction that wakes consumers when it is committed.
    ///
    /// # Errors
    /// [`Error::AcquireTimeout`](crate::Error::AcquireTimeout), [`Error::Connect`](crate::Error::Connect),
    /// [`Error::Closed`](crate::Error::Closed).
    ///
    /// # Example
    /// See [`Transaction`].
    pub async fn begin(&self) -> Result<Transaction> {
        let connection = self.0.connections.acquire_for_caller().await?;
        let begun = sqlx::Transaction::begin(connection, None).await?;
        Ok(self.transaction(begun))
    }

    fn transaction(&self, begun: sqlx::Transaction<'static, Postgres>) -> Transaction {
        Transaction::new(
            begun,
            self.0.notifier.clone(),
            self.payload_limit(),
            self.trace_context(),
        )
    }

    /// Wakes the consumers of a queue, in this process and in others: after the commit of a transaction that isn't this
    /// store's, such as one of another driver. Otherwise they find its messages at their next poll.
    ///
    /// It returns at once; the NOTIFY for other processes is sent in the background.
    ///
    /// # Errors
    /// [`Error::InvalidQueueName`](crate::Error::InvalidQueueName).
    pub fn wake(&self, queue: impl IntoQueue) -> Result<()> {
        self.0.notifier.wake(&queue.into_name()?);
        Ok(())
    }

    /// Returns a queue, and creates it if it doesn't exist.
    ///
    /// # Errors
    /// [`Error::InvalidQueueName`](crate::Error::InvalidQueueName);
    /// [`Error::NotInstalled`](crate::Error::NotInstalled).
    ///
    /// # Source
    /// `select … from pgqrs.queues`; `insert … on conflict do nothing` only if that finds nothing.
    ///
    /// # Example
    /// ```no_run
    /// # async fn example(store: pgqrs::Store) -> pgqrs::Result<()> {
    /// let tasks = store.queue("tasks").await?;
    /// pgqrs::enqueue().message(&"hello").to(&tasks).execute(&store).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn queue<Q: IntoQueue>(&self, queue: Q) -> Result<Queue<Q::Carries>> {
        let name = queue.into_name()?;
        self.run(async |connection| {
            if queues::find(connection, &name).await?.is_none() {
                queues::create(connection, &name).await?;
            }
            Ok(())
        })
        .await?;
        Ok(Queue::of(name))
    }
}

#[cfg(any(feature = "metrics", feature = "opentelemetry"))]
impl telemetry::Sampled for Inner {
    fn sample(&self, samples: &mut telemetry::Samples) {
        use telemetry::Id;

        let (pool, server) = (self.connections.pool(), self.connections.server_name());
        let (size, idle) = (pool.size() as usize, pool.num_idle());
        samples.add(Id::Connections, &server, "used", size.saturating_sub(idle));
        samples.add(Id::Connections, &server, "idle", idle);
        let max = self.connections.max_connections() as usize;
        samples.add(Id::MaxConnections, &server, "", max);
        let is_away = f64::from(self.connections.is_server_away());
        samples.read(Id::ServerAway, &server, "", is_away);
        samples.add(Id::Writers, &server, "", self.batcher.running());
    }
}

impl From<PgPool> for Store {
    fn from(pool: PgPool) -> Self {
        Self::new(
            Connections::new(pool),
            StoreOptions {
                sending: SendOptions {
                    draw_ahead: true,
                    retry_for: DEFAULT_RETRY_FOR,
                    coalesce: true,
                },
                payload_limit: PAYLOAD_LIMIT,
                trace_context: true,
                can_listen: true,
            },
            Arc::default(),
            Writer::default(),
        )
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("connections", &self.pool().size())
            .field("idle", &self.pool().num_idle())
            .field("payload_limit", &self.payload_limit())
            .field("writers", &self.0.batcher)
            .finish_non_exhaustive()
    }
}
