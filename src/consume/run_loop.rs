//! The run loop of a consumer: claims ahead, extends leases, settles in batches, and continues after failures. One task
//! holds all of its state; handlers and statements are tasks of their own, which report back to it.

use std::{
    collections::HashMap,
    future::Future,
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use chrono::{DateTime, Utc};
use serde::de::DeserializeOwned;
use tokio::{
    sync::watch,
    task::{JoinError, JoinSet},
    time::{Instant, sleep_until},
};
use tracing::Instrument;

use super::{
    Options,
    claims::{AdaptiveLimit, Load, MAX_CONCURRENT_CLAIMS, Pace, Request},
    in_flight::{Aborted, Finished, InFlight},
    settle::{self, Unsettled, settle},
    turns::Turns,
};
use crate::{
    delivery::Delivery,
    dequeue::{ClaimRequest, Received, claim_once},
    error::{Error, Result},
    handler::{IntoOutcome, Outcome, Verdict, handle},
    lifecycle::WorkerId,
    message::{LONGEST_DELAY, MessageId, Receipt},
    pool::STATEMENT_TIMEOUT,
    pool::WakeSubscription,
    postgres::settle::{Failure, extend_many},
    queue::QueueName,
    report::Report,
    store::Store,
    telemetry,
};

/// What a run loop needs to run.
pub(crate) struct Job<F> {
    pub(crate) store: Store,
    pub(crate) queue: QueueName,
    pub(crate) worker: WorkerId,
    pub(crate) options: Options,
    pub(crate) handler: F,
    pub(crate) shutdown: Pin<Box<dyn Future<Output = ()> + Send>>,
    pub(crate) stop: watch::Receiver<Stop>,
    pub(crate) deadline: Duration,
}

/// Whether a consumer is to stop, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stop {
    Running,
    Graceful,
    Abort,
}

/// The outcome of a loop, and the deadline of its shutdown.
pub(crate) struct Ended {
    pub(crate) outcome: Result<Report>,
    pub(crate) deadline: Instant,
}

pub(crate) async fn start<P, F, R>(job: Job<F>) -> Ended
where
    P: Send + Sync + DeserializeOwned + 'static,
    F: Fn(Delivery<P>) -> R + Send + Sync + 'static,
    R: Future<Output: IntoOutcome> + Send + 'static,
{
    let Job {
        store,
        queue,
        worker,
        options,
        handler,
        mut shutdown,
        mut stop,
        deadline,
    } = job;
    let mut options = options;
    options.listen &= store.can_listen();
    let subscription = store.notifier().subscribe(&queue, options.listen);
    let closed = store.pool().close_event();
    let mut asked = stop.clone();
    let graceful = async move {
        tokio::select! {
            () = &mut shutdown => {}
            _ = asked.wait_for(|stop| *stop >= Stop::Graceful) => {}
        }
    };
    let abort = async move {
        // Without a handle, no abort can be requested.
        if stop.wait_for(|stop| *stop == Stop::Abort).await.is_err() {
            std::future::pending().await
        }
    };
    RunLoop {
        queue,
        worker,
        store,
        options,
        deadline,
        handler: Arc::new(handler),
        subscription,
        in_flight: Arc::new(InFlight::new()),
        handlers: JoinSet::new(),
        turns: Arc::new(Turns::new()),
        queries: JoinSet::new(),
        claims: 0,
        requested: Request::default(),
        claim_limit: AdaptiveLimit::new(MAX_CLAIM),
        claim_timeout: claim_timeout(options.lease),
        claim_lease: options.lease,
        claim_at: Instant::now(),
        unsettled: Unsettled::new(),
        unsettled_since: None,
        settle_at: Instant::now(),
        extend_limit: AdaptiveLimit::new(MAX_EXTENSION),
        is_extending: false,
        extend_at: Instant::now() + options.lease / 3,
        extend_not_before: Instant::now(),
        backoff: MIN_BACKOFF,
        pace: Pace::new(std::time::Instant::now()),
        ending: None,
        is_closed: false,
        fatal: None,
        report: Report::default(),
    }
    .run(graceful, abort, closed)
    .await
}

