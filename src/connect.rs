//! `connect()` and its options.

mod url;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use sqlx::{
    Connection, PgConnection,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::time::timeout;
use typed_builder::TypedBuilder;

use self::url::ParsedUrl;
use crate::{
    error::{Error, NoHost, Result, Unsuitable},
    pool::{
        self, Candidate, Connections, Hosts, LONG_STATEMENT_TIMEOUT, PING_TIMEOUT,
        SessionAttributes, first_suitable, no_answer,
    },
    postgres::{
        schema,
        session::{self, Server},
    },
    send::{SendOptions, Writer},
    store::{DEFAULT_RETRY_FOR, MAX_RETRY_FOR, PAYLOAD_LIMIT, Store, StoreOptions},
};

/// Connects to a database with the default [`ConnectOptions`].
///
/// # Errors
/// [`Error::Connect`] if the server can't be reached or refuses the login, with the reason of each host if the URL names
/// several; and for a `target_session_attrs` by which a store couldn't write. A server that can't be reached is reported
/// at once, not after the pool's time-out.
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
    let listen = options.listen_hosts()?;
    // The pool would wait for a server that can't be reached until its time-out. Connections outside of the pool
    // fail at once, with the reason.
    let Probe {
        mut connection,
        to,
        hosts,
        is_pooled,
    } = Probe::connect(&options).await?;
    let can_listen = listen.is_some() || !is_pooled;
    if options.install {
        migrate(&to, options.acquire_timeout).await?;
    }
    // Prepared here, so that the first send is one statement. If the schema isn't installed yet, the first send
    // prepares its writer itself.
    let first = async {
        let server = schema::started_at(&mut connection).await?;
        Ok::<_, Error>((server, Writer::begun(&mut connection, server).await?))
    };
    let first = timeout(options.acquire_timeout, first).await;
    // It is no longer needed, whether or not it closes cleanly.
    let _ = timeout(PING_TIMEOUT, connection.close()).await;
    let (server, first) = first.ok().and_then(Result::ok).unwrap_or_default();
    let server = Arc::new(AtomicI64::new(server));
    let connected = Arc::clone(&server);
    let hosts_of_pool = hosts.clone();
    let pool = pool::pool_options_for(hosts.clone())
        .max_connections(options.max_connections)
        .acquire_timeout(options.acquire_timeout)
        .after_connect(move |connection, _| {
            let (connected, hosts) = (Arc::clone(&connected), hosts_of_pool.clone());
            Box::pin(async move {
                if let Some(hosts) = hosts {
                    hosts.admit(connection).await?;
                }
                // Not worth failing a connection: without the start time, ids that were drawn ahead are drawn again.
                let now = schema::started_at(connection).await.unwrap_or_default();
                connected.store(now, Ordering::Relaxed);
                if !is_pooled {
                    session::end_abandoned_statements(connection).await;
                }
                Ok(())
            })
        })
        .connect_lazy_with(to);
    let sending = SendOptions {
        // A connection through PgBouncer doesn't say which server is behind it.
        draw_ahead: !is_pooled,
        retry_for: options.retry_for.min(MAX_RETRY_FOR),
        coalesce: options.coalesce,
    };
    Ok(Store::new(
        Connections::to_hosts(pool, hosts, listen),
        StoreOptions {
            sending,
            payload_limit: options.payload_limit,
            trace_context: options.trace_context,
            can_listen,
        },
        server,
        first,
    ))
}

/// The settings of a store's own pool, to start from for a pool that an application makes for [`Store::from`](Store).
///
/// - Connections that were idle for less than five seconds are not pinged before their next use.
/// - A transaction that is still open when its connection is returned is rolled back. Otherwise the next user of the
///   connection would work inside it, and what it has sent or acknowledged would not be committed. sqlx 0.9 leaves one
///   open if the future of [`PgPool::begin`](sqlx::Pool::begin) is dropped before it is ready, as by a time-out or
///   `tokio::select!`.
///
/// # Source
/// [sqlx #4393](https://github.com/transact-rs/sqlx/issues/4393).
///
/// # Example
/// ```no_run
/// # async fn example(url: &str) -> Result<(), Box<dyn std::error::Error>> {
/// let pool = pgqrs::pool_options().max_connections(20).connect(url).await?;
/// let store = pgqrs::Store::from(pool);
/// # Ok(())
/// # }
/// ```
pub fn pool_options() -> PgPoolOptions {
    pool::pool_options()
}

/// The first connection, and what it detected.
struct Probe {
    connection: PgConnection,
    /// The options of all further connections, to this host.
    to: PgConnectOptions,
    /// If the URL names several, or asks for attributes of the session.
    hosts: Option<Arc<Hosts>>,
    /// Whether a pooler such as PgBouncer is in between.
    is_pooled: bool,
}

