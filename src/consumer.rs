//! `consumer()`: a registered receiver of one queue. For long-running services, which others can watch,
//! suspend and stop. Receiving a message needs none of it.

use std::{marker::PhantomData, ops::Deref, sync::Arc, time::Duration};

use crate::{
    dequeue::{Dequeue, FromQueue, dequeue},
    error::Result,
    lifecycle::WorkerKind,
    queue::{IntoQueue, Readable, Untyped},
    store::{Execute, Store},
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
/// let consumer = pgqrs::consumer("my-service", 3001, "tasks").create(&store).await?;
/// for delivery in consumer.dequeue().limit(10).execute(&store).await? {
///     delivery.ack(&store).await?;
/// }
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
        carries: PhantomData,
    }
}

/// A consumer about to be registered; made by [`consumer`].
#[derive(Debug)]
#[must_use = "a consumer is registered by `.create(&store).await`"]
pub struct ConsumerBuilder<C = Untyped> {
    applicant: Applicant,
    carries: PhantomData<fn() -> C>,
}

impl<C> ConsumerBuilder<C> {
    /// How often it says that it lives, from 10 ms to a day; 15 seconds unless told. When four in a row
    /// are missing, it counts as crashed, and another can take over its identity.
    pub fn heartbeat_interval(self, interval: Duration) -> Self {
        Self {
            applicant: self.applicant.heartbeat_interval(interval),
            ..self
        }
    }

    /// Registers it.
    ///
    /// Where a consumer of the same host, port and queue has crashed, this one takes its place, with a key
    /// of its own.
    ///
    /// # Errors
    /// [`Error::WorkerExists`](crate::Error::WorkerExists) where one of the same host, port and queue
    /// lives; [`Error::InvalidHostname`](crate::Error::InvalidHostname) for an empty host, one of more
    /// than 255 bytes, or one with control characters;
    /// [`Error::QueueNotFound`](crate::Error::QueueNotFound),
    /// [`Error::InvalidQueueName`](crate::Error::InvalidQueueName),
    /// [`Error::NotInstalled`](crate::Error::NotInstalled). No row is left behind.
    ///
    /// # Source
    /// One `insert into pgqrs.workers … on conflict do nothing`, held by a unique index.
    pub fn create(self, store: &Store) -> Execute<'_, Result<Consumer<C>>>
    where
        C: 'static,
    {
        Execute::new(async move {
            let registration = self.applicant.register(store).await?;
            Ok(Consumer {
                registration,
                carries: PhantomData,
            })
        })
    }
}

/// A registered consumer. Cheap to clone: all clones are one worker.
///
/// It is a [`Worker`], and has that trait's methods whether or not it is imported. Dropping all clones
/// stops its heartbeat; call [`shutdown`](Worker::shutdown) to free its identity at once.
#[derive(Debug)]
pub struct Consumer<C = Untyped> {
    registration: Arc<Registration>,
    carries: PhantomData<fn() -> C>,
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
        dequeue().worker(self)
    }
}

impl<C> Clone for Consumer<C> {
    fn clone(&self) -> Self {
        Self {
            registration: Arc::clone(&self.registration),
            carries: PhantomData,
        }
    }
}

impl<C> Registered for Consumer<C> {
    fn registration(&self) -> &Registration {
        &self.registration
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
