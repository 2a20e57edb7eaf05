//! `consumer()`: a registered consumer of one queue, for long-running services that operators can watch, suspend and
//! stop. [`run`](Consumer::run) passes each message to a handler. To receive single messages without a registration,
//! use [`dequeue()`](crate::dequeue()).

pub(crate) mod handle;
pub(crate) mod in_transaction;

use std::{fmt, marker::PhantomData, ops::Deref, sync::Arc, time::Duration};

use serde::de::DeserializeOwned;

use self::{handle::ConsumerHandle, in_transaction::in_transaction};
use crate::{
    chunk::Chunk,
    consume::{ChunkLimits, Chunks, Single},
    delivery::{Delivery, lease::LONGEST_LEASE},
    dequeue::{Dequeue, FromQueue, dequeue},
    error::Result,
    executor::Execute,
    handler::{Handling, IntoOutcome},
    lifecycle::WorkerKind,
    queue::{IntoQueue, Readable, Untyped},
    run::Run,
    store::Store,
    transaction::HandlerTransaction,
    worker::{Applicant, Receives, Registration, Worker, sealed::Registered},
};

/// Starts the registration of a consumer.
///
/// # Shape
/// The queue is a name, or a [`Queue`](crate::Queue) with a type. The consumer is anonymous unless it has an
/// [`identity`](ConsumerBuilder::identity).
///
/// # Example
/// ```no_run
/// # async fn example(store: pgqrs::Store) -> pgqrs::Result<()> {
/// use pgqrs::Delivery;
/// use serde_json::Value;
///
/// let consumer = pgqrs::consumer("tasks").create(&store).await?;
/// let report = consumer
///     .run(|delivery: Delivery<Value>| async move {
///         println!("{}", delivery.payload());
///         pgqrs::Ok(())
///     })
///     .concurrency(8)
///     .with_graceful_shutdown(pgqrs::shutdown_signal())
///     .await?;
/// println!("{report:?}");
/// # Ok(())
/// # }
/// ```
pub fn consumer<Q>(queue: Q) -> ConsumerBuilder<Q::Carries>
where
    Q: IntoQueue,
    Q::Carries: Readable,
{
    ConsumerBuilder {
        applicant: Applicant::anonymous(WorkerKind::Consumer, queue),
        carries: PhantomData,
    }
}

/// A consumer about to be registered; made by [`consumer`].
///
/// # Example
/// ```no_run
/// # async fn example(store: pgqrs::Store) -> pgqrs::Result<()> {
/// use std::time::Duration;
///
/// let consumer = pgqrs::consumer("tasks")
///     .identity("my-service", 3001)
///     .heartbeat_interval(Duration::from_secs(5))
///     .replace(true)
///     .create(&store)
///     .await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "a consumer is registered by `.create(&store).await`"]
pub struct ConsumerBuilder<C = Untyped> {
    applicant: Applicant,
    carries: PhantomData<fn() -> C>,
}

impl<C> ConsumerBuilder<C> {
    /// Sets the host and the port of the process, so that no second running consumer has the same host, port and queue.
    /// Defaults to an anonymous consumer, with the machine's host name, of which there may be any number.
    ///
    /// # Errors
    /// From [`create`](Self::create): [`Error::WorkerExists`](crate::Error::WorkerExists),
    /// [`Error::InvalidHostname`](crate::Error::InvalidHostname).
    pub fn identity(mut self, hostname: impl Into<String>, port: u16) -> Self {
        (self.applicant.hostname, self.applicant.port) = (hostname.into(), port);
        self
    }

    /// Heartbeat interval, from 10 ms to a day; defaults to 15 seconds. A worker that misses four heartbeats in a row
    /// counts as crashed, and another can take over its identity.
    pub fn heartbeat_interval(mut self, interval: Duration) -> Self {
        self.applicant.heartbeat_interval = interval;
        self
    }