impl Probe {
    async fn connect(options: &ConnectOptions) -> Result<Self> {
        let ParsedUrl { hosts, attributes } = url::parse(&options.url)?;
        let within = options.acquire_timeout;
        if let ([host], SessionAttributes::Any) = (&*hosts, attributes) {
            let reached = timeout(within, options.reach(host.clone())).await;
            let reached = reached.map_err(|_| Error::AcquireTimeout { after: within })?;
            let (connection, server) = reached.map_err(|error| Error::Connect(Arc::new(error)))?;
            return Ok(Self {
                connection,
                to: options.complete(host.clone(), server),
                hosts: None,
                is_pooled: server == Server::Pooled,
            });
        }
        let attempts = hosts.iter().map(|host| {
            let (options, host) = (options.clone(), host.clone());
            async move {
                let reaching = async {
                    let reached = options.reach(host).await;
                    let (mut connection, server) =
                        reached.map_err(|error| Unsuitable::Failed(Arc::new(error)))?;
                    let timeline = attributes.check(&mut connection).await?;
                    Ok(Candidate {
                        connection: (connection, server),
                        timeline,
                    })
                };
                timeout(within, reaching)
                    .await
                    .unwrap_or(Err(Unsuitable::NoAnswer { within }))
            }
        });
        let chosen = first_suitable(attempts).await.map_err(|reasons| {
            let named = hosts.iter().map(pool::server_name);
            Error::of_hosts(NoHost::new(named.zip(reasons).collect()))
        })?;
        let Candidate {
            connection: (connection, server),
            timeline,
        } = chosen.candidate;
        let complete = |host| options.complete(host, server);
        let each: Vec<_> = hosts.into_iter().map(complete).collect();
        Ok(Self {
            connection,
            to: each[chosen.place].clone(),
            hosts: Some(Arc::new(Hosts::new(
                each,
                attributes,
                chosen.place,
                timeline,
            ))),
            is_pooled: server == Server::Pooled,
        })
    }
}

/// Creates or upgrades the schema, on a connection of its own.
pub(crate) async fn migrate(to: &PgConnectOptions, connect_within: Duration) -> Result<()> {
    let migrating = schema::migrate(to, connect_within);
    timeout(LONG_STATEMENT_TIMEOUT, migrating)
        .await
        .map_err(|_| no_answer())?
}

/// Not on Citus, which can't plan most statements on distributed tables without the values of their parameters: the
/// application's own ones in `store.begin()`.
const PLANS: &str = "plan_cache_mode";
const GENERIC_PLANS: &str = "plan_cache_mode=force_generic_plan";

/// Settings that the store's connections send at startup.
const SETTINGS: [(&str, &str); 5] = [
    // Without it, `limit $n` is planned at every call, since the server expects a better plan. Also how a pooler is
    // detected: see `session::server`.
    (PLANS, "force_generic_plan"),
    // If the client's machine vanishes without closing its connections, the server would keep their sessions for two
    // hours, and in the middle of an answer, the locks of a claim for a quarter of an hour. The client's side needs no
    // such settings, which sqlx doesn't have: each statement has a time-out.
    ("tcp_keepalives_idle", "60"),
    ("tcp_keepalives_interval", "10"),
    ("tcp_keepalives_count", "3"),
    ("tcp_user_timeout", "30000"),
];

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
#[builder(builder_type(
    doc = "Settings of [`ConnectOptions`], each with its default; made by [`ConnectOptions::builder`]."
))]
pub struct ConnectOptions {
    #[builder(setter(
        into,
        doc = "`postgresql://user:password@host:port/database?sslmode=…`, as libpq accepts it.

It can name several hosts, as in `postgresql://one:5432,two:5432/mydb`: the store is connected to the one that accepts
writes, and follows the primary in a fail-over. `target_session_attrs` can be `read-write`, which is the default with several
hosts, `primary`, or `any`, which is the default with one."
    ))]
    url: String,
    #[builder(
        default = 10,
        setter(doc = "Maximum number of connections of the store; defaults to 10.")
    )]
    max_connections: u32,
    #[builder(default = Duration::from_secs(10), setter(doc = "How long a call waits for a connection before it fails with [`Error::AcquireTimeout`]; defaults to
10 seconds."))]
    acquire_timeout: Duration,
    #[builder(default = "pgqrs".into(), setter(into, doc = "Name of the store's connections in `pg_stat_activity`; defaults to `pgqrs`."))]
    application_name: String,
    #[builder(default = PAYLOAD_LIMIT, setter(doc = "Maximum size of one payload as JSON, in bytes; defaults to 64 MiB."))]
    payload_limit: usize,
    #[builder(default = DEFAULT_RETRY_FOR, setter(doc = "How long a send through the store is retried if the connection breaks, or the server is unavailable,
