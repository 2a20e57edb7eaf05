//! `consumer.run(..)`: the settings of a run, how it stops, and what it reports at its end. The loop itself is in
//! `consume/`.

use std::{
    fmt,
    future::{Future, pending},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, timeout_at};

#[cfg(doc)]
use crate::error::Error;
use crate::{
    around::{Layer, Layered, Next, layer},
    consume::{self, Ended, Job, Options, Work},
    consumer::handle::ConsumerHandle,
    delivery::lease::{LONGEST_LEASE, check_lease},
    error::{Result, error_chain},
    executor::Execute,
    handler::{Handling, IntoOutcome},
    queue::Readable,
    report::Report,
    retry::{RetryPolicy, UndecodablePolicy},
    store::Store,
    telemetry,
    worker::{Worker, sealed::Registered},
};

/// A consumer that runs as soon as this is awaited or spawned; made by [`Consumer::run`](crate::Consumer::run).
///
/// # Shape
/// A future that returns the [`Report`]; `I` is what the handler takes: a [`Delivery`](crate::Delivery) or a
/// [`Chunk`](crate::Chunk). A process that runs several consumers spawns each:
///
/// ```no_run
/// # use pgqrs::Delivery;
/// # use serde_json::Value;
/// # async fn handle(_: Delivery<Value>) -> pgqrs::Result<()> { Ok(()) }
/// # async fn example(store: pgqrs::Store) -> Result<(), Box<dyn std::error::Error>> {
/// use tokio::task::JoinSet;
///
/// let mut runs = JoinSet::new();
/// for queue in ["emails", "invoices"] {
///     let consumer = pgqrs::consumer(queue).create(&store).await?;
///     runs.spawn(consumer.run(handle).with_graceful_shutdown(pgqrs::shutdown_signal()));
/// }
/// while let Some(ended) = runs.join_next().await {
///     println!("{:?}", ended??);
/// }
/// # Ok(())
/// # }
/// ```
///
/// # Units
///
/// | setting | meaning | default |
/// |---|---|---|
/// | [`concurrency`](Self::concurrency) | handlers that run at once | 8 |
/// | [`lease`](Self::lease) | how long no other consumer gets its messages if it crashes | 30 s |
/// | [`retry`](Self::retry) | how long a message waits after a failed attempt | 1 s, doubled up to 1 h |
/// | [`undecodable`](Self::undecodable) | how long a message waits that doesn't decode, and until when | 1 min, for 1 h |
/// | [`handler_timeout`](Self::handler_timeout) | how long a handler may run | no limit |
/// | [`cancel_grace`](Self::cancel_grace) | how long a handler may go on after its message was cancelled | 5 s |
/// | [`prefetch`](Self::prefetch) | messages held ready for handlers, at most | 2,048 |
/// | [`prefetch_bytes`](Self::prefetch_bytes) | bytes of payload held, at most | 64 MiB |
/// | [`poll_interval`](Self::poll_interval) | how often it looks for messages without a notification | 250 ms |
/// | [`listen`](Self::listen) | whether other processes can wake it, through LISTEN | true |
/// | [`with_graceful_shutdown`](Self::with_graceful_shutdown) | when it stops | never |
/// | [`shutdown_deadline`](Self::shutdown_deadline) | how long stopping takes, at most | 25 s |
#[must_use = "a consumer does nothing until this is awaited or spawned: add `.await`"]
pub struct Run<I> {
    /// Until it is first polled.
    idle: Option<Box<Idle<I>>>,
    /// Once it was polled.
    running: Option<Execute<'static, Result<Report>>>,
}

/// A run that can still be changed.
struct Idle<I> {
    options: Options,
    shutdown: Shutdown,
    deadline: Duration,
    layers: Vec<Layer<I>>,
    start: Start<I>,
}

/// Knows the handler, so that a run's type doesn't contain the handler's, and a wrong handler is reported once.
type Start<I> = Box<
    dyn FnOnce(Options, Shutdown, Duration, Vec<Layer<I>>) -> Execute<'static, Result<Report>>
        + Send,
>;
type Shutdown = Pin<Box<dyn Future<Output = ()> + Send>>;

