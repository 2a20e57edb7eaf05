//! Sends through a store: what waits goes out together, and each is stored exactly once, whatever breaks on the
//! way. For `.execute(&store)` of an enqueue. Few writers share the work: as long as a statement is under
//! way, what comes after it waits, and goes out with one statement for all of it.

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
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    task::{JoinHandle, yield_now},
    time::{Instant, sleep, timeout},
};

use crate::{
    error::{Error, Result},
    message::{Envelope, MessageId, Visible},
    parcel::Parcel,
    postgres::{messages, writers},
    queue::QueueName,
    store::{Lent, Store, TO_SPARE},
    telemetry,
    writer::{Sending, Writer},
};

/// Waiting payloads, in KiB: beyond that, sends wait for room.
const ROOM: u32 = 64 << 10;
/// What a message takes besides its payload, about.
const OVERHEAD: usize = 512;
/// Writers that start at once; and how many there are where commits are dear.
const FEW: usize = 2;
const MANY: usize = 8;
/// A statement that takes this much longer than its rows explain has waited for a disk.
const DEAR: Duration = Duration::from_millis(1);
/// For how long a writer without work keeps its connection: the next send is likely to follow soon, and the
/// pool tests with a round trip what comes back.
const LINGER: Duration = Duration::from_millis(50);
/// So many calls share their statements evenly.
const MANY_CALLS: usize = 64;
/// For how long a few wait for many.
const GATHER: Duration = Duration::from_millis(5);

/// The writers of a store, and what waits for them.
pub(crate) struct Writers {
    pub(crate) sending: Sending,
    /// Never held across an await.
    state: Mutex<State>,
    room: Arc<Semaphore>,
    /// When the server was started that the last connection was made to: ids that were drawn on another, before
    /// a fail-over, may be drawn again on this one.
    server: Arc<AtomicI64>,
    prune_due: AtomicBool,
    /// A writer comes back from its statement.
    back: Notify,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Parcel>,
    idle: Vec<Writer>,
    /// Tasks that take what waits.
    running: usize,
    /// Calls whose messages these carry.
    in_flight: usize,
    /// A caller is its own writer.
    alone: bool,
    /// How much longer than its rows explain a statement takes, of late.
    commit: Duration,
    /// Takes connections back from idle writers.
    keeper: Option<JoinHandle<()>>,
}

