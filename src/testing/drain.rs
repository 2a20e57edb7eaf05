//! Handlers, run on what a test's transaction has in a queue.

pub(super) mod in_transaction;
pub(super) mod outcome;

use std::{
    fmt,
    future::{Future, IntoFuture, pending},
    ops::DerefMut,
    sync::Arc,
    time::Duration,
};

use sqlx::PgConnection;

use self::outcome::{DrainError, Drained, FailedDelivery};
use crate::{
    delivery::{
        Delivery,
        lease::{LONGEST_LEASE, Lease},
        settlement::{Settlement, settle_lease},
    },
    error::Result,
    executor::{Execute, Executor},
    handler::{Handling, IntoOutcome, IntoVerdict, Outcome, Verdict, decode, handle},
    postgres::{
        claim::{self, Claim},
        settle::{self, fail::fail, failures::Failure},
        testing,
    },
    queue::{IntoQueue, QueueName, Readable},
    retry::{RetryPolicy, UndecodablePolicy},
    watermark::BEGINNING,
};
#[cfg(feature = "schedules")]
use crate::{
    postgres::schedules::{self, Due, firing},
    timing::{self, Plan, Timing},
};

/// Deliveries after which a drain without a limit gives up.
const ENDLESS: usize = 1_000;
/// How many schedules of all queues that are due are looked at.
#[cfg(feature = "schedules")]
const MOST_SCHEDULES: usize = 10_000;
/// No test takes longer: how long the caller waits for a claim.
const NO_TIMEOUT: Duration = LONGEST_LEASE;

/// Runs a handler on the messages of a queue that are ready, in a test's own transaction.
///
/// # Shape
/// The handler is one of [`Consumer::run`](crate::Consumer::run); one of
/// [`run_in_transaction`](crate::Consumer::run_in_transaction) is run by
/// [`drain_in_transaction`](crate::testing::drain_in_transaction). What [`run_with`](crate::Consumer::run_with) takes is
/// passed as `|delivery| handler(app.clone(), delivery)`. Runs on `&mut tx`, or on `&pool` for what was committed.
///
/// Messages are claimed one by one in the order of delivery, and settled before the next one is claimed, by the
/// statements that consumers use. First, the queue's schedules are fired that are due. Messages that are sent meanwhile,
/// and those that are ready again, are left, unless it runs [`until_empty`](Drain::until_empty). So are messages of a
/// group that wait until others of it are done.
///
/// What a handler does on a store or on a pool is done there: it isn't part of the test's transaction.
///
/// # Errors
/// The first `Err` or panic of the handler, or payload that doesn't decode, as [`DrainError::Failed`]; its message is
/// settled as by a consumer. With [`collect_errors`](Drain::collect_errors) it goes on instead.
/// [`DrainError::Endless`]; [`DrainError::Pgqrs`] for what a claim or a settlement returns.
///
/// # Source
/// The statements in `src/postgres/claim.rs` and `src/postgres/settle.rs`. A claim compares with `now()`, which in a
/// transaction is the time of its beginning; so the times of messages that are ready by the clock are moved before.
///
/// # Example
/// ```no_run
/// # use pgqrs::{Delivery, Queue, testing};
/// # const EMAILS: Queue<String> = Queue::new("emails");
/// async fn send(delivery: Delivery<String>) -> Result<(), String> {
///     if delivery.payload().is_empty() { Err("no address".to_owned()) } else { Ok(()) }
/// }
///
/// # async fn example(mut tx: pgqrs::Transaction) -> Result<(), Box<dyn std::error::Error>> {
/// pgqrs::enqueue().messages(&["ada".to_owned(), String::new()]).to(EMAILS).execute(&mut tx).await?;
/// let drained = testing::drain(&mut tx, EMAILS, send).collect_errors().await?;
/// assert_eq!(drained.done.len(), 1);
/// assert_eq!(drained.failed[0].error, "no address");
/// # Ok(())
/// # }
/// ```
pub fn drain<'c, Q, F, R, O>(on: impl Executor + 'c, queue: Q, handler: F) -> Drain<'c>
where
    Q: IntoQueue<Carries: Readable>,
    F: Fn(Delivery<<Q::Carries as Readable>::Payload>) -> R + Send + Sync + 'c,
    R: Handling<O> + Send + 'c,
    O: IntoOutcome,
{
    let queue = queue.into_name();
    Drain::new(move |settings| {
        Execute::new(async move {
            let alone = Alone {
                connection: on.acquire().await.map_err(DrainError::Pgqrs)?,
                handler,
            };
            run(alone, queue.map_err(DrainError::Pgqrs)?, settings).await
        })
    })
}

/// A drain that has not run yet: a call with options, which is awaited; made by [`drain`] and
/// [`drain_in_transaction`](crate::testing::drain_in_transaction).
#[must_use = "a drain does nothing until it is awaited: add `.await`"]
pub struct Drain<'c> {
    settings: Settings,
    start: Start<'c>,
}