const MIN_BACKOFF: Duration = Duration::from_millis(50);
const MAX_BACKOFF: Duration = Duration::from_secs(5);
/// Maximum number of messages of one claim.
const MAX_CLAIM: usize = 10_000;
/// Maximum number of leases that one statement extends.
const MAX_EXTENSION: usize = 1_000;
/// A claim's answer may take long to arrive over a slow link. After a time-out, the time-out of the next claim is
/// doubled.
const MIN_CLAIM_TIMEOUT: Duration = Duration::from_secs(10);
const MAX_CLAIM_TIMEOUT: Duration = Duration::from_secs(120);
/// While a claim is under way, acks wait until there are this many: its end is a good time to send them too.
const MIN_ACKS: usize = 64;
/// But not longer than this, if the claim takes long.
const MAX_ACK_WAIT: Duration = Duration::from_millis(50);
/// Maximum number of outstanding settlements that don't hold up claims.
const SETTLED_SOON: usize = 1_000;
/// The last part of the shutdown deadline, after handlers were aborted: for outstanding settlements and releases.
const FINAL_SETTLE_TIMEOUT: Duration = Duration::from_secs(5);
/// The final part of it, to deregister the worker.
const DEREGISTER_TIMEOUT: Duration = Duration::from_secs(1);

/// The time-out of a claim.
fn claim_timeout(lease: Duration) -> Duration {
    (lease / 3).clamp(MIN_CLAIM_TIMEOUT, STATEMENT_TIMEOUT)
}

struct RunLoop<F> {
    queue: QueueName,
    worker: WorkerId,
    store: Store,
    options: Options,
    deadline: Duration,
    handler: Arc<F>,
    subscription: WakeSubscription,
    in_flight: Arc<InFlight>,
    /// Tasks that take deliveries until none is ready: at most one for each concurrent handler.
    handlers: JoinSet<()>,
    turns: Arc<Turns>,
    queries: JoinSet<Query>,
    /// Claims under way, and the sum of their limits.
    claims: usize,
    requested: Request,
    claim_limit: AdaptiveLimit,
    claim_timeout: Duration,
    /// The lease of the next claim. Longer than the configured one over a link on which a single message takes long to
    /// arrive, which would otherwise always arrive too late.
    claim_lease: Duration,
    /// When to claim next, unless woken earlier.
    claim_at: Instant,
    unsettled: Unsettled,
    /// When the first of the settlements that wait for a batch was added.
    unsettled_since: Option<Instant>,
    settle_at: Instant,
    extend_limit: AdaptiveLimit,
    is_extending: bool,
    extend_at: Instant,
    extend_not_before: Instant,
    backoff: Duration,
    pace: Pace,
    ending: Option<Ending>,
    /// The pool was closed, so nothing can be claimed or settled any more.
    is_closed: bool,
    fatal: Option<Error>,
    report: Report,
}

/// The deadlines of the three parts of a shutdown.
struct Ending {
    /// Handlers that are still running are aborted.
    abort_at: Instant,
    /// Messages that aren't settled are left to their leases.
    settle_until: Instant,
    /// The run returns.
    deadline: Instant,
    is_aborted: bool,
}

/// A query that has finished.
enum Query {
    Claim {
        result: Result<Received>,
        requested: Request,
        lease: Duration,
    },
    Settle(settle::Outcome),
    Extend(Extension),
}

/// The result of extending leases.
struct Extension {
    asked: Vec<Receipt>,
    extended: HashMap<MessageId, DateTime<Utc>>,
    /// Before the first statement.
    sent: Instant,
    /// The first failure, and the number of leases in its statement.
    failed: Option<(Error, usize)>,
}

impl<F> RunLoop<F> {
    async fn run<P, R>(
        mut self,
        graceful: impl Future<Output = ()> + Send,
        abort: impl Future<Output = ()> + Send,
        closed: impl Future<Output = ()> + Send,
    ) -> Ended
    where
        P: Send + Sync + DeserializeOwned + 'static,
        F: Fn(Delivery<P>) -> R + Send + Sync + 'static,
        R: Future<Output: IntoOutcome> + Send + 'static,
    {
        let (mut graceful, mut abort) = (pin!(graceful), pin!(abort));
        let mut closed = pin!(closed);
        let mut is_aborted = false;
        loop {
            // First, since there may be nothing else to wait for if a handler has settled its message itself.
            self.collect_finished();
            if self.is_over() {
                break;
            }
            self.abort_late_handlers();
            self.start_queries();
            self.start_handlers();
            let next = self.next_deadline();
            let is_ending = self.ending.is_some();
            tokio::select! {
                () = self.in_flight.changed() => {}
                Some(_) = self.handlers.join_next() => {}
                Some(query) = self.queries.join_next() => self.on_query_done(query),
                () = self.subscription.notified(), if !is_ending => self.claim_at = Instant::now(),
                () = &mut graceful, if !is_ending => self.end(),
                () = &mut abort, if !is_aborted => {
                    is_aborted = true;
                    self.end_now();
                }
                () = &mut closed, if !self.is_closed => self.on_closed(),
                () = sleep_until(next) => {}
            }
            while self.handlers.try_join_next().is_some() {}
        }
        self.report.add(self.unsettled.abandon());
        self.report.unknown += self.in_flight.begun() as u64;
        let deadline = self.ending.map_or_else(Instant::now, |end| end.deadline);
        let outcome = match self.fatal {
            Some(error) => Err(error),
            None => Ok(self.report),
        };
        Ended { outcome, deadline }
    }