impl Writers {
    pub(crate) fn new(sending: Sending, server: Arc<AtomicI64>, first: Writer) -> Self {
        let state = State {
            idle: vec![first],
            ..State::default()
        };
        Self {
            sending,
            state: Mutex::new(state),
            room: Arc::new(Semaphore::new(ROOM as usize)),
            server,
            prune_due: AtomicBool::new(true),
            back: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn server(&self) -> i64 {
        self.server.load(Ordering::Relaxed)
    }

    /// A new token was begun: rows of old ones are to be looked for, once.
    pub(crate) fn prune_later(&self) {
        self.prune_due.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_prune_due(&self) -> bool {
        self.prune_due.swap(false, Ordering::Relaxed)
    }

    /// A statement took this much longer than its rows explain.
    pub(crate) fn took(&self, commit: Duration) {
        let mut state = self.lock();
        // Follows the quickest ones: a slow one may have waited for a processor, and more writers would only
        // make that worse.
        state.commit = match commit.checked_sub(state.commit) {
            Some(more) => state.commit + more / 32,
            None => commit,
        };
    }

    /// How many writers may be at work: more than a few only while commits are dear.
    fn limit(&self, state: &State) -> usize {
        let most = match (self.sending.coalesce, state.commit > DEAR) {
            (false, _) => self.sending.connections,
            (true, false) => FEW,
            (true, true) => MANY,
        };
        most.min(self.sending.connections.div_ceil(2)).max(1)
    }

    /// Room for so much to wait.
    async fn room(&self, payloads: &[String], patience: Duration) -> Result<OwnedSemaphorePermit> {
        let bytes = payloads.iter().map(String::len).sum::<usize>();
        let room = (bytes + payloads.len() * OVERHEAD) / 1024 + 1;
        let room = u32::try_from(room).map_or(ROOM, |room| room.min(ROOM));
        // Without a timer, where there is room at once.
        if let Ok(room) = Arc::clone(&self.room).try_acquire_many_owned(room) {
            return Ok(room);
        }
        let room = timeout(patience, Arc::clone(&self.room).acquire_many_owned(room));
        match room.await {
            Ok(room) => room.map_err(|_| Error::Closed),
            Err(_) => Err(Error::AcquireTimeout { after: patience }),
        }
    }

    /// A writer for who finds nobody at work: to send alone.
    fn take_alone(&self) -> Option<Writer> {
        let mut state = self.lock();
        if state.alone || state.running > 0 || !state.waiting.is_empty() {
            return None;
        }
        state.alone = true;
        Some(state.idle.pop().unwrap_or_default())
    }

    /// Lets a parcel wait, with a writer for it if one more may be at work.
    fn put(&self, parcel: Parcel) -> Option<Writer> {
        let mut state = self.lock();
        state.waiting.push_back(parcel);
        if state.running >= self.limit(&state) {
            return None;
        }
        state.running += 1;
        Some(state.idle.pop().unwrap_or_default())
    }

    /// What the next statement carries; or none, and then the writer is idle: under the same lock by which
    /// the next send looks for one, so that none falls between.
    fn next(self: &Arc<Self>, writer: &mut Option<Writer>) -> Option<Vec<Parcel>> {
        let mut state = self.lock();
        let calls = state.waiting.len() + state.in_flight;
        // Two statements of half of them each are under way together; one of all, and nothing, take turns.
        let most = if calls > MANY_CALLS {
            calls.div_ceil(2)
        } else {
            calls
        };
        let (mut group, mut messages, mut bytes) = (Vec::new(), 0, 0);
        while let Some(parcel) = state.waiting.front() {
            messages += parcel.payloads.len();
            bytes += parcel.bytes;
            let fits = group.len() < most
                && messages <= messages::CHUNK_MESSAGES
                && bytes <= messages::CHUNK_BYTES;
            if !(group.is_empty() || fits && self.sending.coalesce) {
                break;
            }
            let Some(parcel) = state.waiting.pop_front() else {
                break;
            };
            if parcel.is_unwanted() {
                // Its caller has left before it was taken: it isn't sent.
                messages -= parcel.payloads.len();
                bytes -= parcel.bytes;
                continue;
            }
            group.push(parcel);
        }
        if !group.is_empty() {
            state.in_flight += group.len();
            return Some(group);
        }
        state.running -= 1;
        let lent = writer
            .take()
            .and_then(|writer| self.rest(&mut state, writer));
        drop(state);
        // Returned to the pool without the lock.
        drop(lent);
        None
    }

    /// A statement for few, beside one for many, costs the server more than it gives them: for a moment they
    /// wait for the others to come back.
    async fn gather(&self) {
        let back = self.back.notified();
        let is_worth_it = {
            let state = self.lock();
            state.in_flight <= MANY_CALLS || state.waiting.len() >= state.in_flight / 4
        };
        if !is_worth_it {
            // Not for long: what the others carry may be stuck.
            let _ = timeout(GATHER, back).await;
        }
    }

    /// A writer is idle. Gives its connection, unless there are enough for it to keep one for a while.
    fn rest(self: &Arc<Self>, state: &mut State, mut writer: Writer) -> Option<Lent> {
        let keeps =
            self.sending.connections >= TO_SPARE as usize || self.prune_due.load(Ordering::Relaxed);
        let lent = match keeps {
            true => None,
            false => writer.lent.take(),
        };
        writer.idle_since = Instant::now();
        let is_kept = writer.lent.is_some();
        state.idle.push(writer);
        let is_gone = state.keeper.as_ref().is_none_or(JoinHandle::is_finished);
        if is_kept && is_gone {
            state.keeper = Some(tokio::spawn(keep(Arc::downgrade(self))));
        }
        lent
    }

    /// The server can't be reached, so those who wait behind a try needn't have one of their own, once their
    /// time is over. They were not sent.
    pub(crate) fn expire(&self, why: &Error) {
        let now = Instant::now();
        let mut state = self.lock();
        let (expired, waiting) = mem::take(&mut state.waiting)
            .into_iter()
            .partition::<VecDeque<_>, _>(|parcel| parcel.deadline <= now);
        state.waiting = waiting;
        drop(state);
        expired
            .into_iter()
            .for_each(|parcel| parcel.tell_not_stored(why));
    }
}

impl fmt::Debug for Writers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        let bytes: usize = state.waiting.iter().map(|parcel| parcel.bytes).sum();
        f.debug_struct("Writers")
            .field("waiting", &state.waiting.len())
            .field("waiting_bytes", &bytes)
            .field("running", &state.running)
            .finish_non_exhaustive()
    }
}

/// Sends messages of one envelope, and waits until they are stored.
pub(crate) async fn send(
    store: &Store,
    envelope: Envelope,
    payloads: Vec<String>,
) -> Result<Vec<MessageId>> {
    let writers = store.writers();
    let started = Instant::now();
    let retry_for = writers.sending.retry_for;
    let patience = retry_for.max(store.acquire_timeout());
    let room = writers.room(&payloads, patience).await?;
    let (parcel, told) = Parcel::new(envelope, payloads, started, retry_for, room);
    if let Some(writer) = writers.take_alone() {
        let writer = Some(writer);
        // Boxed: it is large, and would be moved along with each send that isn't alone.
        Box::pin(Alone { store, writer }.send(parcel)).await;
    } else if let Some(writer) = writers.put(parcel) {
        let (store, writer) = (store.clone(), Some(writer));
        // Without the lock: a runtime that is ending drops the task here, and that takes the lock.
        let carries = 0;
        tokio::spawn(
            AtWork {
                store,
                writer,
                carries,
            }
            .work(),
        );
    }
    // Each parcel is told, if only as it is dropped.
    told.await.unwrap_or(Err(Error::Closed))
}

/// A caller that found nobody at work, and is its own writer: a task of its own would cost it two changes of
/// thread. It carries nobody else's messages, and nobody waits for it, since it may be left unpolled for long,
/// or be dropped.
struct Alone<'a> {
    store: &'a Store,
    /// None once it is idle again.
    writer: Option<Writer>,
}

