//! The statements of a run loop: when each is due, and what follows from its outcome.

use std::{sync::Arc, time::Duration};

use tokio::{task::JoinError, time::Instant};
use tracing::Instrument;

use super::{MAX_ACK_WAIT, MIN_BACKOFF, Query, RunLoop};
use crate::{
    consume::{
        batch::settle,
        claims::{Load, MAX_CONCURRENT_CLAIMS, Request},
        extend::{Extension, extend},
        handlers::Work,
    },
    dequeue::{ClaimRequest, Received, claim_once},
    error::{Error, Result},
    telemetry::{self, Messages},
};

const MAX_BACKOFF: Duration = Duration::from_secs(5);
/// After a claim has timed out, as it may over a slow link, the time-out of the next one is doubled, up to this.
const MAX_CLAIM_TIMEOUT: Duration = Duration::from_secs(120);
/// While a claim is under way, acks wait until there are this many: its end is a good time to send them too.
const MIN_ACKS: usize = 64;
/// Maximum number of outstanding settlements that don't hold up claims.
const SETTLED_SOON: usize = 1_000;

impl<W: Work> RunLoop<W> {
    pub(super) fn start_queries(&mut self) {
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
    pub(super) fn next_claim(&self) -> Option<Request> {
        // Messages that arrived too late have their leases extended first: the claim could take them away from this
        // very consumer.
        if self.ending.is_some() || self.in_flight.has_expired() {
            return None;
        }
        self.load().next_claim()
    }

    /// When to settle next; `None` while a batch is under way, or if nothing is to be settled.
    pub(super) fn next_settling(&self) -> Option<Instant> {
        if self.unsettled.is_settling() || !self.unsettled.has_waiting() {
            return None;
        }
        let can_wait = self.claims > 0 && self.unsettled.can_wait(MIN_ACKS);
        let waited = self.unsettled_since.filter(|_| can_wait);
        Some(waited.map_or(self.settle_at, |since| {
            self.settle_at.max(since + MAX_ACK_WAIT)
        }))
    }

    pub(super) fn load(&self) -> Load {
        let unsettled = self.unsettled.len();
        Load {
            running: self.options.concurrency.saturating_mul(self.chunk.size),
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
        #[cfg(feature = "schedules")]
        self.store.firing().resume();
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
            links: false,
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
        let origin = Arc::clone(&self.origin);
        self.queries.spawn(async move {
            let queue = Some(origin.queue.as_str());
            let messages = Messages::Batch(batch.len());
            let span = telemetry::settle(batch.settlements.name(), queue, messages);
            let outcome = settle(&store, batch, &origin, timeout)
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
        let origin = Arc::clone(&self.origin);
        self.queries.spawn(async move {
            Query::Extend(extend(&store, &receipts, &origin, lease, timeout, limit).await)
        });
    }

    pub(super) fn on_query_done(&mut self, query: Result<Query, JoinError>) {
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
                        telemetry::statement_failed(self.worker, &self.queue, "settle", &error);
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
        if self.is_suspended {
            self.is_suspended = false;
            telemetry::consumer_resumed(self.worker, &self.queue);
        }
        self.origin = Arc::clone(&claimed.origin);
        self.claim_timeout = self.options.claim_timeout();
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
            Error::WorkerStopped { .. } => self.end("worker stopped, or replaced by another"),
            // The worker was suspended by an operator or another process, until it is resumed.
            Error::WorkerSuspended { .. } => {
                if !self.is_suspended {
                    self.is_suspended = true;
                    telemetry::consumer_suspended(self.worker, &self.queue);
                }
                self.claim_at = Instant::now() + self.options.poll_interval
            }
            error if is_final(&error) => self.fail(error),
            error => {
                if matches!(error, Error::ConnectionLost(_)) {
                    // Its answer may be too large for the link.
                    self.claim_limit.failed(requested.messages);
                    self.claim_timeout = (self.claim_timeout * 2).min(MAX_CLAIM_TIMEOUT);
                }
                telemetry::statement_failed(self.worker, &self.queue, "claim", &error);
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
        for lost in self.in_flight.extended(&asked, &extended, until) {
            telemetry::lease_lost(&lost, "prefetch");
        }
        if let Some((error, size)) = failed {
            telemetry::statement_failed(self.worker, &self.queue, "extend", &error);
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
    pub(super) fn back_off(&mut self) -> Instant {
        let wait = self.backoff.mul_f64(0.5 + rand::random::<f64>() / 2.0);
        self.backoff = (self.backoff * 2).min(MAX_BACKOFF);
        Instant::now() + wait
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