    /// Whether to replace a running consumer of the same host, port and queue too. Defaults to false: then
    /// [`create`](Self::create) returns [`Error::WorkerExists`](crate::Error::WorkerExists).
    ///
    /// The replaced consumer is stopped, and its run ends. Use it to restart a crashed service at once, before its old
    /// consumer counts as crashed.
    pub fn replace(mut self, replace: bool) -> Self {
        self.applicant.replace = replace;
        self
    }

    /// Registers the consumer.
    ///
    /// If a consumer with the same host, port and queue has crashed, this one takes its place, with an id of its own.
    ///
    /// # Errors
    /// [`Error::WorkerExists`](crate::Error::WorkerExists) if one with the same host, port and queue is running;
    /// [`Error::InvalidHostname`](crate::Error::InvalidHostname) for an empty host, one of more than 255 bytes, or one
    /// with control characters; [`Error::QueueNotFound`](crate::Error::QueueNotFound),
    /// [`Error::InvalidQueueName`](crate::Error::InvalidQueueName),
    /// [`Error::NotInstalled`](crate::Error::NotInstalled). On an error, no row is stored.
    ///
    /// # Source
    /// One `insert into pgqrs.workers … on conflict do nothing`, backed by a unique index.
    pub fn create(self, store: &Store) -> Execute<'_, Result<Consumer<C>>>
    where
        C: 'static,
    {
        Execute::new(async move {
            let registration = self.applicant.register(store).await?;
            Ok(Consumer {
                handle: ConsumerHandle::new(registration),
                store: store.clone(),
            })
        })
    }
}

/// A registered consumer.
///
/// It is a [`Worker`], and has that trait's methods whether or not it is imported. Dropping it and all of
/// its [`handle`](Self::handle)s stops its heartbeat; call [`shutdown`](Worker::shutdown) to free its
/// identity at once.
pub struct Consumer<C = Untyped> {
    handle: ConsumerHandle<C>,
    store: Store,
}

/// Maximum number of messages of a chunk.
const LARGEST_CHUNK: usize = 10_000;

