//! Pending sends and the writers that take them. Sends that arrive while a statement is under way wait, and go out
//! together with the next statement. A few writers share the work.

use std::{
    collections::VecDeque,
    fmt, mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};

use tokio::{
    runtime::{self, Handle},
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    task::yield_now,
    time::{Instant, sleep, timeout},
};

use super::{SendOptions, pending::PendingSend, writer::Writer};
use crate::{
    error::{Error, Result},
    message::{Envelope, NewMessage, Visible},
    pool::{Connections, Notifier, StoreConnection, runtime_ended},
    postgres::{
        columns::{CHUNK_BYTES, CHUNK_MESSAGES},
        writers,
    },
    queue::QueueName,
    telemetry,
};

/// Maximum payload of all pending sends, in KiB. Beyond it, sends wait for room.
const MAX_PENDING_KIB: u32 = 64 << 10;
/// Estimated size of a message besides its payload, in bytes.
const MESSAGE_OVERHEAD: usize = 512;
/// Maximum number of writers while commits are fast, and while they are slow.
const MAX_WRITERS: usize = 2;
const MAX_WRITERS_IF_SLOW: usize = 8;
/// Commit time above which commits count as slow.
const SLOW_COMMIT: Duration = Duration::from_millis(1);
/// How long an idle writer keeps its connection. The next send is likely to follow soon, and the pool pings each
/// connection that is returned, which takes a round trip.
const IDLE_CONNECTION_TIMEOUT: Duration = Duration::from_millis(50);
/// Above this number of calls, two statements share them evenly.
const MANY_CALLS: usize = 64;
/// Maximum time for which a few sends wait for others to join their statement.
const MAX_GATHER_TIME: Duration = Duration::from_millis(5);

/// The pending sends of a store, and its writers.
pub(crate) struct Batcher {
    connections: Connections,
    notifier: Notifier,
    options: SendOptions,
    /// Never held across an await.
    state: Mutex<State>,
    room: Arc<Semaphore>,
    /// Start time of the server that the last connection was made to. Ids drawn on another server, before a fail-over,
    /// may be drawn again on this one.
    server: Arc<AtomicI64>,
    is_prune_due: AtomicBool,
    /// A writer has finished a statement.
    finished: Notify,
}

struct State {
    /// One lane for each tokio runtime that sends, so that a runtime that isn't driven, or has ended, doesn't block the
    /// sends of another.
    lanes: Vec<(Option<runtime::Id>, Lane)>,
    /// Created when the store was connected, for the first lane.
    first: Option<Writer>,
    /// Recent commit time: the duration of a statement beyond what its rows explain.
    commit_time: Duration,
}

/// The sends of one tokio runtime.
#[derive(Default)]
struct Lane {
    pending: VecDeque<PendingSend>,
    idle: Vec<Writer>,
    /// Tasks that take pending sends.
    running: usize,
    /// Calls whose messages the running tasks are sending.
    in_flight: usize,
    /// Whether a caller is acting as its own writer.
    is_direct: bool,
    /// Whether a reaper task is running for the lane's idle connections.
    has_reaper: bool,
}

