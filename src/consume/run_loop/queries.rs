//! The statements of a run loop: when each is due, and what follows from its outcome.

use std::{collections::HashSet, sync::Arc, time::Duration};

use tokio::{task::JoinError, time::Instant};
use tracing::Instrument;

use super::{MAX_ACK_WAIT, MIN_BACKOFF, Query, RunLoop};
use crate::{
    consume::{
        batch::settle,
        claims::{Load, MAX_CONCURRENT_CLAIMS, Request},
        extend::{Extension, extend},
        handlers::Work,
        in_flight::NotExtended,
        retention::prune,
    },
    dequeue::{ClaimRequest, Received, claim_once},
    error::{Error, Result},
    message::{MessageId, Receipt, cancel_notice::CancelNotice},
    postgres::settle::still_queued,
    telemetry::{self, Messages},
};

const MAX_BACKOFF: Duration = Duration::from_secs(5);
/// After a claim has timed out, as it may over a slow link, the time-out of the next one is doubled, up to this.
const MAX_CLAIM_TIMEOUT: Duration = Duration::from_secs(120);
/// How long settlements wait whose groups other transactions have locked.
const BLOCKED_INTERVAL: Duration = Duration::from_millis(50);
/// Maximum number of notices that are kept while a claim is under way.
const MAX_NOTICES: usize = 1_000;
/// Maximum number of messages of which one statement finds out whether they exist.
const MAX_VERIFIED: usize = 1_000;
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
        self.start_verifying();
        if self.ending.is_none() && !self.is_pruning && self.prune_at.is_some_and(|at| at <= now) {
            self.is_pruning = true;
            let (store, queue) = (self.store.clone(), self.queue.clone());
            let is_stopping = Arc::clone(&self.is_stopping);
            let has_group_rates = self.origin.settings.has_group_rates;
            self.queries.spawn(async move {
                Query::Prune(prune(store, queue, has_group_rates, is_stopping).await)
            });
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
            // A message that only waits for a handler would keep others from running elsewhere.
            prefetch: if self.origin.settings.has_limits() {
                0
            } else {
                self.options.prefetch
            },
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
        let store = self.store.clone();
        let request = ClaimRequest {
            queue: self.queue.clone(),
            consumer: Some(self.worker),
            limit: u32::try_from(requested.messages).unwrap_or(u32::MAX),
            max_bytes: requested.bytes,
            lease: self.own.lease,
            lease_at_least: if self.claim_lease > self.options.lease {
                self.claim_lease
            } else {
                Duration::ZERO
            },
            timeout: self.claim_timeout,
            links: false,
        };
        self.queries.spawn(async move {
            Query::Claim {
                result: claim_once(&store, &request).await,
                requested,
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
            Ok(Query::Claim { result, requested }) => {
                self.claims = self.claims.saturating_sub(1);
                let before = self.requested;
                self.requested = Request {
                    messages: before.messages.saturating_sub(requested.messages),
                    bytes: before.bytes.saturating_sub(requested.bytes),
                };
                match result {
                    Ok(received) => self.on_claimed(received, requested),
                    Err(error) => self.on_claim_failed(error, requested),
                }
                self.match_early_notices();
            }
            Ok(Query::Settle(outcome)) => {
                self.report.add(outcome.report);
                self.count_settled(outcome.report.out());
                if !outcome.blocked.is_empty() {
                    self.unblock_at = Instant::now() + BLOCKED_INTERVAL;
                }
                for settlements in outcome.blocked {
                    self.unsettled.blocked(settlements);
                }
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
                        let settings = self.origin.settings;
                        if settings.is_limited || settings.has_group_rates {
                            // Slots are free, for this consumer or for others; or the next of a group is due soon.
                            self.store.notifier().wake(&self.queue);
                        }
                    }
                }
            }
            Ok(Query::Extend(extension)) => {
                self.is_extending = false;
                self.on_extended(extension);
            }
            Ok(Query::Verify { asked, found }) => {
                self.is_verifying = false;
                match found {
                    Ok(found) => self.on_verified(&asked, &found),
                    // The next extension finds them again.
                    Err(error) => {
                        telemetry::statement_failed(self.worker, &self.queue, "verify", &error);
                    }
                }
            }
            Ok(Query::Prune(wait)) => {
                self.is_pruning = false;
                self.prune_at = self.prune_at.map(|_| Instant::now() + wait);
            }
            // A query's task neither panics nor is aborted. If it did, its leases would run out.
            Err(_) => {
                (self.claims, self.requested) = (0, Request::default());
                self.report.add(self.unsettled.abandon());
                self.is_extending = false;
                (self.is_verifying, self.is_pruning) = (false, false);
            }
        }
    }

    /// The handler has settled the message itself.
    pub(super) fn done_by_handler(&mut self) {
        self.report.done += 1;
        self.count_settled(1);
    }

    fn count_settled(&self, messages: u64) {
        let heartbeats = self.store.heartbeats();
        heartbeats.count_settled(self.worker, messages);
    }

    fn on_claimed(&mut self, received: Received, requested: Request) {
        let (claimed, sent) = (&received.claimed, received.sent);
        self.backoff = MIN_BACKOFF;
        if self.is_suspended {
            self.is_suspended = false;
            telemetry::consumer_resumed(self.worker, &self.queue);
        }
        self.origin = Arc::clone(&claimed.origin);
        self.apply_settings();
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
        self.schedule_claim(&received, is_all);
        let claimed = received.claimed;
        self.in_flight
            .add(claimed.messages, sent, sent + claimed.lease);
    }

    /// Leases were cancelled, of this consumer or of others.
    pub(super) fn on_cancelled(&mut self, notices: Vec<CancelNotice>) {
        self.to_verify.extend(self.in_flight.noticed(&notices));
        if self.claims > 0 {
            let room = MAX_NOTICES.saturating_sub(self.early_notices.len());
            self.early_notices.extend(notices.into_iter().take(room));
        }
    }

    /// A claim has ended: its messages may be among those that were cancelled meanwhile.
    fn match_early_notices(&mut self) {
        if self.early_notices.is_empty() {
            return;
        }
        let noticed = self.in_flight.noticed(&self.early_notices);
        self.to_verify.extend(noticed);
        if self.claims == 0 {
            self.early_notices.clear();
        }
    }

    /// Asks the database whether messages are gone: a notice is only a hint, and a lease that was not extended may be
    /// that of a message which another transaction is changing.
    fn start_verifying(&mut self) {
        if self.is_verifying || self.to_verify.is_empty() || self.is_closed {
            return;
        }
        self.is_verifying = true;
        let asked: Vec<_> = (self.to_verify.iter().copied())
            .take(MAX_VERIFIED)
            .collect();
        for receipt in &asked {
            self.to_verify.remove(receipt);
        }
        let (store, timeout) = (self.store.clone(), self.statement_timeout());
        self.queries.spawn(async move {
            let found = async {
                let mut connection = store.reserved().await?;
                connection
                    .within(timeout, async |connection| {
                        still_queued(connection, &asked).await
                    })
                    .await
            };
            let found = found.await;
            Query::Verify { asked, found }
        });
    }

    fn on_verified(&mut self, asked: &[Receipt], found: &[MessageId]) {
        let found: HashSet<_> = found.iter().collect();
        let gone = asked.iter().filter(|receipt| !found.contains(&receipt.id));
        for subject in self.in_flight.cancel(&gone.copied().collect()) {
            telemetry::cancelled(&subject);
        }
    }

    /// Applies what the queue has set, as the last claim has read it.
    fn apply_settings(&mut self) {
        let settings = self.origin.settings;
        self.apply_holds();
        if self.prune_at.is_some() != settings.is_pruned {
            self.prune_at = settings.is_pruned.then(Instant::now);
        }
        let lease = settings.lease(self.own.lease);
        if lease != self.options.lease {
            self.options.lease = lease;
            self.claim_lease = lease;
            self.extend_at = self.extend_at.min(Instant::now() + lease / 3);
        }
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
        let NotExtended { lost, running } = self.in_flight.extended(&asked, &extended, until);
        for lost in lost {
            telemetry::lease_lost(&lost, "prefetch");
        }
        self.to_verify.extend(running);
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
