//! The way to the database: a [`Store`] is a pool with this crate's settings, and an [`Executor`] is
//! whatever a verb can run on. For every verb's `.execute(on)`. A `Store` is cheap to clone: all clones
//! share one pool.

use std::{
    fmt,
    future::Future,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use sqlx::{
    Connection, PgConnection, PgPool, Postgres, Transaction,
    pool::PoolConnection,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::{runtime::Handle, time::timeout};
use typed_builder::TypedBuilder;

use crate::{
    error::{Error, Result},
    heartbeat::Heartbeats,
    postgres::{queues, schema},
    queue::{IntoQueue, Queue},
    send::Writers,
    wake::Wakes,
    watermark::Hints,
    writer::{Sending, Writer},
};

/// Connects to a database with the default [`ConnectOptions`].
///
/// # Errors
/// [`Error::Connect`] where the server can't be reached or refuses the login. A server that isn't there
/// is reported at once, not after the pool's time-out.
///
/// # Example
/// ```no_run
/// # async fn example() -> pgqrs::Result<()> {
/// let store = pgqrs::connect("postgresql://localhost/mydb").await?;
/// # Ok(())
/// # }
/// ```
pub async fn connect(url: &str) -> Result<Store> {
    connect_with(ConnectOptions::builder().url(url).build()).await
}

/// Connects to a database.
///
/// # Errors
/// As [`connect`]; and with [`install(true)`](ConnectOptions), as [`Admin::install`](crate::Admin::install).
///
/// # Example
/// ```no_run
/// # async fn example() -> pgqrs::Result<()> {
/// use pgqrs::ConnectOptions;
///
/// let options = ConnectOptions::builder()
///     .url("postgresql://localhost/mydb")
///     .max_connections(20)
///     .install(true)
///     .build();
/// let store = pgqrs::connect_with(options).await?;
/// # Ok(())
/// # }
/// ```
pub async fn connect_with(options: ConnectOptions) -> Result<Store> {
    let to = options.to_postgres()?;
    // The pool would wait for a server that isn't there until its time-out. One connection outside of it
    // says at once why it can't be had.
    let mut probe = timeout(options.acquire_timeout, PgConnection::connect_with(&to))
        .await
        .map_err(|_| Error::AcquireTimeout {
            after: options.acquire_timeout,
        })?
        .map_err(|error| Error::Connect(Arc::new(error)))?;
    if options.install {
        migrate(&to, options.acquire_timeout).await?;
    }
    // So that the first send is one statement. Where the schema isn't there yet, its writer begins by itself.
    let first = async {
        let server = schema::started_at(&mut probe).await?;
        Ok::<_, Error>((server, Writer::begun(&mut probe, server).await?))
    };
    let first = timeout(options.acquire_timeout, first).await;
    // It has served its purpose, however it ends.
    let _ = timeout(PING_TIMEOUT, probe.close()).await;
    let (server, first) = first.ok().and_then(Result::ok).unwrap_or_default();
    let server = Arc::new(AtomicI64::new(server));
    let connected = Arc::clone(&server);
    let pool = PgPoolOptions::new()
        .max_connections(options.max_connections)
        .acquire_timeout(options.acquire_timeout)
        // A round trip before every statement is too dear; ping only what may have died in its sleep.
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
        .after_connect(move |connection, _| {
            let connected = Arc::clone(&connected);
            Box::pin(async move {
                // Not worth a connection: without it, ids that were drawn ahead are drawn anew.
                let now = schema::started_at(connection).await.unwrap_or_default();
                connected.store(now, Ordering::Relaxed);
                Ok(())
            })
        })
        .connect_lazy_with(to);
    let sending = Sending {
        // One connection to PgBouncer leads to whatever server there is.
        draw_ahead: !options.pgbouncer,
        retry_for: options.retry_for.min(LONGEST_RETRY),
        coalesce: options.coalesce,
        connections: options.max_connections as usize,
    };
    Ok(Store(Arc::new(Inner {
        pool,
        writers: Arc::new(Writers::new(sending, server, first)),
        payload_limit: options.payload_limit,
        can_listen: !options.pgbouncer,
        heartbeats: Heartbeats::default(),
        hints: Hints::default(),
        wakes: Wakes::default(),
    })))
}

/// Brings the schema up to date, on a connection of its own.
pub(crate) async fn migrate(to: &PgConnectOptions, connect_within: Duration) -> Result<()> {
    let migrating = schema::migrate(to, connect_within);
    timeout(LONG_PATIENCE, migrating)
        .await
        .map_err(|_| silence())?
}

/// For how long a connection can lie idle before it is pinged ahead of its next use.
const TRUSTED_IDLE: Duration = Duration::from_secs(5);
const PING_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the store waits for the answer to a statement: for a server that has vanished without a word.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// The same, for what may be about very many rows.
const LONG_PATIENCE: Duration = Duration::from_secs(30 * 60);
/// The default of [`ConnectOptions::retry_for`]; and far less than what a writer's row is kept for.
const RETRY_FOR: Duration = Duration::from_secs(30);
const LONGEST_RETRY: Duration = Duration::from_secs(60 * 60);

/// What the store's connections bring along.
const SETTINGS: [(&str, &str); 5] = [
    // `limit $n` would be planned anew at every call, since the server hopes for a better plan.
    ("plan_cache_mode", "force_generic_plan"),
    // Where our machine vanishes without a word, the server would keep its session for two hours; and in the
    // middle of an answer, the locks of what it claims for a quarter of an hour. Our own side needs no such
    // settings, which sqlx doesn't have: each statement has its time.
    ("tcp_keepalives_idle", "60"),
    ("tcp_keepalives_interval", "10"),
    ("tcp_keepalives_count", "3"),
    ("tcp_user_timeout", "30000"),
];

/// So many connections a pool must have for one to be kept by who is likely to need it again soon.
pub(crate) const TO_SPARE: u32 = 4;

/// The default of [`ConnectOptions::payload_limit`], and what holds for a connection of the caller's own.
const PAYLOAD_LIMIT: usize = 64 << 20;

/// How to connect. Only the URL is required.
///
/// # Example
/// ```
/// use std::time::Duration;
///
/// use pgqrs::ConnectOptions;
///
/// let options = ConnectOptions::builder()
///     .url("postgresql://localhost/mydb")
///     .max_connections(20)
///     .acquire_timeout(Duration::from_secs(3))
///     .application_name("billing")
///     .build();
/// ```
#[derive(Clone, TypedBuilder)]
pub struct ConnectOptions {
    /// `postgresql://user:password@host:port/database?sslmode=…`, as libpq has it.
    #[builder(setter(into))]
    url: String,
    /// The most connections that the store holds at once; 10 by default.
    #[builder(default = 10)]
    max_connections: u32,
    /// How long a call waits for a connection before it fails with [`Error::AcquireTimeout`]; 10 seconds
    /// by default.
    #[builder(default = Duration::from_secs(10))]
    acquire_timeout: Duration,
    /// What `pg_stat_activity` shows for the store's connections; `pgqrs` by default.
    #[builder(default = "pgqrs".into(), setter(into))]
    application_name: String,
    /// The most bytes that one payload may have as JSON; 64 MiB by default.
    #[builder(default = PAYLOAD_LIMIT)]
    payload_limit: usize,
    /// For how long a send through the store is tried again where the connection breaks, the server is away
    /// or restarts, or fails over to another; 30 seconds by default, an hour at most. Zero is one try.
    #[builder(default = RETRY_FOR)]
    retry_for: Duration,
    /// Whether sends that wait at the same time share a statement and its commit; true by default.
    #[builder(default = true)]
    coalesce: bool,
    /// Whether to create or upgrade the schema on connecting; false by default.
    #[builder(default)]
    install: bool,
    /// Whether the URL leads to PgBouncer; false by default. It refuses connections that bring settings
    /// along, so `plan_cache_mode` and TCP's time-outs are left as they are; and there is no LISTEN through it,
    /// so consumers poll. In session mode any PgBouncer will do; in transaction mode it takes 1.21 or later with
    /// `max_prepared_statements`, as all of sqlx does, and the schema is to be installed past it, since the migrator's
    /// lock belongs to a session.
    #[builder(default)]
    pgbouncer: bool,
}

impl ConnectOptions {
    fn to_postgres(&self) -> Result<PgConnectOptions> {
        let to: PgConnectOptions = self
            .url
            .parse()
            .map_err(|error| Error::Connect(Arc::new(error)))?;
        let to = to.application_name(&self.application_name);
        if self.pgbouncer {
            // One of sqlx's own, for how floats are printed.
            return Ok(to.extra_float_digits(None));
        }
        // What the URL says of them holds.
        let brought = to.get_options().unwrap_or_default().to_owned();
        let own = SETTINGS.into_iter();
        Ok(to.options(own.filter(|(name, _)| !brought.contains(name))))
    }
}

/// Without the URL, in which there may be a password.
impl fmt::Debug for ConnectOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectOptions")
            .field("max_connections", &self.max_connections)
            .field("acquire_timeout", &self.acquire_timeout)
            .field("application_name", &self.application_name)
            .field("payload_limit", &self.payload_limit)
            .field("retry_for", &self.retry_for)
            .field("coalesce", &self.coalesce)
            .field("install", &self.install)
            .field("pgbouncer", &self.pgbouncer)
            .finish_non_exhaustive()
    }
}