impl Batcher {
    pub(crate) fn new(
        connections: Connections,
        notifier: Notifier,
        options: SendOptions,
        server: Arc<AtomicI64>,
        first: Writer,
    ) -> Self {
        Self {
            connections,
            notifier,
            options,
            state: Mutex::new(State {
                lanes: Vec::new(),
                first: Some(first),
                commit_time: Duration::ZERO,
            }),
            room: Arc::new(Semaphore::new(MAX_PENDING_KIB as usize)),
            server,
            is_prune_due: AtomicBool::new(true),
            finished: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn options(&self) -> &SendOptions {
        &self.options
    }

    pub(super) fn connections(&self) -> &Connections {
        &self.connections
    }

    pub(super) fn server(&self) -> i64 {
        self.server.load(Ordering::Relaxed)
    }

    /// A writer has a new token, so rows of old tokens should be pruned once.
    pub(super) fn prune_later(&self) {
        self.is_prune_due.store(true, Ordering::Relaxed);
    }

    pub(super) fn take_prune_due(&self) -> bool {
        self.is_prune_due.swap(false, Ordering::Relaxed)
    }

    /// Records how much longer a statement took than its rows explain.
    pub(super) fn record_commit_time(&self, commit_time: Duration) {
        let mut state = self.lock();
        // Follows the fastest statements: a slow one may have waited for a processor, and more writers would only make
        // that worse.
        state.commit_time = match commit_time.checked_sub(state.commit_time) {
            Some(more) => state.commit_time + more / 32,
            None => commit_time,
        };
    }

    /// Maximum number of running writers: more than a few only while commits are slow.
    fn max_writers(&self, commit_time: Duration) -> usize {
        let connections = self.connections.max_connections() as usize;
        let most = match (self.options.coalesce, commit_time > SLOW_COMMIT) {
            (false, _) => connections,
            (true, false) => MAX_WRITERS,
            (true, true) => MAX_WRITERS_IF_SLOW,
        };
        most.min(connections.div_ceil(2)).max(1)
    }

    /// Waits until there is room for these messages.
    pub(super) async fn room(&self, messages: &[NewMessage]) -> Result<OwnedSemaphorePermit> {
        let bytes = messages.iter().map(NewMessage::bytes).sum::<usize>();
        let room = (bytes + messages.len() * MESSAGE_OVERHEAD) / 1024 + 1;
        let room = u32::try_from(room).map_or(MAX_PENDING_KIB, |room| room.min(MAX_PENDING_KIB));
        // No timer if there is room at once.
        if let Ok(room) = Arc::clone(&self.room).try_acquire_many_owned(room) {
            return Ok(room);
        }
        let after = self
            .options
            .retry_for
            .max(self.connections.acquire_timeout());
        let room = timeout(after, Arc::clone(&self.room).acquire_many_owned(room));
        match room.await {
            Ok(room) => room.map_err(|_| Error::Closed),
            Err(_) => Err(Error::AcquireTimeout { after }),
        }
    }

    /// Takes the next group of pending sends, or parks the writer. Both under one lock, so a send arriving now either
    /// joins the group or finds the parked writer.
    fn next_group(
        self: &Arc<Self>,
        id: Option<runtime::Id>,
        writer: &mut Option<Writer>,
    ) -> Option<Vec<PendingSend>> {
        let mut state = self.lock();
        let lane = state.lane(id);
        let group = lane.take_group(self.options.coalesce);
        if !group.is_empty() {
            lane.in_flight += group.len();
            return Some(group);
        }
        lane.running -= 1;
        let parked = writer.take().map(|writer| self.park(id, lane, writer));
        drop(state);
        if let Some(parked) = parked {
            parked.finish();
        }
        None
    }

    /// Beside a statement for many sends, one for a few costs the server more than it saves them, so they wait up to
    /// [`MAX_GATHER_TIME`] for the others to return.
    async fn gather(&self, lane: Option<runtime::Id>) {
        let finished = self.finished.notified();
        let is_worth_it = {
            let mut state = self.lock();
            let lane = state.lane(lane);
            lane.in_flight <= MANY_CALLS || lane.pending.len() >= lane.in_flight / 4
        };
        if !is_worth_it {
            // Bounded, since the other statement may hang.
            let _ = timeout(MAX_GATHER_TIME, finished).await;
        }
    }

    /// Makes a writer idle. It keeps its connection for a while if the pool is large enough.
    fn park(
        self: &Arc<Self>,
        id: Option<runtime::Id>,
        lane: &mut Lane,
        mut writer: Writer,
    ) -> Parked {
        let is_of_use = self.connections.can_keep() || self.is_prune_due.load(Ordering::Relaxed);
        // A writer that found no pending sends has not noticed that the pool was closed.
        let keeps = is_of_use && !self.connections.is_closed();
        let returned = if keeps {
            None
        } else {
            writer.connection.take()
        };
        writer.idle_since = Instant::now();
        let needs_reaper = writer.connection.is_some() && !lane.has_reaper;
        lane.has_reaper |= needs_reaper;
        lane.idle.push(writer);
        Parked {
            returned,
            reaper: needs_reaper.then(|| Reaper {
                batcher: Arc::downgrade(self),
                lane: id,
                is_done: false,
            }),
        }
    }

    /// Takes the connections of writers that have been idle for this long.
    fn take_idle_connections(&self, id: Option<runtime::Id>, idle_for: Duration) -> Returned {
        let mut state = self.lock();
        let mut connections = Vec::new();
        let Some((_, lane)) = state.lanes.iter_mut().find(|(lane, _)| *lane == id) else {
            return Returned {
                connections,
                is_last: true,
            };
        };
        for writer in &mut lane.idle {
            let is_over = writer.idle_since.elapsed() >= idle_for;
            connections.extend(writer.connection.take_if(|_| is_over));
        }
        // Updated under the same lock under which the next reaper is started.
        lane.has_reaper = lane.idle.iter().any(|writer| writer.connection.is_some());
        Returned {
            connections,
            is_last: !lane.has_reaper,
        }
    }

    /// The server can't be reached, so sends that wait behind an attempt needn't make their own once their deadline has
    /// passed. They were not sent.
    pub(super) fn expire_pending(&self, why: &Error) {
        let now = Instant::now();
        let mut expired = Vec::new();
        for (_, lane) in &mut self.lock().lanes {
            let (over, pending) = mem::take(&mut lane.pending)
                .into_iter()
                .partition::<VecDeque<_>, _>(|pending| pending.deadline <= now);
            lane.pending = pending;
            expired.extend(over);
        }
        expired
            .into_iter()
            .for_each(|pending| pending.not_stored(why));
    }

    /// The whole group is stored: answers its calls and wakes consumers.
    pub(super) fn stored(&self, group: &mut Vec<PendingSend>) {
        let mut woken: Option<QueueName> = None;
        for pending in group.drain(..) {
            let Envelope { queue, visible, .. } = &pending.envelope;
            if *visible == Visible::Now && woken.as_ref() != Some(queue) {
                self.notifier.wake(queue);
                woken = Some(queue.clone());
            }
            pending.stored();
        }
    }
}

impl State {
    fn lane(&mut self, id: Option<runtime::Id>) -> &mut Lane {
        let found = self.lanes.iter().position(|(lane, _)| *lane == id);
        let at = found.unwrap_or_else(|| {
            // Removes unused lanes, such as those of runtimes that have ended. None of them has a connection.
            self.lanes
                .retain(|(_, lane)| lane.is_in_use() || lane.has_reaper);
            let lane = Lane {
                idle: self.first.take().into_iter().collect(),
                ..Lane::default()
            };
            self.lanes.push((id, lane));
            self.lanes.len() - 1
        });
        &mut self.lanes[at].1
    }
}

impl Lane {
    fn is_in_use(&self) -> bool {
        self.is_direct || self.running > 0 || !self.pending.is_empty()
    }

    /// Takes the pending sends for one statement. Those whose callers have left are dropped.
    fn take_group(&mut self, coalesce: bool) -> Vec<PendingSend> {
        let most = group_size(self.pending.len() + self.in_flight, coalesce);
        let (mut group, mut messages, mut bytes) = (Vec::new(), 0, 0);
        while let Some(pending) = self.pending.front() {
            messages += pending.messages.len();
            bytes += pending.bytes;
            let fits = group.len() < most && messages <= CHUNK_MESSAGES && bytes <= CHUNK_BYTES;
            if !(group.is_empty() || fits) {
                break;
            }
            let Some(pending) = self.pending.pop_front() else {
                break;
            };
            if pending.is_abandoned() {
                messages -= pending.messages.len();
                bytes -= pending.bytes;
                continue;
            }
            group.push(pending);
        }
        group
    }
}

/// Number of calls, of those pending or in flight, that one statement carries. Many calls are split in half, so that
/// two statements are under way together; if one took all of them, the two writers would only take turns.
fn group_size(calls: usize, coalesce: bool) -> usize {
    if !coalesce {
        1
    } else if calls > MANY_CALLS {
        calls.div_ceil(2)
    } else {
        calls
    }
}

fn runtime_id() -> Option<runtime::Id> {
    Handle::try_current().ok().map(|runtime| runtime.id())
}

impl fmt::Debug for Batcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        let lanes = || state.lanes.iter().map(|(_, lane)| lane);
        let pending = || lanes().flat_map(|lane| &lane.pending);
        f.debug_struct("Writers")
            .field("waiting", &pending().count())
            .field(
                "waiting_bytes",
                &pending().map(|pending| pending.bytes).sum::<usize>(),
            )
            .field("running", &lanes().map(|lane| lane.running).sum::<usize>())
            .finish_non_exhaustive()
    }
}