restarts, or fails over to another; defaults to 30 seconds, at most an hour. Zero is one try."))]
    retry_for: Duration,
    #[builder(
        default = true,
        setter(
            doc = "Whether sends that wait at the same time share a statement and its commit; defaults to true."
        )
    )]
    coalesce: bool,
    #[builder(
        default = true,
        setter(
            doc = "Whether messages that are sent through the store carry the trace context of their sender, in the headers
`traceparent` and `tracestate`; defaults to true. Only if this crate's feature `opentelemetry` is enabled and there is
such a context; headers that an enqueue sets itself are sent in any case. It applies to the store and to its
[`begin`](Store::begin); a pool, a connection, another transaction and [`Statement`](crate::Statement) have no
options, and messages sent through these always carry it."
        )
    )]
    trace_context: bool,
    #[builder(
        default,
        setter(doc = "Whether to create or upgrade the schema on connecting; defaults to false.")
    )]
    install: bool,
    #[builder(
        default,
        setter(
            doc = "Whether the URL leads to PgBouncer or a similar pooler. Defaults to false, and then the store detects it when it
connects: a pooler refuses or ignores the settings that a connection sends at startup. It can't if the URL sets
`plan_cache_mode` by itself, or the server sets it to `force_generic_plan` for everyone; then set this to true.

Through a pooler, `plan_cache_mode` and the timeouts of TCP stay as the server has them, and there is no LISTEN:
consumers poll, unless `listen_url` is set.

| mode | |
|---|---|
| session | any PgBouncer. The `max_connections` of all stores together must fit into `default_pool_size`: a connection of the server's belongs to one client until that one closes it |
| transaction | 1.21 or later with `max_prepared_statements`, which sqlx needs. Install the schema without the pooler, since the migrator's lock belongs to a session |
| statement | none: it has no transactions |"
        )
    )]
    pgbouncer: bool,
    #[builder(
        default,
        setter(
            into,
            strip_option,
            doc = "A URL of the same server that leads past the pooler, with one host or several, for LISTEN: consumers behind PgBouncer are then woken by what
other processes enqueue, and don't have to poll for it. Takes one connection, while a consumer runs. Defaults
to none: `url` is used, or through a pooler there is no LISTEN."
        )
    )]
    listen_url: Option<String>,
}

impl ConnectOptions {
    /// Makes the first connection to a host. A pooler refuses the settings that a connection sends at startup, or, if it is
    /// configured to, ignores them: either way it is detected.
    async fn reach(&self, host: PgConnectOptions) -> sqlx::Result<(PgConnection, Server)> {
        if !self.pgbouncer {
            let to = self.complete(host.clone(), Server::Plain);
            match PgConnection::connect_with(&to).await {
                Ok(mut connection) => {
                    // Unless the URL sets a mode of its own.
                    let brought = to.get_options().unwrap_or_default();
                    let server = if brought.contains(GENERIC_PLANS) {
                        session::server(&mut connection).await
                    } else {
                        Server::Plain
                    };
                    return Ok((connection, server));
                }
                Err(error) if Error::is_refused_setting(&error) => {}
                Err(error) => return Err(error),
            }
        }
        let to = self.complete(host, Server::Pooled);
        Ok((PgConnection::connect_with(&to).await?, Server::Pooled))
    }

    fn listen_hosts(&self) -> Result<Option<Arc<Hosts>>> {
        let Some(url) = &self.listen_url else {
            return Ok(None);
        };
        let ParsedUrl { hosts, attributes } = url::parse(url)?;
        let complete = |host| self.complete(host, Server::Plain);
        let each = hosts.into_iter().map(complete).collect();
        Ok(Some(Arc::new(Hosts::new(each, attributes, 0, None))))
    }

    /// Adds the settings of a store's connections.
    fn complete(&self, host: PgConnectOptions, server: Server) -> PgConnectOptions {
        let to = host.application_name(&self.application_name);
        if server == Server::Pooled {
            // sqlx sets this one, for how floats are printed.
            return to.extra_float_digits(None);
        }
        // A setting in the URL takes precedence.
        let brought = to.get_options().unwrap_or_default().to_owned();
        let own = SETTINGS.into_iter().filter(|(name, _)| {
            !brought.contains(name) && (server != Server::Citus || *name != PLANS)
        });
        to.options(own)
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
            .field("trace_context", &self.trace_context)
            .field("install", &self.install)
            .field("pgbouncer", &self.pgbouncer)
            .field("listen_url", &self.listen_url.is_some())
            .finish_non_exhaustive()
    }
}