impl<C: 'static> Consumer<C> {
    /// Starts a dequeue through this consumer, from its queue.
    ///
    /// ```compile_fail,E0277
    /// # async fn example(consumer: pgqrs::Consumer) {
    /// consumer.dequeue().from("emails"); // it has its queue
    /// # }
    /// ```
    pub fn dequeue(&self) -> Dequeue<FromQueue<C::Payload>>
    where
        C: Readable,
    {
        dequeue().worker(self)
    }

    /// Returns a handle of the same consumer, to watch or stop it while it runs.
    pub fn handle(&self) -> ConsumerHandle<C> {
        self.handle.clone()
    }

    /// Receives messages and passes each to the handler, until it is stopped. Nothing happens until this is awaited, or
    /// spawned as a task. Options are set on the [`Run`].
    ///
    /// # Shape
    /// The handler takes the delivery, and returns `Result<(), E>`, an [`Outcome`](crate::Outcome), or a `Result` of
    /// that. `Ok(())` acknowledges the message. An error or a panic is a failed attempt: the message is delivered again
    /// after the wait of the [retry policy](Run::retry), or becomes a dead letter if its attempts are used up, which
    /// are 20 unless the queue is [configured](crate::Admin::configure_queue) otherwise. A handler that has settled the
    /// delivery itself, in its own transaction, returns `Ok(())` too.
    ///
    /// While a handler runs, its message's lease is extended. Messages whose payload doesn't decode never reach the
    /// handler: they [wait for a consumer of another version](Run::undecodable), and then become dead letters. While the
    /// database is unavailable, the loop retries, with a wait that grows up to five seconds.
    ///
    /// Acknowledgements are made in batches, a moment after the handlers have returned: if the process crashes in
    /// between, those messages are delivered again. Acknowledgements are durable.
    ///
    /// Dropping the future, instead of stopping it gracefully, aborts the handlers; their messages are delivered again
    /// within two seconds after their leases have run out.
    ///
    /// # Errors
    /// [`Error::NotInstalled`](crate::Error::NotInstalled), [`Error::SchemaOutdated`](crate::Error::SchemaOutdated),
    /// [`Error::PermissionDenied`](crate::Error::PermissionDenied),
    /// [`Error::QueueNotFound`](crate::Error::QueueNotFound), [`Error::Closed`](crate::Error::Closed): errors that a
    /// retry can't fix; [`Error::LeaseOutOfRange`](crate::Error::LeaseOutOfRange). If another process stops the worker,
    /// that is no error: the run ends with its report.
    ///
    /// # Example
    /// See [`consumer`], and `examples/worker.rs`, `examples/transactional_handler.rs`.
    pub fn run<F, R, O, P>(self, handler: F) -> Run<Delivery<P>>
    where
        C: Readable<Payload = P>,
        P: Send + Sync + DeserializeOwned + 'static,
        F: Fn(Delivery<P>) -> R + Send + Sync + 'static,
        R: Handling<O> + Send + 'static,
        O: IntoOutcome,
    {
        Run::new(self.handle, self.store, handler, Single)
    }

    /// As [`run`](Self::run), with a handler that takes many messages at once: one `insert` for a hundred rows.
    ///
    /// # Shape
    /// The handler takes a [`Chunk`] of up to `size` messages, from 1 to 10,000. One that isn't full is passed to it
    /// when `wait` has passed since its first message was received. [`concurrency`](Run::concurrency) is the number of
    /// chunks that are handled at once, and [`handler_timeout`](Run::handler_timeout) is for a chunk.
    ///
    /// `Ok(())` acknowledges all of its messages, in one statement. An error, a panic or a timeout is a failed attempt
    /// of all of them, except those that the handler has settled one by one. A payload that doesn't decode waits for
    /// [a consumer of another version](Run::undecodable), and its chunk has one message less.
    ///
    /// # Shape
    /// `size` is 1 to 10,000 messages, and `wait` at most a day; beyond these, the nearest limit counts. A chunk is
    /// handled earlier, and smaller, if the consumer holds all the [bytes](Run::prefetch_bytes) that it may. The leases of
    /// messages that wait for their chunk are extended.
    ///
    /// # Errors
    /// Those of [`run`](Self::run).
    ///
    /// # Example
    /// ```no_run
    /// use std::time::Duration;
    ///
    /// use pgqrs::{Chunk, Store};
    ///
    /// async fn store_readings(store: Store, chunk: Chunk<i64>) -> Result<(), sqlx::Error> {
    ///     let values: Vec<i64> = chunk.payloads().copied().collect();
    ///     sqlx::query("insert into readings (value) select unnest($1::bigint[])")
    ///         .bind(values)
    ///         .execute(store.pool())
    ///         .await?;
    ///     Ok(())
    /// }
    ///
    /// # async fn example(store: Store) -> pgqrs::Result<()> {
    /// let readings = pgqrs::Queue::<i64>::new("readings");
    /// let consumer = pgqrs::consumer(readings).create(&store).await?;
    /// consumer
    ///     .run_chunks(100, Duration::from_millis(200), move |chunk| {
    ///         store_readings(store.clone(), chunk)
    ///     })
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn run_chunks<F, R, O, P>(self, size: usize, wait: Duration, handler: F) -> Run<Chunk<P>>
    where
        C: Readable<Payload = P>,
        P: Send + Sync + DeserializeOwned + 'static,
        F: Fn(Chunk<P>) -> R + Send + Sync + 'static,
        R: Handling<O> + Send + 'static,
        O: IntoOutcome,
    {
        let limits = ChunkLimits {
            size: size.clamp(1, LARGEST_CHUNK),
            wait: wait.min(LONGEST_LEASE),
        };
        Run::new(self.handle, self.store, handler, move |handler| Chunks {
            handler,
            limits,
        })
    }

    /// As [`run`](Self::run), with a transaction for each message, in which the message is acknowledged: what the
    /// handler writes is stored once, however often the message is delivered.
    ///
    /// # Shape
    /// The handler takes the delivery and a transaction on the store's pool. If it returns `Ok(())` or
    /// [`Outcome::Archive`](crate::Outcome::Archive), the message is acknowledged or archived in that transaction, which
    /// is then committed, and consumers of the queues that it has sent to are woken. Otherwise it is rolled back: after
    /// an error, a panic, a timeout, any other [`Outcome`](crate::Outcome), and if the message's lease was lost or the message cancelled.
    ///
    /// The handler can't commit the transaction, and must not keep it, as in a task that it doesn't wait for: then
    /// nothing is committed, and the attempt fails. A handler that works for long keeps the transaction open for long.
    ///
    /// # Errors
    /// Those of [`run`](Self::run). If no transaction can be begun, or the commit fails, the attempt fails.
    ///
    /// # Example
    /// ```no_run
    /// # async fn example(store: pgqrs::Store) -> pgqrs::Result<()> {
    /// let payments = pgqrs::Queue::<i64>::new("payments");
    /// let consumer = pgqrs::consumer(payments).create(&store).await?;
    /// consumer
    ///     .run_in_transaction(|delivery, mut tx| async move {
    ///         sqlx::query("update accounts set cents = cents + $1")
    ///             .bind(delivery.payload())
    ///             .execute(&mut **tx)
    ///             .await?;
    ///         pgqrs::enqueue().message(&"paid").to("receipts").execute(&mut tx).await?;
    ///         pgqrs::Ok(())
    ///     })
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn run_in_transaction<F, R, O, P>(self, handler: F) -> Run<Delivery<P>>
    where
        C: Readable<Payload = P>,
        P: Send + Sync + DeserializeOwned + 'static,
        F: Fn(Delivery<P>, HandlerTransaction) -> R + Send + Sync + 'static,
        R: Handling<O> + Send + 'static,
        O: IntoOutcome,
    {
        let (store, handler) = (self.store.clone(), Arc::new(handler));
        self.run(move |delivery| {
            let (store, handler) = (store.clone(), Arc::clone(&handler));
            async move { in_transaction(store, &*handler, delivery).await }
        })
    }

    /// As [`run`](Self::run), with state that the handlers share: each call gets a clone of it.
    ///
    /// # Shape
    /// The state is cheap to clone: a pool, a client, or an [`Arc`] of what the service needs.
    ///
    /// # Errors
    /// Those of [`run`](Self::run).
    ///
    /// # Example
    /// ```no_run
    /// use std::sync::Arc;
    ///
    /// use pgqrs::Delivery;
    /// use serde_json::Value;
    ///
    /// struct App {
    ///     sender: String,
    /// }
    ///
    /// # async fn example(store: pgqrs::Store) -> pgqrs::Result<()> {
    /// let app = Arc::new(App { sender: "noreply@example.com".into() });
    /// let consumer = pgqrs::consumer("emails").create(&store).await?;
    /// consumer
    ///     .run_with(app, |app, delivery: Delivery<Value>| async move {
    ///         println!("from {}: {}", app.sender, delivery.payload());
    ///         pgqrs::Ok(())
    ///     })
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn run_with<S, F, R, O, P>(self, state: S, handler: F) -> Run<Delivery<P>>
    where
        C: Readable<Payload = P>,
        P: Send + Sync + DeserializeOwned + 'static,
        S: Clone + Send + Sync + 'static,
        F: Fn(S, Delivery<P>) -> R + Send + Sync + 'static,
        R: Handling<O> + Send + 'static,
        O: IntoOutcome,
    {
        self.run(move |delivery| handler(state.clone(), delivery))
    }
}

impl<C> Registered for Consumer<C> {
    fn registration(&self) -> &Registration {
        self.handle.registration()
    }
}

#[diagnostic::do_not_recommend]
impl<C> Worker for Consumer<C> {
    type Carries = C;
    type Role = Receives;
}

// A trait object has its trait's methods without an import: so `consumer.heartbeat()` needs none.
impl<C: 'static> Deref for Consumer<C> {
    type Target = dyn Worker<Carries = C, Role = Receives>;

    fn deref(&self) -> &Self::Target {
        self
    }
}

impl<C> fmt::Debug for Consumer<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Consumer")
            .field(self.registration())
            .finish()
    }
}