/// A connected database: what every verb runs on.
///
/// Cheap to clone. Made by [`connect`] or [`connect_with`], or from a pool that the application has
/// already:
///
/// ```no_run
/// # fn example(pool: sqlx::PgPool) {
/// let store = pgqrs::Store::from(pool);
/// # }
/// ```
///
/// A pool of the application's own keeps its own settings. Those that [`connect`] makes serve claims and
/// single enqueues best: `plan_cache_mode = force_generic_plan`, and no ping before each use. They also let
/// the server find out within a minute or so where this machine has vanished: `tcp_keepalives_*` and
/// `tcp_user_timeout`, unless the URL's `options` set them.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    pool: PgPool,
    payload_limit: usize,
    /// Whether LISTEN reaches the server that NOTIFY is sent by.
    can_listen: bool,
    writers: Arc<Writers>,
    heartbeats: Heartbeats,
    hints: Hints,
    wakes: Wakes,
}

impl Store {
    /// The pool behind the store, for statements of the application's own.
    pub fn pool(&self) -> &PgPool {
        &self.0.pool
    }

    pub(crate) fn can_listen(&self) -> bool {
        self.0.can_listen
    }

    pub(crate) fn hints(&self) -> &Hints {
        &self.0.hints
    }

    pub(crate) fn wakes(&self) -> &Wakes {
        &self.0.wakes
    }