    fn is_over(&self) -> bool {
        let Some(ending) = &self.ending else {
            return false;
        };
        let nothing_left = self.handlers.is_empty()
            && self.queries.is_empty()
            && (self.unsettled.is_empty() || self.is_closed)
            && self.in_flight.is_empty();
        nothing_left || Instant::now() >= ending.settle_until
    }

    fn end(&mut self) {
        if self.ending.is_some() {
            return;
        }
        let deadline = Instant::now() + self.deadline;
        let settle_until = deadline - (self.deadline / 10).min(DEREGISTER_TIMEOUT);
        self.ending = Some(Ending {
            abort_at: deadline - (self.deadline / 2).min(FINAL_SETTLE_TIMEOUT),
            settle_until,
            deadline,
            is_aborted: false,
        });
    }

    /// Ends without waiting for handlers.
    fn end_now(&mut self) {
        self.end();
        if let Some(ending) = &mut self.ending {
            let now = Instant::now();
            ending.abort_at = now;
            ending.settle_until = ending.settle_until.min(now + DEREGISTER_TIMEOUT);
            ending.deadline = ending.deadline.min(now + 2 * DEREGISTER_TIMEOUT);
        }
    }

    fn on_closed(&mut self) {
        self.is_closed = true;
        // A loop that was stopped earlier counts unsettled messages in its report.
        if self.ending.is_none() {
            self.fail(Error::Closed);
        }
    }

    fn fail(&mut self, error: Error) {
        self.fatal.get_or_insert(error);
        self.end();
    }

    /// Collects finished deliveries; during shutdown also those that won't be started or were aborted.
    fn collect_finished(&mut self) {
        let finished = self.in_flight.take_finished();
        self.pace.handled(finished.len(), std::time::Instant::now());
        for delivery in finished {
            self.on_finished(delivery);
        }
        if self.ending.is_some() {
            self.unsettled
                .release_untouched(self.in_flight.take_untouched());
            let Aborted { held, settled } = self.in_flight.take_aborted();
            self.unsettled.release_unfinished(held);
            self.unsettled.release_if_unsettled(settled);
        }
        if self.unsettled.has_waiting() {
            self.unsettled_since.get_or_insert_with(Instant::now);
        }
    }

    fn on_finished(&mut self, finished: Finished) {
        let Finished {
            lease,
            attempt,
            verdict,
        } = finished;
        let receipt = lease.receipt();
        let wait = || self.options.retry.jittered(attempt, rand::random());
        let failure = match verdict {
            // The handler has settled the message in a transaction that it says it has committed.
            Verdict::Returned(Outcome::Done | Outcome::Archive) if lease.is_settled() => {
                self.report.done += 1;
                return;
            }
            Verdict::Returned(Outcome::Done) => return self.unsettled.ack(receipt),
            Verdict::Returned(Outcome::Archive) => return self.unsettled.archive(receipt),
            Verdict::Returned(Outcome::Release) => {
                return self.unsettled.release_returned(receipt, lease.is_settled());
            }
            Verdict::Returned(Outcome::Retry) => Failure::retry(receipt, wait(), None),
            Verdict::Returned(Outcome::RetryIn(wait)) => {
                Failure::retry(receipt, wait.min(LONGEST_DELAY), None)
            }
            Verdict::Returned(Outcome::DeadLetter(reason)) => Failure::dead(receipt, &reason, None),
            Verdict::Failed(error) => Failure::retry(receipt, wait(), Some(&error)),
            Verdict::Undecodable(error) => {
                Failure::dead(receipt, "its payload doesn't decode", Some(&error))
            }
        };
        self.unsettled.fail(Failure {
            is_settled: lease.is_settled(),
            ..failure
        });
    }

