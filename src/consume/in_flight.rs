//! Deliveries in flight: ready, running, finished. Shared by the run loop and the handler tasks, so that a handler
//! takes its next delivery without a task switch.

mod cancelled;
mod slowed;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use chrono::{DateTime, Utc};
use slab::Slab;
use tokio::{sync::Notify, time::Instant};

use super::claims::Request;
#[cfg(any(feature = "metrics", feature = "opentelemetry"))]
use crate::telemetry;
use crate::{
    delivery::lease::Lease,
    handler::{Failed, Verdict},
    message::{Message, MessageId, Receipt},
    queue::QueueName,
    telemetry::Subject,
};

/// When a chunk is passed to a handler.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ChunkLimits {
    /// As soon as it has this many messages; at least 1.
    pub(crate) size: usize,
    /// With fewer, if its first message was received this long ago.
    pub(crate) wait: Duration,
}

impl ChunkLimits {
    /// For handlers that take one delivery.
    pub(super) const ONE: Self = Self {
        size: 1,
        wait: Duration::ZERO,
    };
}

/// State shared by the loop and its handlers.
pub(super) struct InFlight {
    /// For metrics.
    #[cfg_attr(
        not(any(feature = "metrics", feature = "opentelemetry")),
        expect(dead_code, reason = "nobody asks for the metrics")
    )]
    queue: QueueName,
    /// Never held across an await.
    state: Mutex<State>,
    /// Notifies the loop of a change that it waits for.
    changed: Notify,
}

#[derive(Default)]
struct State {
    /// Leased, and not started.
    ready: VecDeque<Ready>,
    /// Ready messages whose lease may have run out before a handler was free. Not to be started unless the lease can
    /// still be extended.
    expired: Vec<Ready>,
    /// Not to be started, since a handler has slowed the queue down.
    put_aside: Vec<Receipt>,
    /// Claims that were sent before return nothing that is started, for the same reason.
    slowed_until: Option<Instant>,
    /// Keyed by delivery, not by message: a message whose lease was lost can be delivered again while its first handler
    /// still runs, and the verdict of the first must not be taken for that of the second.
    running: Slab<Running>,
    finished: Vec<Finished>,
    /// Leases of deliveries whose handlers were aborted.
    aborted: Vec<Arc<Lease>>,
    /// Bytes of payload that are ready, expired or running.
    bytes: usize,
    /// Whether claims wait until some of these bytes are handled. If they do, no message is added to a chunk.
    is_full: bool,
    /// Number of calls of handlers until now.
    calls: u64,
    /// The loop is notified of finished deliveries when fewer than this are ready.
    notify_below: usize,
}

/// A message, and the time until which it is safe to start its handler: counted from before the claim was sent, on this
/// process's own monotonic clock.
struct Ready {
    message: Message,
    until: Instant,
    since: Instant,
}

struct Running {
    lease: Arc<Lease>,
    bytes: usize,
    /// The handler's call: those of a chunk have the same.
    call: u64,
}

/// Deliveries whose handlers were aborted.
pub(super) struct Aborted {
    pub(super) held: Vec<Receipt>,
    /// Those that a handler had settled itself, in a transaction that may have been rolled back.
    pub(super) settled: Vec<Receipt>,
}

/// Deliveries whose leases were not extended.
pub(super) struct NotExtended {
    /// Not started, and never will be.
    pub(super) lost: Vec<Subject>,
    /// Whose handlers run, and have not settled them.
    pub(super) running: Vec<Receipt>,
}

/// A delivery whose handler has returned.
pub(super) struct Finished {
    pub(super) lease: Arc<Lease>,
    pub(super) verdict: Verdict,
    /// How long the message waits for its next attempt, if this one failed; `None` if that isn't decided yet.
    pub(super) retry_in: Option<Duration>,
}

impl State {
    /// The full ones, and the rest if its first message has waited long enough, or nothing can be added to it.
    fn due_chunks(&self, limits: ChunkLimits) -> usize {
        let is_due = self
            .next_chunk_at(limits)
            .is_some_and(|at| self.is_full || at <= Instant::now());
        self.ready.len() / limits.size + usize::from(is_due)
    }

    fn next_chunk_at(&self, limits: ChunkLimits) -> Option<Instant> {
        let rest = self.ready.len() % limits.size;
        let first = self.ready.get(self.ready.len() - rest)?;
        Some(first.since + limits.wait)
    }

    fn handlers(&self) -> usize {
        let calls = self.running.iter().map(|(_, running)| running.call);
        calls.collect::<HashSet<_>>().len()
    }
}

impl InFlight {
    pub(super) fn new(queue: QueueName) -> Self {
        Self {
            queue,
            state: Mutex::new(State {
                notify_below: usize::MAX,
                ..State::default()
            }),
            changed: Notify::new(),
        }
    }

