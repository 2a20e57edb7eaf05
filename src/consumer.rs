//! `consumer()`: a registered receiver of one queue. For long-running services, which others can watch,
//! suspend and stop. Receiving a message needs none of it; [`run`](Consumer::run) does all the rest.

use std::{fmt, marker::PhantomData, ops::Deref, sync::Arc, time::Duration};

use tokio::sync::watch;

use crate::{
    consume::{Options, Stop},
    delivery::Delivery,
    dequeue::{Dequeue, FromQueue, LONGEST_LEASE, SHORTEST_LEASE, dequeue},
    error::{Error, Result},
    executor::Execute,
    handler::{Handling, IntoOutcome},
    lifecycle::WorkerKind,
    queue::{IntoQueue, Readable, Untyped},
    retry::RetryPolicy,
    run::Run,
    store::Store,
    worker::{Applicant, Receives, Registration, Worker, sealed::Registered},
};

/// Starts the registration of a consumer.
///
/// # Shape
/// The host and the port are what others will know it by; with port 0 it is anonymous. The queue is a
/// name, or a [`Queue`](crate::Queue) with a type.
///
/// # Example
/// ```no_run
/// # async fn example(store: pgqrs::Store) -> pgqrs::Result<()> {
/// use pgqrs::{Delivery, Outcome};
/// use serde_json::Value;
///
/// let consumer = pgqrs::consumer("my-service", 3001, "tasks").concurrency(8).create(&store).await?;
/// let report = consumer
///     .run(|delivery: Delivery<Value>| async move {
///         println!("{}", delivery.payload()?);
///         Ok::<_, pgqrs::Error>(())
///     })
///     .with_graceful_shutdown(async { tokio::signal::ctrl_c().await.unwrap_or(()) })
///     .await?;
/// println!("{report:?}");
/// # Ok(())
/// # }
/// ```
pub fn consumer<Q: IntoQueue>(
    hostname: impl Into<String>,
    port: u16,
    queue: Q,
) -> ConsumerBuilder<Q::Carries> {
    ConsumerBuilder {
        applicant: Applicant::new(WorkerKind::Consumer, hostname.into(), port, queue),
        options: Options::default(),
        carries: PhantomData,
    }
}

/// A consumer about to be registered; made by [`consumer`].
#[derive(Debug)]
#[must_use = "a consumer is registered by `.create(&store).await`"]
pub struct ConsumerBuilder<C = Untyped> {
    applicant: Applicant,
    options: Options,
    carries: PhantomData<fn() -> C>,
}

impl<C> ConsumerBuilder<C> {
    /// How many handlers run at once; 8 unless told, and at least 1.
    pub fn concurrency(mut self, handlers: usize) -> Self {
        self.options.concurrency = handlers.max(1);
        self
    }

    /// The most messages to hold ready beyond those being handled; 512 unless told. Fewer are fetched where
    /// handlers take their time, so that other consumers get their share: about as many as are handled in a
    /// twentieth of a second.
    pub fn prefetch(mut self, messages: usize) -> Self {
        self.options.prefetch = messages.min(5_000);
        self
    }

    /// The most bytes of payload to hold, ready or being handled; defaults to 64 MiB. One message is fetched whatever its
    /// size. Payloads are counted as JSON: decoded, they may take more.
    pub fn prefetch_bytes(mut self, bytes: usize) -> Self {
        self.options.max_bytes = bytes;
        self
    }