type Ran<'c> = Execute<'c, Result<Drained, DrainError>>;
type Start<'c> = Box<dyn FnOnce(Settings) -> Ran<'c> + Send + 'c>;

#[derive(Debug, Clone, Copy, Default)]
struct Settings {
    with_delayed: bool,
    until_empty: bool,
    collects_errors: bool,
    limit: Option<usize>,
}

impl<'c> Drain<'c> {
    fn new(start: impl FnOnce(Settings) -> Ran<'c> + Send + 'c) -> Self {
        Self {
            settings: Settings::default(),
            start: Box::new(start),
        }
    }

    /// Runs also messages whose time has not come, each after all that are ready, the earliest first: as if it went on
    /// until then. That includes messages that failed before and wait for their next attempt.
    pub fn with_delayed(mut self) -> Self {
        self.settings.with_delayed = true;
        self
    }

    /// Runs also messages that become ready meanwhile, such as those that handlers send to this queue, until none is
    /// left. Together with [`with_delayed`](Self::with_delayed), a message that fails is run until its attempts are used
    /// up. Without a [`limit`](Self::limit) it gives up after 1,000 deliveries, with [`DrainError::Endless`].
    pub fn until_empty(mut self) -> Self {
        self.settings.until_empty = true;
        self
    }

    /// Calls the handler at most this number of times; defaults to no limit.
    pub fn limit(mut self, deliveries: usize) -> Self {
        self.settings.limit = Some(deliveries);
        self
    }

    /// Goes on if a handler fails, and returns the errors in [`Drained::failed`]; by default the first one ends the drain
    /// and is its error.
    pub fn collect_errors(mut self) -> Self {
        self.settings.collects_errors = true;
        self
    }
}

impl<'c> IntoFuture for Drain<'c> {
    type Output = Result<Drained, DrainError>;
    type IntoFuture = Execute<'c, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        (self.start)(self.settings)
    }
}

impl fmt::Debug for Drain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Drain")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// How a handler is called with a delivery.
trait Call<P>: Send {
    /// What claims and settles.
    fn connection(&mut self) -> &mut PgConnection;

    /// Calls it. It may settle the delivery, which its lease then knows.
    fn call(
        &mut self,
        delivery: Delivery<P>,
    ) -> impl Future<Output = Result<Verdict, DrainError>> + Send;
}

/// A handler that takes only the delivery.
struct Alone<C, F> {
    connection: C,
    handler: F,
}

impl<P, C, F, R> Call<P> for Alone<C, F>
where
    P: Send + Sync,
    C: DerefMut<Target = PgConnection> + Send,
    F: Fn(Delivery<P>) -> R + Send + Sync,
    R: Future<Output: IntoOutcome> + Send,
{
    fn connection(&mut self) -> &mut PgConnection {
        &mut self.connection
    }

    async fn call(&mut self, delivery: Delivery<P>) -> Result<Verdict, DrainError> {
        let handling = async { (self.handler)(delivery).await.into_verdict() };
        Ok(handle(handling, None, pending()).await)
    }
}

/// Runs the handler on what there is.
async fn run<P>(
    mut call: impl Call<P>,
    queue: QueueName,
    settings: Settings,
) -> Result<Drained, DrainError>
where
    P: serde::de::DeserializeOwned + Send + Sync + 'static,
{
    let connection = call.connection();
    #[cfg(feature = "schedules")]
    fire(connection, &queue).await.map_err(DrainError::Pgqrs)?;
    let mut delayed = if settings.with_delayed && !settings.until_empty {
        testing::delayed(connection, &queue)
            .await
            .map_err(DrainError::Pgqrs)?
    } else {
        Vec::new()
    };
    testing::make_ready(connection, &queue)
        .await
        .map_err(DrainError::Pgqrs)?;
    let mut drained = Drained::default();
    let mut deliveries = 0;
    while settings.limit.is_none_or(|limit| deliveries < limit) {
        let connection = call.connection();
        if settings.until_empty {
            testing::make_ready(connection, &queue)
                .await
                .map_err(DrainError::Pgqrs)?;
        }
        let claimed = claim::claim(connection, &one_of(&queue))
            .await
            .map_err(DrainError::Pgqrs)?;
        let is_over = claimed.dead.is_empty();
        drained.dead.extend(claimed.dead.iter().map(|dead| dead.id));
        let Some(message) = claimed.messages.into_iter().next() else {
            if !is_over {
                continue;
            }
            let of = (!settings.until_empty).then_some(&delayed[..]);
            if !settings.with_delayed || of.is_some_and(<[_]>::is_empty) {
                break;
            }
            let ready = testing::make_next_ready(connection, &queue, of)
                .await
                .map_err(DrainError::Pgqrs)?;
            if ready.is_empty() {
                break;
            }
            delayed.retain(|id| !ready.contains(id));
            continue;
        };
        if deliveries == ENDLESS && settings.limit.is_none() {
            return Err(DrainError::Endless { deliveries });
        }
        deliveries += 1;
        let failed = FailedDelivery::of(&message);
        let lease = Arc::new(Lease::of(&message));
        let deliver = || {
            let decode = |json: &str| serde_json::from_str(json);
            Delivery::new(
                message,
                Arc::clone(&lease),
                decode,
                None,
                RetryPolicy::default(),
            )
        };
        let verdict = match decode(deliver) {
            Ok(delivery) => call.call(delivery).await?,
            Err(undecodable) => undecodable,
        };
        let is_error = matches!(verdict, Verdict::Failed(_) | Verdict::Undecodable { .. });
        let failed = settle(call.connection(), &lease, verdict, failed, &mut drained)
            .await
            .map_err(DrainError::Pgqrs)?;
        if let Some(failed) = failed {
            if is_error && !settings.collects_errors {
                return Err(DrainError::Failed(failed));
            }
            drained.failed.push(failed);
        }
    }
    Ok(drained)
}