    /// Has its gauges read, if there are metrics.
    pub(super) fn watch(self: &Arc<Self>) {
        #[cfg(any(feature = "metrics", feature = "opentelemetry"))]
        telemetry::watch(Arc::downgrade(self) as _);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No handler runs under the lock, so none can panic under it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until a delivery has finished that the loop is to be notified of.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Adds messages of a claim.
    pub(super) fn add(&self, messages: Vec<Message>, sent: Instant, until: Instant) {
        let since = Instant::now();
        let is_expired = until <= since;
        let mut state = self.lock();
        if state.is_slowed_at(sent) {
            return state.put_aside_claimed(&messages);
        }
        for message in messages {
            state.bytes += message.payload.len();
            let ready = Ready {
                message,
                until,
                since,
            };
            if is_expired {
                state.expired.push(ready);
            } else {
                state.ready.push_back(ready);
            }
        }
    }

    /// Takes the next delivery for a handler.
    pub(super) fn take(self: &Arc<Self>) -> Option<Taken> {
        let mut state = self.lock();
        state.calls += 1;
        self.take_from(&mut state)
    }

    /// Takes the next chunk for a handler, if one is due.
    pub(super) fn take_chunk(self: &Arc<Self>, limits: ChunkLimits) -> Option<Vec<Taken>> {
        let mut state = self.lock();
        if state.due_chunks(limits) == 0 {
            return None;
        }
        state.calls += 1;
        let mut chunk = Vec::new();
        while chunk.len() < limits.size
            && let Some(taken) = self.take_from(&mut state)
        {
            chunk.push(taken);
        }
        (!chunk.is_empty()).then_some(chunk)
    }

    fn take_from(self: &Arc<Self>, state: &mut State) -> Option<Taken> {
        loop {
            let ready = state.ready.pop_front()?;
            if ready.until <= Instant::now() {
                // The database was unreachable for so long that another consumer may have the message by now.
                state.expired.push(ready);
                self.changed.notify_one();
                continue;
            }
            let message = ready.message;
            let lease = Arc::new(Lease::of(&message));
            let running = Running {
                lease: Arc::clone(&lease),
                bytes: message.payload.len(),
                call: state.calls,
            };
            let key = state.running.insert(running);
            return Some(Taken {
                message: Some(message),
                lease,
                guard: Guard {
                    in_flight: Arc::clone(self),
                    key: Some(key),
                },
            });
        }
    }

    fn finish(&self, key: usize, verdict: Verdict, retry_in: Option<Duration>) {
        let mut state = self.lock();
        if let Some(Running { lease, bytes, .. }) = state.running.try_remove(key) {
            state.bytes = state.bytes.saturating_sub(bytes);
            if let Some(wait) = verdict.slows_down().filter(|_| lease.slows_queue()) {
                state.slow_down(wait);
                self.changed.notify_one();
            }
            state.finished.push(Finished {
                lease,
                verdict,
                retry_in,
            });
        }
        if state.ready.len() < state.notify_below {
            self.changed.notify_one();
        }
    }

    fn abort(&self, key: usize) {
        let mut state = self.lock();
        if let Some(Running { lease, bytes, .. }) = state.running.try_remove(key) {
            state.bytes = state.bytes.saturating_sub(bytes);
            state.aborted.push(lease);
        }
        self.changed.notify_one();
    }

    pub(super) fn take_finished(&self) -> (Vec<Finished>, Vec<Receipt>) {
        let mut state = self.lock();
        let to_release = mem::take(&mut state.put_aside);
        (mem::take(&mut state.finished), to_release)
    }

    /// Removes messages that no handler has started.
    pub(super) fn take_untouched(&self) -> Vec<Receipt> {
        let mut state = self.lock();
        let mut untouched: Vec<_> = state.ready.drain(..).collect();
        untouched.append(&mut state.expired);
        for ready in &untouched {
            state.bytes = state.bytes.saturating_sub(ready.message.payload.len());
        }
        let receipts = untouched.iter().map(|ready| ready.message.receipt());
        receipts.collect()
    }

    /// Removes deliveries whose handlers were aborted.
    pub(super) fn take_aborted(&self) -> Aborted {
        let aborted = mem::take(&mut self.lock().aborted);
        let (settled, held): (Vec<_>, Vec<_>) =
            aborted.iter().partition(|lease| lease.is_settled());
        let receipts =
            |leases: Vec<&Arc<Lease>>| leases.iter().map(|lease| lease.receipt()).collect();
        Aborted {
            held: receipts(held),
            settled: receipts(settled),
        }
    }

    /// Messages that are ready or running.
    pub(super) fn held(&self) -> Request {
        let state = self.lock();
        Request {
            messages: state.ready.len() + state.expired.len() + state.running.len(),
            bytes: state.bytes,
        }
    }

    /// Number of chunks that handlers can take now. `is_full`: nothing is claimed until some of the payloads are
    /// handled.
    pub(super) fn due_chunks(&self, limits: ChunkLimits, is_full: bool) -> usize {
        let mut state = self.lock();
        state.is_full = is_full;
        state.due_chunks(limits)
    }

    /// When the next chunk is due that isn't full; `None` if there is none.
    pub(super) fn next_chunk_at(&self, limits: ChunkLimits) -> Option<Instant> {
        self.lock().next_chunk_at(limits)
    }

    /// Number of handlers at work.
    pub(super) fn running(&self) -> usize {
        self.lock().handlers()
    }

    /// Number of deliveries that handlers have taken and whose end the loop has not yet collected.
    pub(super) fn begun(&self) -> usize {
        let state = self.lock();
        state.running.len() + state.finished.len() + state.aborted.len()
    }

    pub(super) fn has_expired(&self) -> bool {
        !self.lock().expired.is_empty()
    }

    pub(super) fn is_empty(&self) -> bool {
        let state = self.lock();
        state.ready.is_empty()
            && state.expired.is_empty()
            && state.put_aside.is_empty()
            && state.running.is_empty()
            && state.finished.is_empty()
            && state.aborted.is_empty()
    }

    /// Sets when the loop is notified of finished deliveries: when fewer than this are ready.
    pub(super) fn notify_below(&self, ready: usize) {
        let mut state = self.lock();
        state.notify_below = ready;
        // What finished since the loop last collected was not reported.
        if !state.finished.is_empty() && state.ready.len() < ready {
            self.changed.notify_one();
        }
    }

    /// Receipts of all leased messages, except those that a handler has settled itself.
    pub(super) fn receipts(&self) -> Vec<Receipt> {
        let state = self.lock();
        let untouched = state.ready.iter().chain(&state.expired);
        let running = state.running.iter().map(|(_, running)| &running.lease);
        let finished = state.finished.iter().map(|finished| &finished.lease);
        untouched
            .map(|ready| ready.message.receipt())
            .chain(
                running
                    .chain(finished)
                    .filter(|lease| !lease.is_settled())
                    .map(|lease| lease.receipt()),
            )
            .collect()
    }

    /// Records an extension of leases: of those `asked` for, those in `extended` succeeded. The others belong to
    /// another consumer or are deleted, and are not started.
    pub(super) fn extended(
        &self,
        asked: &[Receipt],
        extended: &HashMap<MessageId, DateTime<Utc>>,
        until: Instant,
    ) -> NotExtended {
        let (mut lost, mut running) = (Vec::new(), Vec::new());
        let asked: HashSet<_> = asked.iter().collect();
        let mut state = self.lock();
        let state = &mut *state;
        for (_, Running { lease, .. }) in &state.running {
            if !asked.contains(&lease.receipt()) {
                continue;
            }
            match extended.get(&lease.receipt().id) {
                Some(expires_at) => lease.extended(*expires_at),
                None if lease.may_be_settled() || lease.is_cancelled() => {}
                None => running.push(lease.receipt()),
            }
        }
        let bytes = &mut state.bytes;
        let mut keep = |ready: &mut Ready| {
            if !asked.contains(&ready.message.receipt()) {
                return true;
            }
            let Some(expires_at) = extended.get(&ready.message.id) else {
                *bytes = bytes.saturating_sub(ready.message.payload.len());
                lost.push(Subject::of(&ready.message));
                return false;
            };
            ready.message.lease_expires_at = *expires_at;
            ready.until = ready.until.max(until);
            true
        };
        state.ready.retain_mut(&mut keep);
        state.expired.retain_mut(&mut keep);
        let now = Instant::now();
        for ready in mem::take(&mut state.expired) {
            if ready.until > now {
                state.ready.push_back(ready);
            } else {
                state.expired.push(ready);
            }
        }
        NotExtended { lost, running }
    }
}

#[cfg(any(feature = "metrics", feature = "opentelemetry"))]
impl telemetry::Sampled for InFlight {
    fn sample(&self, samples: &mut telemetry::Samples) {
        let (running, ready) = {
            let state = self.lock();
            (state.handlers(), state.ready.len() + state.expired.len())
        };
        let queue = self.queue.as_str();
        samples.add(telemetry::Id::HandlersRunning, queue, "", running);
        samples.add(telemetry::Id::Prefetched, queue, "", ready);
    }
}

/// A delivery that a handler has taken. However the handler ends, its slot is freed.
pub(super) struct Taken {
    /// `None` once it was handed over.
    message: Option<Message>,
    lease: Arc<Lease>,
    guard: Guard,
}

impl Taken {
    pub(super) fn message(&mut self) -> Option<(Message, Arc<Lease>)> {
        Some((self.message.take()?, Arc::clone(&self.lease)))
    }

    /// As long as it wasn't handed over.
    pub(super) fn peek(&self) -> Option<&Message> {
        self.message.as_ref()
    }

    pub(super) fn subject(&self) -> &Subject {
        self.lease.subject()
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.lease.is_cancelled()
    }

    pub(super) fn finish(mut self, verdict: Verdict, retry_in: Option<Duration>) {
        if let Some(key) = self.guard.key.take() {
            self.guard.in_flight.finish(key, verdict, retry_in);
        }
    }
}

struct Guard {
    in_flight: Arc<InFlight>,
    /// `None` once it has finished.
    key: Option<usize>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        let Some(key) = self.key.take() else {
            return;
        };
        if thread::panicking() {
            let panicked = "the handler panicked when it was dropped".to_owned();
            self.in_flight.finish(
                key,
                Verdict::Failed(Failed::Panicked(panicked.into())),
                None,
            );
        } else {
            self.in_flight.abort(key);
        }
    }
}