    pub(crate) fn writers(&self) -> &Arc<Writers> {
        &self.0.writers
    }

    pub(crate) fn acquire_timeout(&self) -> Duration {
        self.0.pool.options().get_acquire_timeout()
    }

    /// Runs one statement of the store's own.
    pub(crate) async fn run<T>(
        &self,
        statement: impl AsyncFnOnce(&mut PgConnection) -> Result<T>,
    ) -> Result<T> {
        self.lend().await?.within(PATIENCE, statement).await
    }

    /// Runs one statement that may be about very many rows.
    pub(crate) async fn run_long<T>(
        &self,
        statement: impl AsyncFnOnce(&mut PgConnection) -> Result<T>,
    ) -> Result<T> {
        self.lend().await?.within(LONG_PATIENCE, statement).await
    }

    /// A connection for statements that are bounded in time.
    pub(crate) async fn lend(&self) -> Result<Lent> {
        Lent::of(&self.0.pool).await
    }

    pub(crate) fn heartbeats(&self) -> &Heartbeats {
        &self.0.heartbeats
    }

    /// A queue, created if there is none of that name.
    ///
    /// # Errors
    /// [`Error::InvalidQueueName`]; [`Error::NotInstalled`].
    ///
    /// # Source
    /// `select … from pgqrs.queues`; `insert … on conflict do nothing` only where that finds nothing.
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
        Ok(Queue::named(name))
    }
}

