//! `dequeue()`: messages on their way out of a queue, under a lease. For consumers. What is dequeued is
//! not gone: until it is settled, it comes back when its lease runs out.

use std::time::Duration;

use tokio::time::sleep;
use tracing::Instrument;

use crate::{
    delivery::Delivery,
    error::{Error, Result},
    lifecycle::WorkerId,
    postgres::messages::{self, Claim, Claimed},
    queue::{IntoQueue, QueueName, Readable},
    retry::RetryPolicy,
    store::{Execute, Store},
    telemetry,
    worker::{CanDequeue, Worker},
};

/// Starts a dequeue.
///
/// # Shape
/// Say where with [`from`](Dequeue::from) or [`worker`](Dequeue::worker), then [`execute`](Dequeue::execute) it on a store. It gives up to
/// [`limit`](Dequeue::limit) deliveries in queue order, and none where nothing is ready.
///
/// # Example
/// ```no_run
/// # async fn example(store: pgqrs::Store) -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
///
/// let deliveries = pgqrs::dequeue()
///     .from("tasks")
///     .limit(10)
///     .lease(Duration::from_secs(60))
///     .execute(&store)
///     .await?;
/// for delivery in deliveries {
///     println!("{}", delivery.payload()?);
///     delivery.ack(&store).await?;
/// }
/// # Ok(())
/// # }
/// ```
pub fn dequeue() -> Dequeue {
    Dequeue {
        source: NoSource(()),
        limit: 1,
        lease: DEFAULT_LEASE,
        retry: RetryPolicy::default(),
    }
}

/// A dequeue being put together; made by [`dequeue`].
///
/// Its methods can be called in any order: [`from`](Self::from) and [`worker`](Self::worker) are there until
/// one of them was called, [`limit`](Self::limit) and [`lease`](Self::lease) always, and
/// [`execute`](Self::execute) once there is a queue. `S` keeps account of it.
///
/// Without a queue, it doesn't compile:
///
/// ```compile_fail,E0277
/// # async fn example(store: pgqrs::Store) {
/// pgqrs::dequeue().limit(10).execute(&store);
/// # }
/// ```
#[derive(Debug)]
#[must_use = "a dequeue does nothing until `.execute(&store).await`"]
pub struct Dequeue<S = NoSource> {
    source: S,
    limit: u32,
    lease: Duration,
    retry: RetryPolicy,
}

const DEFAULT_LEASE: Duration = Duration::from_secs(30);
pub(crate) const SHORTEST_LEASE: Duration = Duration::from_millis(1);
pub(crate) const LONGEST_LEASE: Duration = Duration::from_secs(24 * 60 * 60);
/// A claim that meets others is made again so often, a little later each time.
const CONFLICTS: u32 = 8;
const HIGHEST_LIMIT: u32 = 10_000;

impl<S> Dequeue<S> {
    /// The queue: a name, which is read as [`serde_json::Value`], or a [`Queue`](crate::Queue), which is
    /// read as what it carries.
    ///
    /// There until the dequeue has its queue.
    ///
    /// # Errors
    /// A name that can't be a queue's is reported by [`execute`](Self::execute).
    pub fn from<Q>(self, queue: Q) -> Dequeue<FromQueue<<Q::Carries as Readable>::Payload>>
    where
        S: SourceNotSet,
        Q: IntoQueue,
        Q::Carries: Readable,
    {
        Dequeue {
            source: FromQueue {
                queue: queue.into_name(),
                worker: None,
                decode: |json| serde_json::from_str(json),
            },
            limit: self.limit,
            lease: self.lease,
            retry: self.retry,
        }
    }

    /// The consumer that the messages are received through, from its queue. Nothing is claimed where it is
    /// suspended or stopped.
    ///
    /// There until the dequeue has its queue.
    ///
    /// # Errors
    /// [`Error::WorkerSuspended`], [`Error::WorkerStopped`] from [`execute`](Self::execute).
    pub fn worker<W>(self, consumer: &W) -> Dequeue<FromQueue<<W::Carries as Readable>::Payload>>
    where
        S: SourceNotSet,
        W: Worker + ?Sized,
        W::Role: CanDequeue,
        W::Carries: Readable,
    {
        Dequeue {
            source: FromQueue {
                queue: Ok(consumer.queue().clone()),
                worker: Some(consumer.id()),
                decode: |json| serde_json::from_str(json),
            },
            limit: self.limit,
            lease: self.lease,
            retry: consumer.registration().retry(),
        }
    }

    /// The most messages to get, from 1 to 10,000; 1 unless told.
    pub fn limit(mut self, messages: u32) -> Self {
        self.limit = messages;
        self
    }