/// A caller that found no writer running, and acts as its own: a task would cost it two thread switches. It sends its
/// own messages only and no other call waits for it, since its future may be left unpolled for long, or be dropped.
pub(super) struct DirectSend<'a> {
    batcher: &'a Arc<Batcher>,
    lane: Option<runtime::Id>,
    /// `None` once it is parked.
    writer: Option<Writer>,
}

impl<'a> DirectSend<'a> {
    /// Returns `None` if other sends are under way.
    pub(super) fn begin(batcher: &'a Arc<Batcher>) -> Option<Self> {
        let id = runtime_id();
        let mut state = batcher.lock();
        let lane = state.lane(id);
        if lane.is_in_use() {
            return None;
        }
        lane.is_direct = true;
        let writer = Some(lane.idle.pop().unwrap_or_default());
        Some(Self {
            batcher,
            lane: id,
            writer,
        })
    }

    pub(super) async fn send(mut self, pending: PendingSend) {
        let Some(writer) = &mut self.writer else {
            return;
        };
        let mut stored = writer.deliver(self.batcher, vec![pending]).await;
        self.batcher.stored(&mut stored);
        if let Some(writer) = self.writer.take() {
            let parked = {
                let mut state = self.batcher.lock();
                self.batcher.park(self.lane, state.lane(self.lane), writer)
            };
            parked.finish();
        }
    }
}