impl From<PgPool> for Store {
    fn from(pool: PgPool) -> Self {
        let sending = Sending {
            draw_ahead: true,
            retry_for: RETRY_FOR,
            coalesce: true,
            connections: pool.options().get_max_connections() as usize,
        };
        Self(Arc::new(Inner {
            pool,
            writers: Arc::new(Writers::new(sending, Arc::default(), Writer::default())),
            payload_limit: PAYLOAD_LIMIT,
            can_listen: true,
            heartbeats: Heartbeats::default(),
            hints: Hints::default(),
            wakes: Wakes::default(),
        }))
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("connections", &self.0.pool.size())
            .field("idle", &self.0.pool.num_idle())
            .field("payload_limit", &self.0.payload_limit)
            .field("writers", &self.0.writers)
            .finish_non_exhaustive()
    }
}

/// Runs one statement on whatever it is.
pub(crate) async fn run<T>(
    on: impl Executor,
    statement: impl AsyncFnOnce(&mut PgConnection) -> Result<T>,
) -> Result<T> {
    match on.store() {
        Some(store) => store.run(statement).await,
        // The caller's own connection, and the caller's own patience.
        None => statement(&mut *on.acquire().await?).await,
    }
}

/// A connection of the store's. Given up in the middle of a statement, it is closed: it may never answer, and
/// would keep its place in the pool for as long.
pub(crate) struct Lent {
    connection: Option<PoolConnection<Postgres>>,
    answered: bool,
}

impl Lent {
    pub(crate) async fn of(pool: &PgPool) -> Result<Self> {
        let connection = Some(Acquire::acquire(pool).await?);
        let answered = true;
        Ok(Self {
            connection,
            answered,
        })
    }

    /// Runs a statement, which fails as on a broken connection where the server doesn't answer in time.
    pub(crate) async fn within<T>(
        &mut self,
        limit: Duration,
        statement: impl AsyncFnOnce(&mut PgConnection) -> Result<T>,
    ) -> Result<T> {
        let Some(connection) = &mut self.connection else {
            return Err(silence());
        };
        self.answered = false;
        let outcome = timeout(limit, statement(connection)).await;
        let outcome = outcome.map_err(|_| silence())?;
        // A server that only reads is a standby by now: another connection may lead to its successor.
        self.answered = !matches!(&outcome, Err(error) if is_read_only(error));
        outcome
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let Some(mut connection) = self.connection.take() else {
            return;
        };
        match Handle::try_current() {
            // The pool tests what comes back, and would wait for a vanished server until TCP gives up.
            Ok(runtime) if self.answered => {
                runtime.spawn(timeout(PING_TIMEOUT, connection.return_to_pool()));
            }
            _ => drop(connection.detach()),
        }
    }
}

fn silence() -> Error {
    let silence = io::Error::new(io::ErrorKind::TimedOut, "the server did not answer");
    Error::ConnectionLost(Arc::new(sqlx::Error::Io(silence)))
}

fn is_read_only(error: &Error) -> bool {
    match error {
        Error::Database(source) => source
            .as_database_error()
            .is_some_and(|refusal| refusal.code().as_deref() == Some("25006")),
        _ => false,
    }
}

mod sealed {
    use std::{future::Future, ops::DerefMut};

    use super::{PAYLOAD_LIMIT, PgConnection, Result, Store};