    /// For how long nobody else gets the messages, from a millisecond to a day, counted by the database's
    /// clock; 30 seconds unless told. A message that is not settled by then is delivered again.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// Claims what is ready, in queue order: by priority, then by the time since when it has been ready,
    /// then by id.
    ///
    /// There once the dequeue has its queue. The claim is a transaction of its own, so it runs on a store and
    /// not in the caller's transaction.
    ///
    /// # Errors
    /// [`Error::LimitOutOfRange`], [`Error::LeaseOutOfRange`], [`Error::InvalidQueueName`],
    /// [`Error::QueueNotFound`], [`Error::NotInstalled`]; through a consumer [`Error::WorkerSuspended`] and
    /// [`Error::WorkerStopped`]; and those of the connection. Where the
    /// connection is lost, messages may have been claimed: they come back when the lease runs out.
    ///
    /// # Source
    /// One `update … where ctid = any(array(select … for update skip locked))`, in
    /// `src/postgres/messages.rs`.
    pub fn execute<'c, P>(self, on: &'c Store) -> Execute<'c, Result<Vec<Delivery<P>>>>
    where
        S: SourceIsSet<P> + 'c,
        P: 'c,
    {
        let Self {
            source,
            limit,
            lease,
            retry,
        } = self;
        Execute::new(async move {
            if !(1..=HIGHEST_LIMIT).contains(&limit) {
                return Err(Error::LimitOutOfRange {
                    limit,
                    max: HIGHEST_LIMIT,
                });
            }
            if !(SHORTEST_LEASE..=LONGEST_LEASE).contains(&lease) {
                return Err(Error::LeaseOutOfRange {
                    lease,
                    min: SHORTEST_LEASE,
                    max: LONGEST_LEASE,
                });
            }
            let (queue, consumer, decode) = source.into_parts()?;
            let span = telemetry::receive(queue.as_str());
            let mut conflicts = 0;
            let claimed = loop {
                let reading = on.hints().begin(&queue);
                let claim = Claim {
                    queue: &queue,
                    consumer,
                    limit,
                    lease,
                    from: reading.from,
                };
                let call = on.run(async |connection| messages::claim(connection, &claim).await);
                let claimed = match call.instrument(span.clone()).await {
                    Ok(claimed) => claimed,
                    // It has done nothing, since others were there first: usual where the database's default is
                    // a stricter isolation than the one that a claim is written for.
                    Err(error) if error.is_conflict() && conflicts < CONFLICTS => {
                        sleep(Duration::from_millis(1 << conflicts).mul_f64(rand::random())).await;
                        conflicts += 1;
                        continue;
                    }
                    Err(error) => {
                        telemetry::failed(&span, &error);
                        return Err(error);
                    }
                };
                let Claimed {
                    now,
                    took,
                    messages,
                    full,
                    ..
                } = &claimed;
                on.hints()
                    .end(&queue, &reading, *now, *took, messages, *full);
                // All that it took had their attempts used up, and are buried: there may be others.
                if !(claimed.full && claimed.messages.is_empty()) {
                    break claimed;
                }
            };
            telemetry::batch(&span, claimed.messages.len());
            let deliver = |message| Delivery::new(message, decode, on.clone(), retry);
            Ok(claimed.messages.into_iter().map(deliver).collect())
        })
    }
}

/// No queue yet.
#[derive(Debug)]
pub struct NoSource(());

/// A queue whose payloads are read as `P`.
#[derive(Debug)]
pub struct FromQueue<P> {
    queue: Result<QueueName>,
    worker: Option<WorkerId>,
    decode: Decode<P>,
}

type Decode<P> = fn(&str) -> serde_json::Result<P>;

mod sealed {
    use super::{Decode, QueueName, Result, WorkerId};

    #[diagnostic::on_unimplemented(
        message = "the states of pgqrs's builders can't be implemented outside of pgqrs",
        label = "only the builder's own methods bring it into a state",
        note = "call them: `pgqrs::dequeue().from(\"queue\")`"
    )]
    pub trait Unset {}

    #[diagnostic::on_unimplemented(
        message = "the states of pgqrs's builders can't be implemented outside of pgqrs",
        label = "only the builder's own methods bring it into a state",
        note = "call them: `pgqrs::dequeue().from(\"queue\")`"
    )]
    pub trait Source<P>: Send {
        fn into_parts(self) -> Result<(QueueName, Option<WorkerId>, Decode<P>)>;
    }
}

/// The dequeue has its queue, whose payloads are read as `P`.
// A parameter and not an associated type: with that in `execute`'s signature, the compiler would say that
// there is no such method.
#[diagnostic::on_unimplemented(
    message = "this dequeue has no queue",
    label = "call `.from(\"queue\")` or `.worker(&consumer)` before `.execute(..)`"
)]
pub trait SourceIsSet<P>: sealed::Source<P> {}

impl<P> sealed::Source<P> for FromQueue<P> {
    fn into_parts(self) -> Result<(QueueName, Option<WorkerId>, Decode<P>)> {
        Ok((self.queue?, self.worker, self.decode))
    }
}
#[diagnostic::do_not_recommend]
impl<P> SourceIsSet<P> for FromQueue<P> {}

/// The dequeue has no queue yet.
#[diagnostic::on_unimplemented(
    message = "this dequeue already has its queue",
    label = "a second `.from(..)` or `.worker(..)`",
    note = "a dequeue reads one queue: remove one of the two calls"
)]
pub trait SourceNotSet: sealed::Unset {}

impl sealed::Unset for NoSource {}
#[diagnostic::do_not_recommend]
impl SourceNotSet for NoSource {}
