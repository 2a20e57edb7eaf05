//! Pending sends and the writers that take them. Sends that arrive while a statement is under way wait, and go out
//! together with the next statement. A few writers share the work.

mod idle;
pub(super) mod tasks;

use std::{
    collections::{HashMap, VecDeque},
    fmt, mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};

use tokio::{
    runtime,
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout},
};

use super::{options::SendOptions, pending::PendingSend, writer::Writer};
use crate::{
    error::{Error, Result},
    message::NewMessage,
    pool::{Connections, Notifier},
    postgres::columns::{CHUNK_BYTES, CHUNK_MESSAGES},
    queue::QueueName,
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
/// Above this number of calls, two statements share them evenly.
const MANY_CALLS: usize = 64;
/// Maximum time for which a few sends wait for others to join their statement.
const MAX_GATHER_TIME: Duration = Duration::from_millis(5);
/// How long a call with a key that another transaction holds waits in one statement, if no others are pending then.
const LONG_TURN: Duration = Duration::from_millis(250);

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
    lanes: Vec<(LaneId, Lane)>,
    /// Created when the store was connected, for the first lane.
    first: Option<Writer>,
    /// Recent commit time: the duration of a statement beyond what its rows explain.
    commit_time: Duration,
}

/// One lane for each tokio runtime that sends, so that a runtime that isn't driven, or has ended, doesn't block the sends of
/// another; and one more for sends with keys, since their statements wait for other transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LaneId {
    runtime: Option<runtime::Id>,
    is_keyed: bool,
}

/// The sends of one lane.
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

    /// Statements under way.
    #[cfg(any(feature = "metrics", feature = "opentelemetry"))]
    pub(crate) fn running(&self) -> usize {
        let state = self.lock();
        let lanes = state.lanes.iter();
        lanes
            .map(|(_, lane)| lane.running + usize::from(lane.is_direct))
            .sum()
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
        id: LaneId,
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

    /// How long a call waits for another transaction that holds its key before others have their turn.
    fn key_timeout(&self, id: LaneId) -> Duration {
        if self.lock().lane(id).pending.is_empty() {
            LONG_TURN
        } else {
            Duration::ZERO
        }
    }

    /// Makes calls wait for their next turn, behind all others.
    fn put_back(&self, id: LaneId, held: Vec<PendingSend>) {
        if !held.is_empty() {
            self.lock().lane(id).pending.extend(held);
        }
    }

    /// Beside a statement for many sends, one for a few costs the server more than it saves them, so they wait up to
    /// [`MAX_GATHER_TIME`] for the others to return.
    async fn gather(&self, lane: LaneId) {
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
            let queue = &pending.envelope.queue;
            if pending.is_ready() && woken.as_ref() != Some(queue) {
                self.notifier.wake(queue);
                woken = Some(queue.clone());
            }
            pending.stored();
        }
    }
}

impl State {
    fn lane(&mut self, id: LaneId) -> &mut Lane {
        let found = self.lanes.iter().position(|(lane, _)| *lane == id);
        let at = found.unwrap_or_else(|| {
            // Removes unused lanes, such as those of runtimes that have ended. None of them has a connection.
            self.lanes
                .retain(|(_, lane)| lane.is_in_use() || lane.has_reaper);
            let lane = Lane {
                idle: self.first.take_if(|_| !id.is_keyed).into_iter().collect(),
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
        let mut keys = GroupKeys::default();
        while let Some(pending) = self.pending.front() {
            messages += pending.messages.len();
            bytes += pending.bytes;
            let fits = group.len() < most && messages <= CHUNK_MESSAGES && bytes <= CHUNK_BYTES;
            // One whose key is held would make a statement wait that has others.
            let is_alone = pending.is_held() || group.last().is_some_and(PendingSend::is_held);
            if !(group.is_empty() || fits && !is_alone && keys.have_room_for(pending)) {
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
            keys.add(&pending);
            group.push(pending);
        }
        group
    }
}

/// The keys of calls that share a statement: it has each key for one queue only, and twice only if all but the first are
/// duplicates. Messages of groups share it only with others of groups, and of the same queue.
#[derive(Default)]
struct GroupKeys {
    keys: HashMap<u64, (QueueName, bool)>,
    /// The first call's queue, and whether it has groups.
    first: Option<(QueueName, bool)>,
}

impl GroupKeys {
    fn have_room_for(&self, pending: &PendingSend) -> bool {
        let queue = &pending.envelope.queue;
        let has_groups = pending.has_groups();
        if let Some((first, others_have_groups)) = &self.first
            && (has_groups != *others_have_groups || has_groups && first != queue)
        {
            return false;
        }
        let mut keys = pending.keyed.iter().flat_map(|keyed| &keyed.keys);
        keys.all(|key| {
            self.keys
                .get(&key.hash)
                .is_none_or(|(taken_for, is_kept)| taken_for == queue && *is_kept && key.is_kept)
        })
    }

    fn add(&mut self, pending: &PendingSend) {
        let queue = &pending.envelope.queue;
        if pending.is_keyed() && self.first.is_none() {
            self.first = Some((queue.clone(), pending.has_groups()));
        }
        for key in pending.keyed.iter().flat_map(|keyed| &keyed.keys) {
            self.keys.insert(key.hash, (queue.clone(), key.is_kept));
        }
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
