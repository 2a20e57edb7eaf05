//! The run loop of a consumer: claims ahead, extends leases, settles in batches, and continues after failures. One task
//! holds all of its state; handlers and statements are tasks of their own, which report back to it.

mod deadlines;
mod handlers;
mod held;
mod queries;

use std::{
    collections::HashSet,
    future::Future,
    mem,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use chrono::DateTime;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep_until},
};

use super::{
    batch,
    claims::{AdaptiveLimit, Pace, Request},
    extend::Extension,
    handlers::{Shared, Work},
    held::Held,
    in_flight::{Aborted, ChunkLimits, Finished, InFlight},
    options::Options,
    settle::SettleQueue,
    turns::Turns,
};
use crate::{
    dequeue::Received,
    error::{Error, Result, error_chain},
    handler::{Outcome, Verdict},
    lifecycle::WorkerId,
    message::{MessageId, Origin, QueueSettings, Receipt, cancel_notice::CancelNotice},
    pool::WakeSubscription,
    postgres::settle::failures::Failure,
    queue::QueueName,
    report::Report,
    store::Store,
    telemetry::{self, Timer},
    trace_context::Ambient,
};

/// What a run loop needs to run.
pub(crate) struct Job<W> {
    pub(crate) store: Store,
    pub(crate) queue: QueueName,
    pub(crate) worker: WorkerId,
    pub(crate) options: Options,
    pub(crate) work: W,
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

pub(crate) async fn start(job: Job<impl Work>) -> Ended {
    let Job {
        store,
        queue,
        worker,
        options,
        work,
        mut shutdown,
        mut stop,
        deadline,
    } = job;
    let mut options = options;
    options.listen &= store.can_listen();
    let subscription = store.notifier().subscribe(&queue, options.listen);
    #[cfg(feature = "schedules")]
    let _firing = store.firing().join();
    let closed = store.pool().close_event();
    let (stop_requests, mut graceful) = (stop.clone(), stop.clone());
    let graceful = async move {
        tokio::select! {
            () = &mut shutdown => {}
            _ = graceful.wait_for(|stop| *stop >= Stop::Graceful) => {}
        }
    };
    let abort = async move {
        // Without a handle, no abort can be requested.
        if stop.wait_for(|stop| *stop == Stop::Abort).await.is_err() {
            std::future::pending().await
        }
    };
    let in_flight = Arc::new(InFlight::new(queue.clone()));
    in_flight.watch();
    RunLoop {
        origin: Arc::new(Origin {
            queue: queue.clone(),
            worker: Some(worker),
            settings: QueueSettings::default(),
            claimed_at: DateTime::UNIX_EPOCH,
            timer: Timer::start(),
        }),
        queue,
        worker,
        is_suspended: false,
        held: Held::new(),
        own: options,
        options,
        stop_requests,
        deadline,
        chunk: work.limits(),
        work: Arc::new(work),
        shared: Arc::new(Shared {
            in_flight: Arc::clone(&in_flight),
            turns: Turns::new(),
            store: store.clone(),
            retry: options.retry,
            limit: options.handler_timeout,
            cancel_grace: options.cancel_grace,
            ambient: Ambient::current(),
        }),
        store,
        subscription,
        in_flight,
        handlers: JoinSet::new(),
        queries: JoinSet::new(),
        claims: 0,
        requested: Request::default(),
        claim_limit: AdaptiveLimit::new(MAX_CLAIM),
        claim_timeout: options.claim_timeout(),
        claim_lease: options.lease,
        claim_at: Instant::now(),
        unsettled: SettleQueue::new(),
        unsettled_since: None,
        settle_at: Instant::now(),
        unblock_at: Instant::now(),
        extend_limit: AdaptiveLimit::new(MAX_EXTENSION),
        is_extending: false,
        to_verify: HashSet::new(),
        is_verifying: false,
        early_notices: Vec::new(),
        prune_at: None,
        is_pruning: false,
        is_stopping: Arc::default(),
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
/// Maximum number of messages of one claim.
const MAX_CLAIM: usize = 10_000;
/// Maximum number of leases that one statement extends.
const MAX_EXTENSION: usize = 1_000;
/// But not longer than this, if the claim takes long.
const MAX_ACK_WAIT: Duration = Duration::from_millis(50);
/// How long a shutdown waits for claims under way before it releases messages, which they could claim again.
const CLAIM_GRACE: Duration = Duration::from_millis(250);
/// The last part of the shutdown deadline, after handlers were aborted: for outstanding settlements and releases.
const FINAL_SETTLE_TIMEOUT: Duration = Duration::from_secs(5);
/// The final part of it, to deregister the worker.
const DEREGISTER_TIMEOUT: Duration = Duration::from_secs(1);

struct RunLoop<W> {
    queue: QueueName,
    worker: WorkerId,
    /// Of the last messages that were claimed.
    origin: Arc<Origin>,
    is_suspended: bool,
    held: Held,
    store: Store,
    /// As they were given.
    own: Options,
    /// With what the queue has set instead.
    options: Options,
    stop_requests: watch::Receiver<Stop>,
    deadline: Duration,
    chunk: ChunkLimits,
    work: Arc<W>,
    /// Shared with the tasks of handlers.
    shared: Arc<Shared>,
    subscription: WakeSubscription,
    in_flight: Arc<InFlight>,
    /// Tasks that take deliveries until none is ready: at most one for each concurrent handler.
    handlers: JoinSet<()>,
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
    unsettled: SettleQueue,
    /// When the first of the settlements that wait for a batch was added.
    unsettled_since: Option<Instant>,
    settle_at: Instant,
    /// When settlements whose groups were locked are tried again.
    unblock_at: Instant,
    extend_limit: AdaptiveLimit,
    is_extending: bool,
    /// Deliveries whose messages may have been cancelled.
    to_verify: HashSet<Receipt>,
    is_verifying: bool,
    /// What was cancelled while claims were under way, whose messages may be among theirs.
    early_notices: Vec<CancelNotice>,
    /// When to delete what is older than the queue keeps it; `None` if it keeps all.
    prune_at: Option<Instant>,
    is_pruning: bool,
    is_stopping: Arc<AtomicBool>,
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

/// A shutdown, and the deadlines of its parts.
struct Ending {
    /// Messages that no handler will get.
    untouched: Vec<Receipt>,
    /// Messages are released, even if a claim is still under way.
    release_at: Instant,
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
    },
    Settle(batch::Outcome),
    Extend(Extension),
    /// Which of these messages still exist.
    Verify {
        asked: Vec<Receipt>,
        found: Result<Vec<MessageId>>,
    },
    /// How long to wait until the next deletion of what is over.
    Prune(Duration),
}

impl<W: Work> RunLoop<W> {
    async fn run(
        mut self,
        graceful: impl Future<Output = ()> + Send,
        abort: impl Future<Output = ()> + Send,
        closed: impl Future<Output = ()> + Send,
    ) -> Ended {
        let (mut graceful, mut abort) = (pin!(graceful), pin!(abort));
        let mut closed = pin!(closed);
        let mut is_aborted = false;
        loop {
            // First, since there may be nothing else to wait for if a handler has settled its message itself.
            self.collect_finished();
            if self.is_over() {
                break;
            }
            // A handler that stops its consumer expects that nothing is claimed any more.
            if self.ending.is_none() && *self.stop_requests.borrow() == Stop::Graceful {
                self.end("stop requested");
                // It may be over with that, and nothing else would wake the loop before the deadline.
                continue;
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
                notices = self.subscription.cancelled() => self.on_cancelled(notices),
                () = self.subscription.notified(), if !is_ending => self.on_woken(),
                () = &mut graceful, if !is_ending => self.end("stop requested"),
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
            Some(error) => {
                telemetry::consumer_failed(self.worker, &self.queue, &error, &self.report);
                Err(error)
            }
            None => {
                telemetry::consumer_stopped(self.worker, &self.queue, &self.report);
                Ok(self.report)
            }
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

    fn end(&mut self, reason: &str) {
        if self.ending.is_some() {
            return;
        }
        self.is_stopping.store(true, Ordering::Relaxed);
        let running = self.in_flight.running();
        telemetry::consumer_stopping(self.worker, &self.queue, reason, running, self.deadline);
        let now = Instant::now();
        let deadline = now + self.deadline;
        let settle_until = deadline - (self.deadline / 10).min(DEREGISTER_TIMEOUT);
        self.ending = Some(Ending {
            untouched: Vec::new(),
            release_at: now + CLAIM_GRACE.min(self.deadline / 2),
            abort_at: deadline - (self.deadline / 2).min(FINAL_SETTLE_TIMEOUT),
            settle_until,
            deadline,
            is_aborted: false,
        });
    }

    /// Ends without waiting for handlers.
    fn end_now(&mut self) {
        self.end("abort requested");
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
        self.end(&error_chain(&error));
        self.fatal.get_or_insert(error);
    }

    /// Collects finished deliveries; during shutdown also those that won't be started or were aborted.
    fn collect_finished(&mut self) {
        let (finished, put_aside) = self.in_flight.take_finished();
        self.pace.handled(finished.len(), std::time::Instant::now());
        for delivery in finished {
            self.on_finished(delivery);
        }
        self.unsettled.release_untouched(put_aside);
        if let Some(ending) = &mut self.ending {
            ending.untouched.extend(self.in_flight.take_untouched());
            if self.claims == 0 || ending.release_at <= Instant::now() {
                let untouched = mem::take(&mut ending.untouched);
                self.unsettled.release_untouched(untouched);
                let Aborted { held, settled } = self.in_flight.take_aborted();
                self.unsettled.release_unfinished(held);
                self.unsettled.release_if_unsettled(settled);
            }
        }
        if self.unsettled.has_blocked() && self.unblock_at <= Instant::now() {
            self.unsettled.unblock();
        }
        if self.unsettled.has_waiting() {
            self.unsettled_since.get_or_insert_with(Instant::now);
        }
    }

    fn on_finished(&mut self, finished: Finished) {
        let Finished {
            lease,
            verdict,
            retry_in,
        } = finished;
        if lease.is_cancelled() && !lease.is_settled() {
            self.report.cancelled += 1;
            return;
        }
        let receipt = lease.receipt();
        let wait = || {
            retry_in.unwrap_or_else(|| {
                // It panicked after it had been aborted, so that nobody has reported it.
                let retry = lease.subject().origin.settings.retry(self.own.retry);
                let wait = verdict.retry_in(&retry, receipt.attempt);
                verdict.report(lease.subject(), wait);
                wait.unwrap_or_default()
            })
        };
        let failure = match &verdict {
            // The handler has settled the message in a transaction that it says it has committed.
            Verdict::Returned(Outcome::Done | Outcome::Archive) if lease.is_settled() => {
                return self.done_by_handler();
            }
            Verdict::Returned(Outcome::Done) if !lease.subject().origin.settings.archive_on_ack => {
                return self.unsettled.ack(receipt);
            }
            Verdict::Returned(Outcome::Done | Outcome::Archive) => {
                return self.unsettled.archive(receipt);
            }
            Verdict::Returned(Outcome::Release) => {
                return self.unsettled.release_returned(receipt, lease.is_settled());
            }
            Verdict::Returned(Outcome::Retry(reason) | Outcome::RetryIn(_, reason)) => {
                Failure::retry(receipt, wait(), reason)
            }
            Verdict::Returned(Outcome::Later(_)) => Failure::later(receipt, wait()),
            Verdict::Returned(Outcome::SlowDown(_)) => {
                let wait = wait();
                if lease.slows_queue() {
                    self.on_slowed_down(wait);
                }
                Failure::slow_down(receipt, wait)
            }
            Verdict::Returned(Outcome::DeadLetter(reason)) => Failure::dead(receipt, reason),
            Verdict::Failed(failed) => Failure::retry(receipt, wait(), failed.text()),
            Verdict::Returned(Outcome::Undecodable(error)) | Verdict::Undecodable { error, .. } => {
                Failure::undecodable(receipt, self.options.undecodable, error)
            }
            // Only a lease that is cancelled has this verdict.
            Verdict::Cancelled => {
                self.report.cancelled += 1;
                return;
            }
        };
        self.unsettled.fail(Failure {
            is_settled: lease.is_settled(),
            ..failure
        });
    }
}