    fn start_handlers<P, R>(&mut self)
    where
        P: Send + Sync + DeserializeOwned + 'static,
        F: Fn(Delivery<P>) -> R + Send + Sync + 'static,
        R: Future<Output: IntoOutcome> + Send + 'static,
    {
        let ready = self.in_flight.ready();
        let idle = self.options.concurrency.saturating_sub(self.handlers.len());
        for _ in 0..ready.min(idle) {
            let in_flight = Arc::clone(&self.in_flight);
            let (handler, turns) = (Arc::clone(&self.handler), Arc::clone(&self.turns));
            let (store, queue) = (self.store.clone(), self.queue.clone());
            let (retry, limit) = (self.options.retry, self.options.handler_timeout);
            self.handlers.spawn(async move {
                while let Some(mut taken) = in_flight.take() {
                    let Some((message, lease)) = taken.message() else {
                        return;
                    };
                    let attempt = message.attempt.unsigned_abs();
                    let span = telemetry::process(queue.as_str(), message.id.get(), attempt);
                    let deliver = || {
                        let decode = |json: &str| serde_json::from_str(json);
                        Delivery::new(message, lease, decode, store.clone(), retry)
                    };
                    let handling = handle(&*handler, deliver, limit).instrument(span.clone());
                    let verdict = turns.run(handling).await;
                    if !matches!(verdict, Verdict::Returned(_)) {
                        telemetry::handler_failed(&span, "handler");
                    }
                    taken.finish(verdict);
                }
            });
        }
    }

    fn abort_late_handlers(&mut self) {
        if let Some(ending) = &mut self.ending
            && !ending.is_aborted
            && ending.abort_at <= Instant::now()
        {
            ending.is_aborted = true;
            self.handlers.abort_all();
        }
    }

    fn start_queries(&mut self) {
        let now = Instant::now();
        while self.claim_at <= now
            && let Some(request) = self.next_claim()
        {
            self.start_claim(request);
        }
        if self.next_settling().is_some_and(|at| at <= now) {
            self.start_settling();
        }
        let must_extend =
            self.extend_at <= now || self.extend_not_before <= now && self.in_flight.has_expired();
        if !self.is_extending && must_extend {
            self.start_extending();
        }
        self.in_flight.notify_below(match self.claims {
            // Finished deliveries are to be settled at once.
            0 => usize::MAX,
            // The next claim is due when only this many are left.
            1..MAX_CONCURRENT_CLAIMS => self.load().capacity() / 2,
            _ => 0,
        });
    }

    /// Time-out of a settlement or an extension: short enough that a second one is possible before the lease runs out.
    fn statement_timeout(&self) -> Duration {
        (self.options.lease / 3).clamp(Duration::from_secs(1), Duration::from_secs(10))
    }

    /// What to claim at `claim_at`.
    fn next_claim(&self) -> Option<Request> {
        // Messages that arrived too late have their leases extended first: the claim could take them away from this
        // very consumer.
        if self.ending.is_some() || self.in_flight.has_expired() {
            return None;
        }
        self.load().next_claim()
    }

    /// When to settle next; `None` while a batch is under way, or if nothing is to be settled.
    fn next_settling(&self) -> Option<Instant> {
        if self.unsettled.is_settling() || !self.unsettled.has_waiting() {
            return None;
        }
        let can_wait = self.claims > 0 && self.unsettled.can_wait(MIN_ACKS);
        let waited = self.unsettled_since.filter(|_| can_wait);
        Some(waited.map_or(self.settle_at, |since| {
            self.settle_at.max(since + MAX_ACK_WAIT)
        }))
    }

    fn load(&self) -> Load {
        let unsettled = self.unsettled.len();
        Load {
            concurrency: self.options.concurrency,
            prefetch: self.options.prefetch,
            max_bytes: self.options.max_bytes,
            per_second: self.pace.per_second(),
            claims: self.claims,
            requested: self.requested,
            held: self.in_flight.held(),
            unsettled: if self.unsettled.is_failing() {
                unsettled
            } else {
                unsettled.saturating_sub(SETTLED_SOON)
            },
            limit: self.claim_limit.get(),
        }
    }