/// The state of a writer whose caller left in the middle of a statement is unknown, so it isn't used again.
impl Drop for DirectSend<'_> {
    fn drop(&mut self) {
        self.batcher.lock().lane(self.lane).is_direct = false;
    }
}

/// The task of a writer, which ends when nothing is pending.
pub(super) struct WriterTask {
    batcher: Arc<Batcher>,
    lane: Option<runtime::Id>,
    /// `None` once it is parked.
    writer: Option<Writer>,
    /// How many calls it is sending.
    calls: usize,
}

impl WriterTask {
    /// Adds a pending send. Returns a task to run for it, if another writer may run.
    pub(super) fn for_pending(batcher: &Arc<Batcher>, pending: PendingSend) -> Option<Self> {
        let id = runtime_id();
        let mut state = batcher.lock();
        let most = batcher.max_writers(state.commit_time);
        let lane = state.lane(id);
        lane.pending.push_back(pending);
        if lane.running >= most {
            return None;
        }
        lane.running += 1;
        Some(Self {
            batcher: Arc::clone(batcher),
            lane: id,
            writer: Some(lane.idle.pop().unwrap_or_default()),
            calls: 0,
        })
    }

    pub(super) async fn run(mut self) {
        let batcher = Arc::clone(&self.batcher);
        loop {
            batcher.gather(self.lane).await;
            let group = batcher.next_group(self.lane, &mut self.writer);
            let (Some(group), Some(writer)) = (group, &mut self.writer) else {
                return;
            };
            self.calls = group.len();
            let mut stored = writer.deliver(&batcher, group).await;
            self.finish_calls();
            batcher.stored(&mut stored);
            // Callers that were just answered are about to send again, and their sends go out together.
            yield_now().await;
            batcher.finished.notify_waiters();
        }
    }

    fn finish_calls(&mut self) {
        self.batcher.lock().lane(self.lane).in_flight -= mem::take(&mut self.calls);
    }
}

impl Drop for WriterTask {
    fn drop(&mut self) {
        if self.writer.is_none() {
            return;
        }
        // The runtime has ended while the task was running. What is pending on it was not sent.
        self.finish_calls();
        let pending = {
            let mut state = self.batcher.lock();
            let lane = state.lane(self.lane);
            lane.running -= 1;
            if lane.running > 0 {
                return;
            }
            mem::take(&mut lane.pending)
        };
        for pending in pending {
            pending.not_stored(&runtime_ended());
        }
    }
}

/// What is left to do after a writer was parked, without the lock.
#[must_use]
struct Parked {
    /// To be returned to the pool.
    returned: Option<StoreConnection>,
    reaper: Option<Reaper>,
}

impl Parked {
    fn finish(self) {
        drop(self.returned);
        if let Some(reaper) = self.reaper {
            // A runtime that is ending drops the task at once, and its connections with it.
            tokio::spawn(reaper.run());
        }
    }
}

/// Returns the connections of a lane's writers that have been idle for [`IDLE_CONNECTION_TIMEOUT`]. Before that, it
/// deletes the rows of old writers over one of them.
struct Reaper {
    batcher: Weak<Batcher>,
    lane: Option<runtime::Id>,
    is_done: bool,
}

impl Reaper {
    async fn run(mut self) {
        while !self.is_done {
            sleep(IDLE_CONNECTION_TIMEOUT).await;
            let Some(batcher) = self.batcher.upgrade() else {
                return;
            };
            let mut returned = batcher.take_idle_connections(self.lane, IDLE_CONNECTION_TIMEOUT);
            self.is_done = returned.is_last;
            if let Some(connection) = returned.connections.first_mut()
                && batcher.take_prune_due()
            {
                prune(connection, batcher.options.statement_timeout()).await;
            }
        }
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        // The reaper's runtime has ended, so its connections have to be returned here.
        if !self.is_done
            && let Some(batcher) = self.batcher.upgrade()
        {
            drop(batcher.take_idle_connections(self.lane, Duration::ZERO));
        }
    }
}

/// Connections of idle writers, to be returned to the pool without the lock.
struct Returned {
    connections: Vec<StoreConnection>,
    /// Whether no idle writer has a connection left, so that the next one to keep its own starts another reaper.
    is_last: bool,
}

/// Deletes the rows of writers that ended long ago.
pub(super) async fn prune(connection: &mut StoreConnection, timeout: Duration) {
    if let Err(error) = connection.within(timeout, writers::prune).await {
        telemetry::prune_failed("writers", &error);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_calls_are_shared_by_two_statements() {
        assert_eq!(group_size(1, true), 1);
        assert_eq!(group_size(64, true), 64);
        assert_eq!(group_size(512, true), 256);
        assert_eq!(group_size(65, true), 33);
        assert_eq!(group_size(512, false), 1);
    }
}
