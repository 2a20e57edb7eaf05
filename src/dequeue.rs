//! `dequeue()`: claims messages of a queue under a lease. A dequeued message is not deleted: unless it is settled, it
//! is delivered again when its lease runs out.

use std::{sync::Arc, time::Duration};

use crate::{
    delivery::{
        Delivery, Unchecked,
        lease::{Lease, check_lease},
    },
    error::{Error, Result},
    executor::Execute,
    lifecycle::WorkerId,
    pool::STATEMENT_TIMEOUT,
    postgres::{
        claim::{self, Claim, Claimed},
        dead::End,
    },
    queue::{IntoQueue, QueueName, Readable},
    retry::RetryPolicy,
    store::Store,
    telemetry::{self, Messages, Subject, Timer},
    trace_context,
    watermark::Found,
    worker::{CanDequeue, Worker},
};
use tokio::time::{Instant, sleep};

/// Starts a dequeue.
///
/// # Shape
/// Set the queue with [`from`](Dequeue::from) or [`worker`](Dequeue::worker), then [`execute`](Dequeue::execute) it on
/// a store. It returns up to [`limit`](Dequeue::limit) deliveries in queue order, and none if nothing is ready.
///
/// # Example
/// ```no_run
/// # async fn example(store: pgqrs::Store) -> Result<(), Box<dyn std::error::Error>> {
/// use std::{sync::Arc, time::Duration};
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
        max_bytes: DEFAULT_MAX_BYTES,
        lease: DEFAULT_LEASE,
        retry: RetryPolicy::default(),
    }
}

/// Builder of a dequeue; made by [`dequeue`].
///
/// Its methods can be called in any order: [`from`](Self::from) and [`worker`](Self::worker) are available until one of
/// them was called, [`limit`](Self::limit) and [`lease`](Self::lease) always, and [`execute`](Self::execute) once the
/// queue is set. The type parameter `S` tracks this.
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
    max_bytes: usize,
    lease: Duration,
    retry: RetryPolicy,
}

const DEFAULT_LEASE: Duration = Duration::from_secs(30);
const DEFAULT_MAX_BYTES: usize = 64 << 20;
/// How many times a claim that conflicts with others is retried, with a longer wait each time.
const MAX_CONFLICTS: u32 = 8;
const HIGHEST_LIMIT: u32 = 10_000;

impl<S> Dequeue<S> {
    /// Sets the queue: a name, which is read as [`serde_json::Value`], or a [`Queue`](crate::Queue), which is read as
    /// the type that it carries.
    ///
    /// Available until a queue is set.
    ///
    /// # Errors
    /// An invalid name is reported by [`execute`](Self::execute).
    pub fn from<Q>(self, queue: Q) -> Dequeue<FromQueue<<Q::Carries as Readable>::Payload>>
    where
        S: SourceNotSet,
        Q: IntoQueue,
        Q::Carries: Readable,
    {
        self.receiving(FromQueue {
            queue: queue.into_name(),
            worker: None,
            decode: |json| serde_json::from_str(json),
        })
    }