    fn start_claim(&mut self, requested: Request) {
        self.store.heartbeats().resume();
        if self.options.listen {
            self.store.notifier().resume_listening();
        }
        self.claims += 1;
        self.requested.messages += requested.messages;
        self.requested.bytes += requested.bytes;
        let (store, lease) = (self.store.clone(), self.claim_lease);
        let request = ClaimRequest {
            queue: self.queue.clone(),
            consumer: Some(self.worker),
            limit: u32::try_from(requested.messages).unwrap_or(u32::MAX),
            max_bytes: requested.bytes,
            lease,
            timeout: self.claim_timeout,
        };
        self.queries.spawn(async move {
            Query::Claim {
                result: claim_once(&store, &request).await,
                requested,
                lease,
            }
        });
    }

    fn start_settling(&mut self) {
        let Some(batch) = self.unsettled.next_batch() else {
            return;
        };
        self.unsettled_since = None;
        let (store, timeout) = (self.store.clone(), self.statement_timeout());
        self.queries.spawn(async move {
            let span = telemetry::settle("settle", None);
            telemetry::batch(&span, batch.len());
            let outcome = settle(&store, batch, timeout)
                .instrument(span.clone())
                .await;
            if let Some((_, error)) = &outcome.failed {
                telemetry::failed(&span, error);
            }
            Query::Settle(outcome)
        });
    }

    fn start_extending(&mut self) {
        self.store.heartbeats().resume();
        let mut receipts = self.in_flight.receipts();
        receipts.extend(self.unsettled.receipts());
        if receipts.is_empty() {
            self.extend_at = Instant::now() + self.options.lease / 3;
            return;
        }
        self.is_extending = true;
        let (store, lease) = (self.store.clone(), self.options.lease);
        let (timeout, limit) = (self.statement_timeout(), self.extend_limit.get());
        self.queries.spawn(async move {
            Query::Extend(extend(&store, &receipts, lease, timeout, limit).await)
        });
    }

    fn on_query_done(&mut self, query: Result<Query, JoinError>) {
        match query {
            Ok(Query::Claim {
                result,
                requested,
                lease,
            }) => {
                self.claims = self.claims.saturating_sub(1);
                let before = self.requested;
                self.requested = Request {
                    messages: before.messages.saturating_sub(requested.messages),
                    bytes: before.bytes.saturating_sub(requested.bytes),
                };
                match result {
                    Ok(received) => self.on_claimed(received, requested, lease),
                    Err(error) => self.on_claim_failed(error, requested),
                }
            }
            Ok(Query::Settle(outcome)) => {
                self.report.add(outcome.report);
                match outcome.failed {
                    Some((rest, error)) => {
                        telemetry::loop_failed("settle", &error);
                        self.unsettled.failed(rest, &error);
                        self.settle_at = self.back_off();
                        if is_final(&error) {
                            self.report.add(self.unsettled.abandon());
                            self.fail(error);
                        }
                    }
                    None => {
                        self.unsettled.settled();
                        self.backoff = MIN_BACKOFF;
                    }
                }
            }
            Ok(Query::Extend(extension)) => {
                self.is_extending = false;
                self.on_extended(extension);
            }
            // A query's task neither panics nor is aborted. If it did, its leases would run out.
            Err(_) => {
                (self.claims, self.requested) = (0, Request::default());
                self.report.add(self.unsettled.abandon());
                self.is_extending = false;
            }
        }
    }

    fn on_claimed(&mut self, received: Received, requested: Request, lease: Duration) {
        let Received { claimed, sent } = received;
        self.backoff = MIN_BACKOFF;
        self.claim_timeout = claim_timeout(self.options.lease);
        let now = Instant::now();
        let count = claimed.messages.len();
        let took = now - sent;
        if count > 0 && took > self.options.lease / 3 {
            // Little time is left of these leases, and the next ones would have as little.
            self.claim_limit.failed(count);
            self.extend_at = now;
            if count == 1 {
                self.claim_lease = self.claim_lease.max(took * 3);
            }
        } else if count > 0 {
            self.claim_limit.passed(count);
            self.claim_lease = self.options.lease.max(self.claim_lease / 2);
        }
        // A claim that returned less than its limit has returned all messages that were ready.
        let is_all = !claimed.full && count < requested.messages;
        // A wake-up may have arrived meanwhile, though.
        if is_all && self.claim_at <= sent {
            self.claim_at = now + self.options.poll_interval;
        }
        self.in_flight.add(claimed.messages, sent + lease);
    }