impl Alone<'_> {
    async fn send(mut self, parcel: Parcel) {
        let Some(writer) = &mut self.writer else {
            return;
        };
        let mut stored = writer.deliver(self.store, vec![parcel]).await;
        tell_all(self.store, &mut stored);
        if let Some(writer) = self.writer.take() {
            let writers = self.store.writers();
            let lent = writers.rest(&mut writers.lock(), writer);
            // Returned to the pool without the lock.
            drop(lent);
        }
    }
}

/// What a writer was in the middle of when its caller left, nobody knows; so it isn't used again.
impl Drop for Alone<'_> {
    fn drop(&mut self) {
        self.store.writers().lock().alone = false;
    }
}

/// A writer, for as long as its task runs.
struct AtWork {
    store: Store,
    /// None once it is idle again.
    writer: Option<Writer>,
    /// So many calls.
    carries: usize,
}

impl AtWork {
    async fn work(mut self) {
        let store = self.store.clone();
        let writers = store.writers();
        loop {
            writers.gather().await;
            let (Some(group), Some(writer)) = (writers.next(&mut self.writer), &mut self.writer)
            else {
                return;
            };
            self.carries = group.len();
            let mut stored = writer.deliver(&store, group).await;
            self.put_down();
            tell_all(&store, &mut stored);
            // Those who were told are about to send again: what they send goes out together.
            yield_now().await;
            writers.back.notify_waiters();
        }
    }

    fn put_down(&mut self) {
        self.store.writers().lock().in_flight -= mem::take(&mut self.carries);
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        if self.writer.is_none() {
            return;
        }
        // The runtime has ended in the middle of its work. Nothing of what waits was sent.
        self.put_down();
        let mut state = self.store.writers().lock();
        state.running -= 1;
        if state.running == 0 {
            for parcel in mem::take(&mut state.waiting) {
                parcel.tell(Err(Error::Closed));
            }
        }
    }
}

/// All of a group is stored.
pub(crate) fn tell_all(store: &Store, group: &mut Vec<Parcel>) {
    let mut woken: Option<QueueName> = None;
    for parcel in group.drain(..) {
        let Envelope { queue, visible, .. } = &parcel.envelope;
        if *visible == Visible::Now && woken.as_ref() != Some(queue) {
            store.wakes().enqueued(store.pool(), queue);
            woken = Some(queue.clone());
        }
        parcel.tell(Ok(()));
    }
}

/// Gives the connections of idle writers back when they have been idle for a while. Before that, one of them
/// makes an end to rows of writers that are long gone.
async fn keep(writers: Weak<Writers>) {
    loop {
        sleep(LINGER).await;
        let Some(writers) = writers.upgrade() else {
            return;
        };
        let mut back = Vec::new();
        let is_done = {
            let mut state = writers.lock();
            for writer in &mut state.idle {
                back.extend(
                    writer
                        .lent
                        .take_if(|_| writer.idle_since.elapsed() >= LINGER),
                );
            }
            let is_done = state.idle.iter().all(|writer| writer.lent.is_none());
            if is_done {
                // Under the same lock by which the next one is started.
                state.keeper = None;
            }
            is_done
        };
        if let Some(lent) = back.first_mut()
            && writers.is_prune_due()
        {
            prune(lent, writers.sending.patience()).await;
        }
        if is_done {
            return;
        }
    }
}

/// An end to rows of writers that are long gone.
pub(crate) async fn prune(lent: &mut Lent, patience: Duration) {
    if let Err(error) = lent.within(patience, writers::prune).await {
        telemetry::prune_failed(&error);
    }
}