    /// Sets the consumer that receives the messages, from its queue. Nothing is claimed if it is suspended or stopped.
    ///
    /// Available until a queue is set.
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
        self.receiving(FromQueue {
            queue: Ok(consumer.queue().clone()),
            worker: Some(consumer.id()),
            decode: |json| serde_json::from_str(json),
        })
    }

    fn receiving<P>(self, source: FromQueue<P>) -> Dequeue<FromQueue<P>> {
        Dequeue {
            source,
            limit: self.limit,
            max_bytes: self.max_bytes,
            lease: self.lease,
            retry: self.retry,
        }
    }

    /// Maximum number of messages, from 1 to 10,000; defaults to 1.
    pub fn limit(mut self, messages: u32) -> Self {
        self.limit = messages;
        self
    }

    /// Maximum size of all payloads in bytes; defaults to 64 MiB. One message is returned whatever its size.
    ///
    /// If this is why there are fewer messages than the [`limit`](Self::limit), an event at `info` reports it, and the
    /// next call returns the rest. So fewer messages than the limit don't mean that no other is ready.
    pub fn max_bytes(mut self, bytes: usize) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// How long no other consumer gets the messages, from a millisecond to a day, by the database's clock; defaults to
    /// 30 seconds. A message that is not settled by then is delivered again.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// How long a message waits after [`nack`](Delivery::nack); defaults to [`RetryPolicy::default`].
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.retry = policy;
        self
    }

    /// Claims ready messages, and returns them in queue order: by priority, then by the time at which they became
    /// ready, then by id.
    ///
    /// Of a queue with a `rate` or with `max_running`, it returns as many as those allow, which may be none.
    ///
    /// Available once a queue is set. The claim is a transaction of its own, so it runs on a store and not in the
    /// caller's transaction.
    ///
    /// # Errors
    /// [`Error::LimitOutOfRange`], [`Error::LeaseOutOfRange`], [`Error::InvalidQueueName`], [`Error::QueueNotFound`],
    /// [`Error::NotInstalled`]; through a consumer [`Error::WorkerSuspended`] and [`Error::WorkerStopped`]; and
    /// connection errors. If the connection is lost, messages may have been claimed: they are delivered again when the
    /// lease runs out.
    ///
    /// # Source
    /// One `update … where ctid = any(array(select … for update skip locked))`, in `src/postgres/claim.rs`.
    pub fn execute<'c, P>(self, on: &'c Store) -> Execute<'c, Result<Vec<Delivery<P, Unchecked>>>>
    where
        S: SourceIsSet<P> + 'c,
        P: 'c,
    {
        let Self {
            source,
            limit,
            max_bytes,
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
            check_lease(lease)?;
            let (queue, consumer, decode) = source.into_parts()?;
            let request = ClaimRequest {
                queue,
                consumer,
                limit,
                max_bytes,
                lease,
                lease_at_least: Duration::ZERO,
                timeout: STATEMENT_TIMEOUT,
                links: true,
            };
            let Received { claimed, .. } = claim_once(on, &request).await?;
            if claimed.stopped_by_bytes {
                let messages = claimed.messages.len();
                telemetry::stopped_by_bytes(request.consumer, &request.queue, messages, max_bytes);
            }
            telemetry::dequeued(request.queue.as_str(), claimed.messages.len());
            let deliver = |message| {
                let lease = Arc::new(Lease::of(&message));
                Delivery::new(message, lease, decode, on.clone(), retry)
            };
            Ok(claimed.messages.into_iter().map(deliver).collect())
        })
    }
}

/// What to claim.
#[derive(Debug)]
pub(crate) struct ClaimRequest {
    pub(crate) queue: QueueName,
    pub(crate) consumer: Option<WorkerId>,
    pub(crate) limit: u32,
    pub(crate) max_bytes: usize,
    pub(crate) lease: Duration,
    pub(crate) lease_at_least: Duration,
    /// How long to wait for the result.
    pub(crate) timeout: Duration,
    /// Whether the claim's span links to those of the messages' senders; otherwise the handlers' spans do.
    pub(crate) links: bool,
}

/// What was claimed, and when the claim was sent.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) claimed: Claimed,
    pub(crate) sent: Instant,
}

/// One claim, for `dequeue()` and for the run loop: from this process's watermark on, repeated if it conflicts with
/// others, or if all that it found were dead letters.
pub(crate) async fn claim_once(store: &Store, request: &ClaimRequest) -> Result<Received> {
    let (began, timer) = (Instant::now(), Timer::start());
    let received = try_claim(store, request).await;
    let (queue, took) = (request.queue.as_str(), began.elapsed());
    let outcome = received
        .as_ref()
        .map(|received| received.claimed.messages.len());
    telemetry::claimed(queue, timer, outcome);
    let span = |messages| telemetry::receive(queue, request.consumer, messages, took);
    match &received {
        Ok(Received { claimed, .. }) => {
            let messages = match (request.limit, &claimed.messages[..]) {
                (_, []) => return received,
                (1, [message, ..]) => Messages::One(Some(message.id)),
                (_, messages) => Messages::Batch(messages.len()),
            };
            let span = span(messages);
            if request.links {
                trace_context::link(&span, &claimed.messages);
            }
            span.in_scope(|| report_redelivered(claimed));
        }
        Err(error) => telemetry::failed(&span(Messages::One(None)), error),
    }
    received
}