    fn on_claim_failed(&mut self, error: Error, requested: Request) {
        match error {
            // The worker was stopped by an operator or another process.
            Error::WorkerStopped { .. } => self.end(),
            // The worker was suspended by an operator or another process, until it is resumed.
            Error::WorkerSuspended { .. } => {
                self.claim_at = Instant::now() + self.options.poll_interval
            }
            error if is_final(&error) => self.fail(error),
            error => {
                if matches!(error, Error::ConnectionLost(_)) {
                    // Its answer may be too large for the link.
                    self.claim_limit.failed(requested.messages);
                    self.claim_timeout = (self.claim_timeout * 2).min(MAX_CLAIM_TIMEOUT);
                }
                telemetry::loop_failed("claim", &error);
                self.claim_at = self.back_off();
            }
        }
    }

    fn on_extended(&mut self, extension: Extension) {
        let Extension {
            asked,
            extended,
            sent,
            failed,
        } = extension;
        let until = sent + self.options.lease;
        self.in_flight.extended(&asked, &extended, until);
        if let Some((error, size)) = failed {
            telemetry::loop_failed("extend", &error);
            self.extend_limit.failed(size);
            // Retries soon, while there is still something to extend.
            let soon = (self.options.lease / 10).min(Duration::from_secs(1));
            self.extend_at = Instant::now() + soon;
        } else {
            self.extend_limit.passed(asked.len());
            self.extend_at = sent + self.options.lease / 3;
        }
        self.extend_not_before = self.extend_at.min(Instant::now() + Duration::from_secs(1));
    }

    /// When to retry, with jitter against others that failed at the same time.
    fn back_off(&mut self) -> Instant {
        let wait = self.backoff.mul_f64(0.5 + rand::random::<f64>() / 2.0);
        self.backoff = (self.backoff * 2).min(MAX_BACKOFF);
        Instant::now() + wait
    }

    fn next_deadline(&self) -> Instant {
        let mut next = if self.is_extending {
            Instant::now() + STATEMENT_TIMEOUT
        } else if self.in_flight.has_expired() {
            self.extend_at.min(self.extend_not_before)
        } else {
            self.extend_at
        };
        if let Some(ending) = &self.ending {
            next = next.min(if ending.is_aborted {
                ending.settle_until
            } else {
                ending.abort_at
            });
        } else if self.next_claim().is_some() {
            next = next.min(self.claim_at);
        }
        if let Some(at) = self.next_settling() {
            next = next.min(at);
        }
        // While claims are under way, only few finished deliveries are reported.
        if self.claims > 0 && !self.in_flight.is_empty() {
            next = next.min(Instant::now() + MAX_ACK_WAIT);
        }
        next
    }
}

/// Whether an error won't pass by waiting.
fn is_final(error: &Error) -> bool {
    matches!(
        error,
        Error::NotInstalled
            | Error::SchemaOutdated
            | Error::PermissionDenied { .. }
            | Error::QueueNotFound { .. }
            | Error::Closed
    )
}

/// Extends leases, in as many statements as needed. If the server rejects a statement for a reason that may apply to
/// one message, the others are extended without it.
async fn extend(
    store: &Store,
    receipts: &[Receipt],
    lease: Duration,
    timeout: Duration,
    limit: usize,
) -> Extension {
    let mut extension = Extension {
        asked: Vec::new(),
        extended: HashMap::new(),
        sent: Instant::now(),
        failed: None,
    };
    let mut batches: Vec<_> = receipts.chunks(limit.max(1)).rev().collect();
    while let Some(batch) = batches.pop() {
        let extended = async {
            let mut connection = store.reserved().await?;
            connection
                .within(timeout, async |connection| {
                    extend_many(connection, batch, lease).await
                })
                .await
        };
        match extended.await {
            Ok(extended) => {
                let extended = extended.into_iter().map(|one| (one.id, one.expires_at));
                extension.extended.extend(extended);
                extension.asked.extend(batch);
            }
            Err(error) if error.may_concern_one_message() => match batch {
                [receipt] => {
                    telemetry::extension_refused(receipt.id, &error);
                    extension.asked.push(*receipt);
                }
                _ => {
                    let (first, second) = batch.split_at(batch.len() / 2);
                    batches.extend([second, first]);
                }
            },
            Err(error) => {
                extension.failed = Some((error, batch.len()));
                break;
            }
        }
    }
    extension
}
