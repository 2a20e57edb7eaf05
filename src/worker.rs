//! Managed workers: producers and consumers that are registered in the database and send heartbeats. A worker's state
//! is the one in the database: another process can suspend or stop the worker at any time.

use std::{fmt, sync::Arc, time::Duration};

use crate::{
    error::{Error, Result},
    executor::Execute,
    lifecycle::{Transition, WorkerId, WorkerKind, WorkerStatus},
    pool::HeartbeatGuard,
    postgres::workers::{self, Identity, Step},
    queue::{IntoQueue, QueueName},
    store::Store,
    telemetry,
};

/// A registered producer or consumer.
///
/// ```text
/// ready ⇄ suspended
///     ↘    ↙
///    stopped
/// ```
///
/// [`Producer`](crate::Producer) and [`Consumer`](crate::Consumer) have these methods whether or not the
/// trait is imported. It can't be implemented outside of this crate.
///
/// # Errors
/// Besides those of each method: [`Error::AcquireTimeout`], [`Error::Connect`], [`Error::ConnectionLost`],
/// [`Error::Database`]. If the connection breaks during a transition, the worker is in the old state or in the new one.
///
/// # Example
/// ```no_run
/// # async fn example(store: pgqrs::Store) -> pgqrs::Result<()> {
/// let producer = pgqrs::producer("my-service", 3000, "tasks").create(&store).await?;
/// producer.heartbeat().await?;
/// producer.suspend().await?;
/// producer.resume().await?;
/// producer.shutdown().await?;
/// # Ok(())
/// # }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a worker",
    label = "expected a `&Producer` or a `&Consumer`",
    note = "register one: `pgqrs::producer(\"my-service\", 3000, \"tasks\").create(&store).await?`"
)]
pub trait Worker: sealed::Registered {
    /// What its queue carries: a payload type, or [`Untyped`](crate::Untyped).
    type Carries;

    /// Its role: it sends, or it receives.
    type Role;

    /// Returns the worker's id, which its messages record.
    fn id(&self) -> WorkerId {
        self.registration().id
    }

    /// Returns whether it is a producer or a consumer.
    fn kind(&self) -> WorkerKind {
        self.registration().kind
    }

    /// Returns its queue.
    fn queue(&self) -> &QueueName {
        &self.registration().queue
    }

    /// Returns the host that it was registered with.
    fn hostname(&self) -> &str {
        &self.registration().hostname
    }

    /// Returns the port that it was registered with; 0 is anonymous.
    fn port(&self) -> u16 {
        self.registration().port
    }

    /// Returns its current state in the database. A worker that was removed is stopped.
    fn status(&self) -> Execute<'_, Result<WorkerStatus>> {
        let registration = self.registration();
        Execute::new(async move {
            let state = registration.state(Duration::ZERO).await?;
            Ok(state.map_or(WorkerStatus::Stopped, |(status, _)| status))
        })
    }

    /// Returns whether it is not stopped and its last heartbeat is at most `max_age` old.
    ///
    /// # Units
    /// `max_age` is compared by the database's clock, in microseconds.
    fn is_healthy(&self, max_age: Duration) -> Execute<'_, Result<bool>> {
        let registration = self.registration();
        Execute::new(async move {
            let state = registration.state(max_age).await?;
            Ok(state.is_some_and(|(status, recent)| status != WorkerStatus::Stopped && recent))
        })
    }

    /// Sends a heartbeat. Heartbeats are also sent automatically, at the interval that it was created with.
    ///
    /// # Errors
    /// [`Error::WorkerStopped`] if it was stopped, removed, or taken over.
    fn heartbeat(&self) -> Execute<'_, Result<()>> {
        let registration = self.registration();
        Execute::new(async move {
            let worker = registration.id;
            let settled = [registration.store.heartbeats().settled(worker)];
            let beat = registration.store.run(async |connection| {
                workers::heartbeat(connection, &[worker.get()], &settled).await
            });
            if beat.await?.is_empty() {
                Err(Error::WorkerStopped { worker })
            } else {
                Ok(())
            }
        })
    }

    /// Suspends the worker: its enqueues and dequeues are refused until it is resumed.
    ///
    /// # Errors
    /// [`Error::InvalidTransition`] if it isn't ready; [`Error::WorkerStopped`] if it no longer exists.
    fn suspend(&self) -> Execute<'_, Result<()>> {
        let registration = self.registration();
        Execute::new(step(
            &registration.store,
            registration.id,
            Transition::Suspend,
        ))
    }

    /// Resumes the worker.
    ///
    /// # Errors
    /// [`Error::InvalidTransition`] if it isn't suspended; [`Error::WorkerStopped`] if it no longer exists.
    fn resume(&self) -> Execute<'_, Result<()>> {
        let registration = self.registration();
        Execute::new(step(
            &registration.store,
            registration.id,
            Transition::Resume,
        ))
    }

    /// Stops the worker, for good, and frees its identity. If it is already stopped, nothing happens.
    fn shutdown(&self) -> Execute<'_, Result<()>> {
        let registration = self.registration();
        Execute::new(async move {
            match step(&registration.store, registration.id, Transition::Shutdown).await {
                Ok(()) | Err(Error::WorkerStopped { .. }) => {
                    registration.heartbeat.stop();
                    Ok(())
                }
                Err(error) => Err(error),
            }
        })
    }
}