fn one_of(queue: &QueueName) -> Claim<'_> {
    Claim {
        queue,
        consumer: None,
        limit: 1,
        max_bytes: usize::MAX,
        lease: Duration::from_secs(30),
        lease_at_least: Duration::ZERO,
        timeout: NO_TIMEOUT,
        from: BEGINNING,
    }
}

/// Settles a delivery as a consumer does. Returns it if the attempt failed.
async fn settle(
    connection: &mut PgConnection,
    lease: &Arc<Lease>,
    verdict: Verdict,
    failed: FailedDelivery,
    drained: &mut Drained,
) -> Result<Option<FailedDelivery>> {
    let (receipt, subject) = (lease.receipt(), lease.subject());
    let retry = subject.origin.settings.retry(RetryPolicy::default());
    let wait = verdict
        .retry_in(&retry, receipt.attempt)
        .unwrap_or_default();
    let (failure, error) = match verdict {
        Verdict::Returned(Outcome::Done | Outcome::Archive) if lease.is_settled() => {
            drained.done.push(receipt.id);
            return Ok(None);
        }
        Verdict::Returned(outcome @ (Outcome::Done | Outcome::Archive)) => {
            let settlement = match outcome {
                Outcome::Archive => Settlement::Archive,
                _ => Settlement::acknowledgement(subject),
            };
            settle_lease(lease, Ok(settlement), connection).await?;
            drained.done.push(receipt.id);
            return Ok(None);
        }
        Verdict::Returned(Outcome::Release) => {
            settle::release(connection, &[receipt], true).await?;
            drained.later.push(receipt.id);
            return Ok(None);
        }
        // The others would wait, too; in a test, they are handled.
        Verdict::Returned(Outcome::Later(_) | Outcome::SlowDown(_)) => {
            fail(connection, &[Failure::later(receipt, wait)]).await?;
            drained.later.push(receipt.id);
            return Ok(None);
        }
        // Nobody cancels a lease here.
        Verdict::Cancelled => return Ok(None),
        Verdict::Returned(Outcome::Retry(error) | Outcome::RetryIn(_, error)) => {
            (Failure::retry(receipt, wait, &error), error)
        }
        Verdict::Returned(Outcome::DeadLetter(reason)) => (Failure::dead(receipt, &reason), reason),
        Verdict::Failed(error) => {
            let error = error.text().to_owned();
            (Failure::retry(receipt, wait, &error), error)
        }
        Verdict::Returned(Outcome::Undecodable(error)) | Verdict::Undecodable { error, .. } => {
            let policy = UndecodablePolicy::default();
            (Failure::undecodable(receipt, policy, &error), error)
        }
    };
    let failures = [failure];
    let settled = fail(connection, &failures).await?;
    if settled.iter().any(|settled| settled.dead) {
        drained.dead.push(receipt.id);
    }
    Ok(Some(FailedDelivery { error, ..failed }))
}

/// Fires the schedules of a queue that are due, as the task of a store does.
#[cfg(feature = "schedules")]
async fn fire(connection: &mut PgConnection, queue: &QueueName) -> Result<()> {
    let look = schedules::look(connection, MOST_SCHEDULES, &[]).await?;
    let mut planned: Vec<(&Due, Plan)> = Vec::new();
    for due in look.due.iter().filter(|due| due.queue == *queue) {
        let timing = Timing::new(&due.time, &due.zone)?;
        planned.extend(
            timing::plan(&timing, due.missed, due.next_at, look.now).map(|plan| (due, plan)),
        );
    }
    if !planned.is_empty() {
        let planned: Vec<_> = planned.iter().map(|(due, plan)| (*due, plan)).collect();
        firing::fire(connection, &planned).await?;
    }
    Ok(())
}