    #[diagnostic::on_unimplemented(
        message = "`Executor` can't be implemented outside of pgqrs",
        label = "a pgqrs call runs on PostgreSQL's own connections",
        note = "pass `&store`, `&pool`, `&mut connection` or `&mut transaction` to `.execute(..)`"
    )]
    pub trait Acquire: Send {
        type Connection: DerefMut<Target = PgConnection> + Send;

        fn acquire(self) -> impl Future<Output = Result<Self::Connection>> + Send;

        /// The most bytes that one payload may have.
        fn payload_limit(&self) -> usize {
            PAYLOAD_LIMIT
        }

        /// The store, where what is done is durable once it is done, and its consumers can be woken.
        fn store(&self) -> Option<Store> {
            None
        }
    }
}

pub(crate) use sealed::Acquire;

/// Where a verb runs: on a connection of the store's, or in a transaction that the caller owns.
///
/// Written for `&Store`, `&PgPool`, `&mut PgConnection`, `&mut PoolConnection` and `&mut Transaction`.
/// What is enqueued in a transaction is invisible until the caller commits, and gone if they don't.
// No lifetime parameter: with one, `tokio::spawn` around a call fails with "not general enough".
#[diagnostic::on_unimplemented(
    message = "`{Self}` is nothing that a pgqrs call can run on",
    label = "expected `&store`, `&pool`, `&mut connection` or `&mut transaction`",
    note = "lend the store, as `&store`; or `&mut tx`, to take part in your own transaction"
)]
pub trait Executor: sealed::Acquire {}

#[diagnostic::do_not_recommend]
impl Executor for &Store {}
#[diagnostic::do_not_recommend]
impl Executor for &PgPool {}
#[diagnostic::do_not_recommend]
impl Executor for &mut PgConnection {}
#[diagnostic::do_not_recommend]
impl Executor for &mut PoolConnection<Postgres> {}
#[diagnostic::do_not_recommend]
impl Executor for &mut Transaction<'_, Postgres> {}

#[diagnostic::do_not_recommend]
impl Acquire for &Store {
    type Connection = PoolConnection<Postgres>;

    async fn acquire(self) -> Result<Self::Connection> {
        Acquire::acquire(&self.0.pool).await
    }

    fn payload_limit(&self) -> usize {
        self.0.payload_limit
    }

    fn store(&self) -> Option<Store> {
        Some((*self).clone())
    }
}

#[diagnostic::do_not_recommend]
impl Acquire for &PgPool {
    type Connection = PoolConnection<Postgres>;

    async fn acquire(self) -> Result<Self::Connection> {
        PgPool::acquire(self).await.map_err(|error| match error {
            sqlx::Error::PoolTimedOut => Error::AcquireTimeout {
                after: self.options().get_acquire_timeout(),
            },
            sqlx::Error::PoolClosed => Error::Closed,
            error => Error::Connect(Arc::new(error)),
        })
    }
}

#[diagnostic::do_not_recommend]
impl<'c> Acquire for &'c mut PgConnection {
    type Connection = &'c mut PgConnection;

    async fn acquire(self) -> Result<Self::Connection> {
        Ok(self)
    }
}

#[diagnostic::do_not_recommend]
impl<'c> Acquire for &'c mut PoolConnection<Postgres> {
    type Connection = &'c mut PgConnection;

    async fn acquire(self) -> Result<Self::Connection> {
        Ok(&mut **self)
    }
}

#[diagnostic::do_not_recommend]
impl<'c> Acquire for &'c mut Transaction<'_, Postgres> {
    type Connection = &'c mut PgConnection;

    async fn acquire(self) -> Result<Self::Connection> {
        Ok(&mut **self)
    }
}

/// The future of a verb's `.execute(..)`: boxed, so that it has a name, and `Send`.
#[must_use = "nothing happens until this is awaited: add `.await`"]
pub struct Execute<'c, T>(Pin<Box<dyn Future<Output = T> + Send + 'c>>);

impl<'c, T> Execute<'c, T> {
    pub(crate) fn new(call: impl Future<Output = T> + Send + 'c) -> Self {
        Self(Box::pin(call))
    }
}

impl<T> Future for Execute<'_, T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        self.0.as_mut().poll(context)
    }
}

impl<T> fmt::Debug for Execute<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Execute").finish_non_exhaustive()
    }
}