impl<I: 'static> Run<I> {
    pub(crate) fn new<C, F, R, W>(
        handle: ConsumerHandle<C>,
        store: Store,
        handler: F,
        work: impl FnOnce(Layered<I, F>) -> W + Send + 'static,
    ) -> Self
    where
        C: Readable + 'static,
        F: Fn(I) -> R + Send + Sync + 'static,
        R: Future<Output: IntoOutcome> + Send + 'static,
        W: Work,
    {
        let idle = Idle {
            options: Options::default(),
            shutdown: Box::pin(pending()),
            deadline: Duration::from_secs(25),
            layers: Vec::new(),
            start: Box::new(move |options, shutdown, deadline, layers| {
                let work = work(Layered::new(handler, layers));
                start(handle, store, options, work, shutdown, deadline)
            }),
        };
        Self {
            idle: Some(Box::new(idle)),
            running: None,
        }
    }

    /// Changes a setting, which has no effect once it runs.
    fn set(mut self, set: impl FnOnce(&mut Idle<I>)) -> Self {
        if let Some(idle) = &mut self.idle {
            set(idle);
        }
        self
    }

    /// How many handlers run at once; defaults to 8, and is at least 1.
    pub fn concurrency(self, handlers: usize) -> Self {
        self.set(|idle| idle.options.concurrency = handlers.max(1))
    }

    /// Maximum number of messages to hold ready beyond those being handled; defaults to 2,048, and is at most 5,000. If
    /// handlers are slow, fewer are claimed ahead, so that other consumers get some: about as many as are handled in a
    /// twentieth of a second.
    pub fn prefetch(self, messages: usize) -> Self {
        self.set(|idle| idle.options.prefetch = messages.min(5_000))
    }

    /// Maximum size of all payloads held, ready or being handled, in bytes; defaults to 64 MiB. A single message is
    /// claimed even if it is larger. Payloads are counted as JSON: decoded, they may take more.
    pub fn prefetch_bytes(self, bytes: usize) -> Self {
        self.set(|idle| idle.options.max_bytes = bytes)
    }

    /// How long no other consumer gets this consumer's messages if it crashes, from a millisecond to a day; defaults to
    /// 30 seconds. While a message's handler runs, the lease is extended every third of this. A message whose lease has
    /// run out is found within two seconds by a consumer that can take another one.
    ///
    /// If a single message takes longer than a third of this to arrive, over a slow link, leases are made longer: up to
    /// three times that time.
    ///
    /// # Errors
    /// A lease out of these limits ends the run with [`Error::LeaseOutOfRange`].
    pub fn lease(self, lease: Duration) -> Self {
        self.set(|idle| idle.options.lease = lease)
    }

    /// How often an idle consumer looks for messages of which no notification is sent, such as delayed ones, those
    /// enqueued in a transaction of another library, and those whose lease has run out; defaults to 250 milliseconds,
    /// and is at least one.
    pub fn poll_interval(self, interval: Duration) -> Self {
        let interval = interval.clamp(Duration::from_millis(1), LONGEST_LEASE);
        self.set(|idle| idle.options.poll_interval = interval)
    }

    /// How long a message waits after a failed attempt; defaults to [`RetryPolicy::default`].
    pub fn retry(self, policy: RetryPolicy) -> Self {
        self.set(|idle| idle.options.retry = policy)
    }

    /// What happens to a message whose payload doesn't decode; defaults to [`UndecodablePolicy::default`]: it waits for a
    /// minute, without using an attempt, and becomes a dead letter an hour after that was first seen.
    pub fn undecodable(self, policy: UndecodablePolicy) -> Self {
        self.set(|idle| idle.options.undecodable = policy)
    }

    /// Drops a handler's future after this time, which counts as a failed attempt; defaults to no limit.
    pub fn handler_timeout(self, timeout: Duration) -> Self {
        self.set(|idle| idle.options.handler_timeout = Some(timeout))
    }

    /// How long a handler may go on after its message was [cancelled](crate::Admin::cancel); defaults to five seconds.
    /// Then its future is dropped. Zero drops it at once. A handler can notice before by
    /// [`Delivery::cancelled`](crate::Delivery::cancelled). The handler of a chunk is dropped only if all messages of the
    /// chunk are cancelled.
    pub fn cancel_grace(self, grace: Duration) -> Self {
        let grace = grace.min(LONGEST_LEASE);
        self.set(|idle| idle.options.cancel_grace = grace)
    }

    /// Puts a closure around the handler, for what a service does for each message: to measure how long it takes, to
    /// set the user that it is done for, to decide what an error means.
    ///
    /// # Shape
    /// The closure takes the delivery (of [`run_chunks`](crate::Consumer::run_chunks), the chunk), and the [`Next`] to
    /// pass it to. What it returns settles the message, as what a handler returns: mostly, what `next` has returned.
    /// If it doesn't call `next`, the handler isn't called. Of several closures, the last one is the outermost, and is
    /// called first.
    ///
    /// [`handler_timeout`](Self::handler_timeout) is for all of them together. A panic of the handler unwinds through
    /// them. A payload that doesn't decode doesn't reach them.
    ///
    /// # Example
    /// ```no_run
    /// # use pgqrs::Delivery;
    /// # async fn handle(_: Delivery<serde_json::Value>) -> Result<(), std::io::Error> { Ok(()) }
    /// # async fn example(consumer: pgqrs::Consumer) -> pgqrs::Result<()> {
    /// consumer
    ///     .run(handle)
    ///     .around(|delivery, next| async move {
    ///         let (id, began) = (delivery.id(), std::time::Instant::now());
    ///         let outcome = next.run(delivery).await;
    ///         println!("message {id} took {:?}", began.elapsed());
    ///         outcome
    ///     })
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn around<F, R, O>(self, around: F) -> Self
    where
        F: Fn(I, Next<I>) -> R + Send + Sync + 'static,
        R: Handling<O> + Send + 'static,
        O: IntoOutcome,
    {
        self.set(|idle| idle.layers.push(layer(around)))
    }

    /// Whether other processes can wake it, through LISTEN, on one additional connection that all of a store's
    /// consumers share; defaults to true. Otherwise it finds messages of other processes by polling.
    pub fn listen(self, listen: bool) -> Self {
        self.set(|idle| idle.options.listen = listen)
    }

    /// Stops when this future is ready, as [`ConsumerHandle::stop`] does; defaults to never. For Ctrl-C and SIGTERM,
    /// pass [`shutdown_signal`](crate::shutdown_signal()).
    ///
    /// To end at once on a second signal, call [`ConsumerHandle::abort`].
    pub fn with_graceful_shutdown(self, signal: impl Future<Output = ()> + Send + 'static) -> Self {
        self.set(|idle| idle.shutdown = Box::pin(signal))
    }

    /// How long the shutdown takes at most, from the signal until this future is ready; defaults to 25 seconds, since
    /// Kubernetes kills a container after 30.
    ///
    /// The limit holds even if the server is unavailable. Handlers go on until five seconds before the deadline (or
    /// until half of the time, if that is shorter than ten seconds). Then they are aborted, and their messages
    /// released; messages that were handled are settled, and the worker's identity is freed.
    pub fn shutdown_deadline(self, deadline: Duration) -> Self {
        // Far beyond any use, but well within what an instant can hold.
        let deadline = deadline.min(Duration::from_secs(365 * 24 * 60 * 60));
        self.set(|idle| idle.deadline = deadline)
    }
}

