//! `producer()`: a registered producer of one queue, for long-running services that operators can watch, suspend and
//! stop. Its messages record its id. Sending a message needs no registration.

use std::{fmt, marker::PhantomData, ops::Deref, sync::Arc, time::Duration};

use crate::{
    enqueue::{
        Enqueue, enqueue,
        states::{ByWorker, NoMessage},
    },
    error::Result,
    executor::Execute,
    lifecycle::WorkerKind,
    queue::{IntoQueue, KeyOf, KeyOfJson, Untyped},
    store::Store,
    worker::{Applicant, Registration, Sends, Worker, sealed::Registered},
};

/// Starts the registration of a producer.
///
/// # Shape
/// The host and the port identify it; with port 0 it is anonymous. The queue is a name, or a [`Queue`](crate::Queue)
/// with a type.
///
/// # Example
/// ```no_run
/// # async fn example(store: pgqrs::Store) -> pgqrs::Result<()> {
/// use serde_json::json;
///
/// let producer = pgqrs::producer("my-service", 3000, "tasks").create(&store).await?;
/// let ids = producer.enqueue().message(&json!({"task": "process_order"})).execute(&store).await?;
/// # Ok(())
/// # }
/// ```
pub fn producer<Q: IntoQueue>(
    hostname: impl Into<String>,
    port: u16,
    queue: Q,
) -> ProducerBuilder<Q::Carries> {
    ProducerBuilder {
        key: queue.key().map(KeyOf::erased),
        applicant: Applicant::new(WorkerKind::Producer, hostname.into(), port, queue),
        carries: PhantomData,
    }
}

/// A producer about to be registered; made by [`producer`].
#[derive(Debug)]
#[must_use = "a producer is registered by `.create(&store).await`"]
pub struct ProducerBuilder<C = Untyped> {
    applicant: Applicant,
    key: Option<KeyOfJson>,
    carries: PhantomData<fn() -> C>,
}

impl<C> ProducerBuilder<C> {
    /// Heartbeat interval, from 10 ms to a day; defaults to 15 seconds. A worker that misses four heartbeats in a row
    /// counts as crashed, and another can take over its identity.
    pub fn heartbeat_interval(mut self, interval: Duration) -> Self {
        self.applicant.heartbeat_interval = interval;
        self
    }

    /// Whether to replace a running producer of the same host, port and queue too. Defaults to false: then
    /// [`create`](Self::create) returns [`Error::WorkerExists`](crate::Error::WorkerExists).
    ///
    /// The replaced producer is stopped, and its calls return [`Error::WorkerStopped`](crate::Error::WorkerStopped).
    /// Use it to restart a crashed service at once, before its old producer counts as crashed.
    pub fn replace(mut self, replace: bool) -> Self {
        self.applicant.replace = replace;
        self
    }

    /// Registers the producer.
    ///
    /// If a producer with the same host, port and queue has crashed, this one takes its place, with an id of its own.
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
    pub fn create(self, store: &Store) -> Execute<'_, Result<Producer<C>>>
    where
        C: 'static,
    {
        Execute::new(async move {
            let registration = self.applicant.register(store).await?;
            Ok(Producer {
                registration,
                key: self.key,
                carries: PhantomData,
            })
        })
    }
}

/// A registered producer. Cheap to clone: all clones are one worker.
///
/// It is a [`Worker`], and has that trait's methods whether or not it is imported. Dropping all clones
/// stops its heartbeat; call [`shutdown`](Worker::shutdown) to free its identity at once.
pub struct Producer<C = Untyped> {
    registration: Arc<Registration>,
    key: Option<KeyOfJson>,
    carries: PhantomData<fn() -> C>,
}

impl<C: 'static> Producer<C> {
    /// Starts an enqueue through this producer, to its queue.
    ///
    /// ```compile_fail,E0277
    /// # async fn example(producer: pgqrs::Producer) {
    /// producer.enqueue().message(&1).to("emails"); // it has its target
    /// # }
    /// ```
    pub fn enqueue(&self) -> Enqueue<NoMessage, ByWorker<C>> {
        enqueue().worker(self)
    }
}

impl<C> Clone for Producer<C> {
    fn clone(&self) -> Self {
        Self {
            registration: Arc::clone(&self.registration),
            key: self.key.clone(),
            carries: PhantomData,
        }
    }
}

impl<C> Registered for Producer<C> {
    fn registration(&self) -> &Registration {
        &self.registration
    }

    fn key_of_json(&self) -> Option<KeyOfJson> {
        self.key.clone()
    }
}

#[diagnostic::do_not_recommend]
impl<C> Worker for Producer<C> {
    type Carries = C;
    type Role = Sends;
}

// A trait object has its trait's methods without an import: so `producer.heartbeat()` needs none.
impl<C: 'static> Deref for Producer<C> {
    type Target = dyn Worker<Carries = C, Role = Sends>;

    fn deref(&self) -> &Self::Target {
        self
    }
}

impl<C> fmt::Debug for Producer<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Producer")
            .field(self.registration())
            .finish()
    }
}