async fn try_claim(store: &Store, request: &ClaimRequest) -> Result<Received> {
    let mut conflicts = 0;
    let until = Instant::now() + request.timeout;
    loop {
        let mut connection = store.connection().await?;
        // Only now: a claim that waited for a connection has not begun yet.
        let reading = store.watermarks().begin(&request.queue);
        let sent = Instant::now();
        let claim = Claim {
            queue: &request.queue,
            consumer: request.consumer,
            limit: request.limit,
            max_bytes: request.max_bytes,
            lease: request.lease,
            lease_at_least: request.lease_at_least,
            timeout: request.timeout,
            from: reading.from,
        };
        let claimed = connection
            .within(request.timeout, async |connection| {
                claim::claim(connection, &claim).await
            })
            .await;
        let claimed = match claimed {
            Ok(claimed) => claimed,
            // It has changed nothing, since other claims came first. This is usual if the database's default is a
            // stricter isolation than the one that a claim is written for.
            Err(error) if error.is_conflict() && conflicts < MAX_CONFLICTS => {
                store.watermarks().fail(&request.queue);
                drop(connection);
                sleep(Duration::from_millis(1 << conflicts).mul_f64(rand::random())).await;
                conflicts += 1;
                continue;
            }
            Err(error) => {
                store.watermarks().fail(&request.queue);
                return Err(error);
            }
        };
        let found = Found {
            messages: &claimed.messages,
            now: claimed.now,
            took: claimed.took,
            full: claimed.full,
        };
        // What became ready during a pause, or found no free slot and no token, is behind the time that this claim has read
        // up to.
        let settings = claimed.origin.settings;
        if claimed.left_over || settings.held_for().is_some() || settings.has_limits() {
            store.watermarks().fail(&request.queue);
        } else {
            store.watermarks().end(&request.queue, &reading, &found);
        }
        report_dead(&claimed);
        if claimed.is_next_ready {
            store.notifier().wake(&request.queue);
        }
        // All messages found had used up their attempts, or had expired: there may be others behind them.
        let is_over = !(claimed.full && claimed.messages.is_empty());
        if is_over || Instant::now() >= until {
            return Ok(Received { claimed, sent });
        }
    }
}

/// Reports messages that are delivered no more: since their last consumer has not settled them, or since they were not
/// started in time.
fn report_dead(claimed: &Claimed) {
    for dead in &claimed.dead {
        let subject = Subject {
            origin: Arc::clone(&claimed.origin),
            message: dead.id,
            attempt: dead.attempt,
            max_attempts: dead.max_attempts,
        };
        match dead.end {
            End::UsedUp => telemetry::dead_after_lost_lease(&subject, dead.consumer),
            End::Expired => telemetry::expired(&subject),
            End::Dropped => telemetry::dropped(&subject),
        }
    }
}

/// Reports messages that a consumer has claimed before and not settled.
fn report_redelivered(claimed: &Claimed) {
    if claimed.redelivered.is_empty() {
        return;
    }
    for message in &claimed.messages {
        if let Some(previous) = claimed.redelivered.get(&message.id) {
            telemetry::redelivered(&Subject::of(message), *previous);
        }
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
        label = "only the builder's own methods change its state",
        note = "call them: `pgqrs::dequeue().from(\"queue\")`"
    )]
    pub trait Unset {}

    #[diagnostic::on_unimplemented(
        message = "the states of pgqrs's builders can't be implemented outside of pgqrs",
        label = "only the builder's own methods change its state",
        note = "call them: `pgqrs::dequeue().from(\"queue\")`"
    )]
    pub trait Source<P>: Send {
        fn into_parts(self) -> Result<(QueueName, Option<WorkerId>, Decode<P>)>;
    }
}

/// The dequeue has its queue, whose payloads are read as `P`.
// A parameter and not an associated type: with that in `execute`'s signature, the compiler would report that there is
// no such method.
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