impl<I> fmt::Debug for Run<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut run = f.debug_struct("Run");
        if let Some(idle) = &self.idle {
            run.field("options", &idle.options)
                .field("deadline", &idle.deadline);
        }
        run.finish_non_exhaustive()
    }
}

impl<I> Future for Run<I> {
    type Output = Result<Report>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(idle) = self.idle.take() {
            let running = (idle.start)(idle.options, idle.shutdown, idle.deadline, idle.layers);
            self.running = Some(running);
        }
        match &mut self.running {
            Some(running) => Pin::new(running).poll(context),
            // One of the two is always set.
            None => Poll::Pending,
        }
    }
}

fn start<C: Readable + 'static>(
    handle: ConsumerHandle<C>,
    store: Store,
    options: Options,
    work: impl Work,
    shutdown: Shutdown,
    deadline: Duration,
) -> Execute<'static, Result<Report>> {
    Execute::new(async move {
        let connections = store.max_connections();
        if options.concurrency >= connections as usize {
            telemetry::more_handlers_than_connections(
                handle.id(),
                handle.queue(),
                options.concurrency,
                connections,
            );
        }
        telemetry::consumer_started(handle.id(), handle.queue(), &options.settings(deadline));
        let lease = check_lease(options.lease);
        let job = Job {
            queue: handle.queue().clone(),
            worker: handle.id(),
            store,
            options,
            work,
            shutdown,
            stop: handle.stop_requests(),
            deadline,
        };
        let ended = match lease {
            Ok(()) => consume::start(job).await,
            Err(error) => {
                let report = Report::default();
                telemetry::consumer_failed(handle.id(), handle.queue(), &error, &report);
                Ended {
                    outcome: Err(error),
                    deadline: Instant::now() + deadline,
                }
            }
        };
        let freed = timeout_at(ended.deadline, handle.shutdown()).await;
        let failed = match &freed {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error_chain(error)),
            Err(_) => Some("the shutdown deadline has passed".to_owned()),
        };
        if let Some(reason) = failed {
            let registration = handle.registration();
            telemetry::deregistration_failed(
                registration.id(),
                handle.queue(),
                &reason,
                registration.crashes_after(),
            );
        }
        let _ = timeout_at(ended.deadline, telemetry::flush()).await;
        ended.outcome
    })
}