/// Makes one transition, for a handle or for `admin`. Shutting down a stopped worker changes nothing, and is no error.
pub(crate) async fn step(store: &Store, worker: WorkerId, transition: Transition) -> Result<()> {
    let outcome = store
        .run(async |connection| workers::step(connection, worker, transition).await)
        .await?;
    let to = transition.to();
    match outcome {
        None => Err(Error::WorkerStopped { worker }),
        Some(step) if step.is_made => {
            telemetry::transition(worker, step.queue.as_deref(), step.from, to);
            Ok(())
        }
        Some(step) if step.from == WorkerStatus::Stopped && to == WorkerStatus::Stopped => Ok(()),
        Some(Step { from, .. }) => Err(Error::InvalidTransition { worker, from, to }),
    }
}

/// The role of a producer.
#[derive(Debug)]
pub struct Sends(());

/// The role of a consumer.
#[derive(Debug)]
pub struct Receives(());

/// A role in which a worker can enqueue.
#[diagnostic::on_unimplemented(
    message = "a consumer can't enqueue",
    label = "this worker is a consumer",
    note = "enqueue through a producer, or without a worker: `.to(\"queue\")`"
)]
pub trait CanEnqueue {}

#[diagnostic::do_not_recommend]
impl CanEnqueue for Sends {}

/// A role in which a worker can dequeue.
#[diagnostic::on_unimplemented(
    message = "a producer can't dequeue",
    label = "this worker is a producer",
    note = "dequeue through a consumer, or without a worker: `.from(\"queue\")`"
)]
pub trait CanDequeue {}

#[diagnostic::do_not_recommend]
impl CanDequeue for Receives {}

pub(crate) mod sealed {
    use super::Registration;
    use crate::queue::KeyOfJson;

    #[diagnostic::on_unimplemented(
        message = "`Worker` can't be implemented outside of pgqrs",
        label = "a worker is a row in the database, which `create` makes",
        note = "register one: `pgqrs::producer(\"my-service\", 3000, \"tasks\").create(&store).await?`"
    )]
    pub trait Registered: Send + Sync {
        fn registration(&self) -> &Registration;

        /// How keys of messages to its queue are computed, if they are.
        fn key_of_json(&self) -> Option<KeyOfJson> {
            None
        }
    }
}

/// State shared by all handles of a worker. When the last one is dropped, its heartbeats stop, and its identity is free
/// again when it counts as crashed. `shutdown` frees it at once.
pub struct Registration {
    id: WorkerId,
    kind: WorkerKind,
    queue: QueueName,
    hostname: String,
    port: u16,
    store: Store,
    heartbeat: HeartbeatGuard,
    stale_after: Duration,
}

impl Registration {
    pub(crate) fn id(&self) -> WorkerId {
        self.id
    }

    /// How long after its last heartbeat it counts as crashed.
    pub(crate) fn crashes_after(&self) -> Duration {
        self.stale_after
    }

    async fn state(&self, max_age: Duration) -> Result<Option<(WorkerStatus, bool)>> {
        self.store
            .run(async |connection| workers::state(connection, self.id, max_age).await)
            .await
    }
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registration")
            .field("id", &self.id)
            .field("kind", &self.kind)
            .field("queue", &self.queue)
            .field("hostname", &self.hostname)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

/// A worker to be registered.
#[derive(Debug)]
pub(crate) struct Applicant {
    kind: WorkerKind,
    queue: Result<QueueName>,
    pub(crate) hostname: String,
    pub(crate) port: u16,
    pub(crate) heartbeat_interval: Duration,
    pub(crate) replace: bool,
}

const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(15);
/// A worker that misses this many heartbeats counts as crashed.
const MISSED_HEARTBEATS: u32 = 4;
const LONGEST_HOSTNAME: usize = 255;

impl Applicant {
    pub(crate) fn new(
        kind: WorkerKind,
        hostname: String,
        port: u16,
        queue: impl IntoQueue,
    ) -> Self {
        Self {
            kind,
            queue: queue.into_name(),
            hostname,
            port,
            heartbeat_interval: HEARTBEAT_INTERVAL,
            replace: false,
        }
    }

    /// With the machine's host name, of which there may be any number.
    pub(crate) fn anonymous(kind: WorkerKind, queue: impl IntoQueue) -> Self {
        let hostname = hostname::get()
            .ok()
            .and_then(|name| name.into_string().ok());
        let hostname = hostname.filter(|name| is_hostname(name));
        let hostname = hostname.unwrap_or_else(|| "unknown".to_owned());
        Self::new(kind, hostname, 0, queue)
    }

    pub(crate) async fn register(self, store: &Store) -> Result<Arc<Registration>> {
        let Self {
            kind,
            queue,
            hostname,
            port,
            heartbeat_interval,
            replace,
        } = self;
        let queue = queue?;
        if !is_hostname(&hostname) {
            return Err(Error::InvalidHostname { hostname });
        }
        let interval = heartbeat_interval.clamp(SHORTEST_INTERVAL, LONGEST_INTERVAL);
        let identity = Identity {
            kind,
            hostname: &hostname,
            port,
            queue: &queue,
            replace,
        };
        let stale_after = interval * MISSED_HEARTBEATS;
        let (id, replaced) = store
            .run(async |connection| workers::register(connection, &identity, stale_after).await)
            .await?;
        telemetry::registered(id, kind, &queue, (&hostname, port), replaced);
        let pruned = store.run(async |connection| workers::prune(connection).await);
        if let Err(error) = pruned.await {
            telemetry::prune_failed("workers", &error);
        }
        let heartbeat = store.heartbeats().join(id, interval);
        Ok(Arc::new(Registration {
            id,
            kind,
            queue,
            hostname,
            port,
            store: store.clone(),
            heartbeat,
            stale_after,
        }))
    }
}

fn is_hostname(name: &str) -> bool {
    (1..=LONGEST_HOSTNAME).contains(&name.len()) && !name.contains(char::is_control)
}

/// Beyond these limits an interval makes no sense, and arithmetic with it could overflow.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(10);
const LONGEST_INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);