    /// How long a message stays away from others if this consumer crashes, from a millisecond to a day; 30
    /// seconds unless told. While its handler runs, the lease is extended every third of this.
    ///
    /// Over a link on which a single message takes longer than a third of this to arrive, messages stay away for up to three
    /// times as long as that takes.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.options.lease = lease;
        self
    }

    /// How soon a message is found that nothing hints at: a delayed one, or one enqueued in a transaction;
    /// 250 milliseconds unless told, and at least one.
    pub fn poll_interval(mut self, interval: Duration) -> Self {
        self.options.poll_interval = interval.clamp(Duration::from_millis(1), LONGEST_LEASE);
        self
    }

    /// How long a message waits after a failed attempt.
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.options.retry = policy;
        self
    }

    /// Cuts a handler off after this time, and counts that as a failed attempt. Without it, a handler may
    /// run for ever.
    pub fn handler_timeout(mut self, timeout: Duration) -> Self {
        self.options.handler_timeout = Some(timeout);
        self
    }

    /// Whether to be woken by other processes through LISTEN, on a connection of its own that all of a
    /// store's consumers share; true unless told. Otherwise they are found by polling.
    pub fn listen(mut self, listen: bool) -> Self {
        self.options.listen = listen;
        self
    }

    /// How often it says that it lives, from 10 ms to a day; 15 seconds unless told. When four in a row
    /// are missing, it counts as crashed, and another can take over its identity.
    pub fn heartbeat_interval(self, interval: Duration) -> Self {
        Self {
            applicant: self.applicant.heartbeat_interval(interval),
            ..self
        }
    }

    /// Whether to take the place of a live worker of the same identity, too, whose handle then finds itself stopped; defaults
    /// to false. For a restart after a crash that must not wait until the old one counts as crashed.
    pub fn replace(self, replace: bool) -> Self {
        Self {
            applicant: self.applicant.replace(replace),
            ..self
        }
    }

    /// Registers it.
    ///
    /// Where a consumer of the same host, port and queue has crashed, this one takes its place, with a key
    /// of its own.
    ///
    /// # Errors
    /// [`Error::LeaseOutOfRange`]; [`Error::WorkerExists`] where one of the same host, port and queue
    /// lives; [`Error::InvalidHostname`] for an empty host, one of more than 255 bytes, or one with control
    /// characters; [`Error::QueueNotFound`], [`Error::InvalidQueueName`], [`Error::NotInstalled`]. No row
    /// is left behind.
    ///
    /// # Source
    /// One `insert into pgqrs.workers … on conflict do nothing`, held by a unique index.
    pub fn create(self, store: &Store) -> Execute<'_, Result<Consumer<C>>>
    where
        C: 'static,
    {
        Execute::new(async move {
            let Self {
                applicant, options, ..
            } = self;
            if !(SHORTEST_LEASE..=LONGEST_LEASE).contains(&options.lease) {
                let (lease, min, max) = (options.lease, SHORTEST_LEASE, LONGEST_LEASE);
                return Err(Error::LeaseOutOfRange { lease, min, max });
            }
            let registration = applicant.retry(options.retry).register(store).await?;
            let stop = watch::Sender::new(Stop::Running);
            let handle = ConsumerHandle {
                registration,
                stop,
                carries: PhantomData,
            };
            Ok(Consumer {
                handle,
                store: store.clone(),
                options,
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
    options: Options,
}

impl<C: 'static> Consumer<C> {
    /// Starts a dequeue through this consumer, so that its queue is set.
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
        dequeue().lease(self.options.lease).worker(self)
    }

    /// Another handle of the same worker, for whoever watches or stops it while it runs.
    pub fn handle(&self) -> ConsumerHandle<C> {
        self.handle.clone()
    }

    /// Receives messages and hands each to the handler, until it is told to stop. Nothing happens until
    /// this is awaited.
    ///
    /// # Shape
    /// The handler takes the delivery, and gives `Result<(), E>`, an [`Outcome`](crate::Outcome), or a
    /// `Result` of that. `Ok(())` acknowledges the message; an error, like a panic, is a failed attempt,
    /// after which the message waits by the retry policy, or becomes a dead letter where its attempts are
    /// used up. A handler that has settled the delivery by itself, in its own transaction, returns `Ok(())`
    /// too.
    ///
    /// While a handler runs, its message's lease is extended. Messages whose payload doesn't decode become
    /// dead letters and never reach the handler. When the database is away, the loop waits, longer each
    /// time up to five seconds, and goes on.
    ///
    /// Acknowledgements are made in batches, a moment after the handlers have returned: where the process
    /// crashes in between, those messages are delivered again. What is acknowledged is on the disk.
    ///
    /// Dropping the future, instead of stopping it gracefully, aborts the handlers; their messages come
    /// back when the leases run out.
    ///
    /// # Errors
    /// [`Error::NotInstalled`], [`Error::SchemaOutdated`], [`Error::QueueNotFound`], [`Error::Closed`]:
    /// what waiting doesn't mend. A worker that others have stopped ends with a report.
    ///
    /// # Example
    /// See [`consumer`], and `examples/worker.rs`, `examples/transactional_handler.rs`.
    pub fn run<F, R, O>(self, handler: F) -> Run<C>
    where
        C: Readable,
        F: Fn(Delivery<C::Payload>) -> R + Send + Sync + 'static,
        R: Handling<O> + Send + 'static,
        O: IntoOutcome,
    {
        Run::new(self.handle, self.store, self.options, handler)
    }
}

/// A handle of a consumer that is, or will be, running. Cheap to clone.
///
/// It is a [`Worker`] too: the same one.
pub struct ConsumerHandle<C = Untyped> {
    registration: Arc<Registration>,
    stop: watch::Sender<Stop>,
    carries: PhantomData<fn() -> C>,
}

impl<C> ConsumerHandle<C> {
    /// Stops [`run`](Consumer::run) gracefully: no more claims; handlers finish, up to the deadline; what is left goes
    /// back to the queue. Returns at once; the report is what `run` returns.
    pub fn stop(&self) {
        self.request(Stop::Graceful);
    }

    /// Stops [`run`](Consumer::run) without waiting for handlers: they are aborted, and their messages go back to the
    /// queue. For a second signal, or instead of the first. Returns at once; `run` ends within about two seconds, also if
    /// the server is away.
    pub fn abort(&self) {
        self.request(Stop::Abort);
    }

    fn request(&self, stop: Stop) {
        self.stop.send_if_modified(|asked| {
            let is_more = stop > *asked;
            *asked = stop.max(*asked);
            is_more
        });
    }

    pub(crate) fn stop_requests(&self) -> watch::Receiver<Stop> {
        self.stop.subscribe()
    }
}

impl<C> Clone for ConsumerHandle<C> {
    fn clone(&self) -> Self {
        Self {
            registration: Arc::clone(&self.registration),
            stop: self.stop.clone(),
            carries: PhantomData,
        }
    }
}

impl<C> Registered for ConsumerHandle<C> {
    fn registration(&self) -> &Registration {
        &self.registration
    }
}

#[diagnostic::do_not_recommend]
impl<C> Worker for ConsumerHandle<C> {
    type Carries = C;
    type Role = Receives;
}

impl<C> Registered for Consumer<C> {
    fn registration(&self) -> &Registration {
        &self.handle.registration
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

impl<C: 'static> Deref for ConsumerHandle<C> {
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

impl<C> fmt::Debug for ConsumerHandle<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ConsumerHandle")
            .field(self.registration())
            .finish()
    }
}
