//! Sends through a store: few writers take what is waiting, and store it with one statement for all of it.
//! For `.execute(&store)` of an enqueue. What waits is stored exactly once, whatever breaks on the way: a
//! try whose answer got lost is asked about, and forbidden to come late, before it is made again.

use std::{
    collections::{HashMap, VecDeque},
    fmt, mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};

use sqlx::{Connection, PgConnection};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    time::{Instant, sleep_until, timeout},
};

use crate::{
    error::{Error, Result},
    message::{Envelope, MessageId, Visible},
    postgres::{
        messages::{self, next_chunk},
        workers,
        writers::{self, Batch, Try, Written},
    },
    store::{Lent, Store},
    telemetry,
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
const A_ROW: Duration = Duration::from_micros(8);
/// A token serves for so many statements, since an old snapshot keeps all versions of its row; and for
/// so long, since rows are pruned a day after they were made.
const STATEMENTS: i64 = 1_000;
const LIFETIME: Duration = Duration::from_secs(60 * 60);
/// Ids are drawn ahead: for a few statements, but so many at least.
pub(crate) const BLOCK: usize = 64;
const LARGEST_BLOCK: usize = 4_000;
const FIRST_BACKOFF: Duration = Duration::from_millis(20);
const LONGEST_BACKOFF: Duration = Duration::from_secs(2);

/// How a store sends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sending {
    pub(crate) retry_for: Duration,
    pub(crate) coalesce: bool,
    /// Whether ids that one statement doesn't need are kept for the next.
    pub(crate) draw_ahead: bool,
    /// The connections of the pool.
    pub(crate) connections: usize,
}

impl Sending {
    /// How long a try waits for its answer.
    fn patience(&self) -> Duration {
        match self.retry_for {
            Duration::ZERO => Duration::from_secs(30),
            retry_for => (retry_for / 3).clamp(Duration::from_secs(1), Duration::from_secs(30)),
        }
    }
}

/// The writers of a store, and what waits for them.
pub(crate) struct Writers {
    sending: Sending,
    /// Never held across an await.
    state: Mutex<State>,
    room: Arc<Semaphore>,
    /// When the server was started that the last connection was made to: ids that were drawn on another, before
    /// a fail-over, may be drawn again on this one.
    server: Arc<AtomicI64>,
    prune_due: AtomicBool,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Parcel>,
    idle: Vec<Writer>,
    running: usize,
    /// How much longer than its rows explain a statement takes, of late.
    commit: Duration,
}

/// The messages of one call, and who waits for them.
struct Parcel {
    envelope: Envelope,
    payloads: Vec<String>,
    bytes: usize,
    /// Drawn ahead of the first try.
    ids: Vec<i64>,
    started: Instant,
    deadline: Instant,
    /// None once its caller has been told.
    sender: Option<oneshot::Sender<Result<Vec<MessageId>>>>,
    _room: OwnedSemaphorePermit,
}

impl Parcel {
    fn tell(mut self, outcome: Result<()>) {
        self.answer(outcome);
    }

    fn tell_not_stored(mut self, why: &Error) {
        let (after, source) = (self.started.elapsed(), Box::new(why.clone()));
        self.answer(Err(Error::NotStored { after, source }));
    }

    fn tell_unknown(mut self, why: &Error) {
        self.answer_unknown(why);
    }

    fn answer(&mut self, outcome: Result<()>) {
        let ids = outcome.map(|()| self.message_ids());
        if let Some(sender) = self.sender.take() {
            // Nobody may be waiting any more.
            let _ = sender.send(ids);
        }
    }

    fn answer_unknown(&mut self, why: &Error) {
        let ids = self.message_ids();
        let source = Box::new(why.clone());
        self.answer(Err(Error::OutcomeUnknown { ids, source }));
    }

    fn message_ids(&self) -> Vec<MessageId> {
        self.ids.iter().copied().map(MessageId::from).collect()
    }

    /// Its caller has left.
    fn is_unwanted(&self) -> bool {
        self.sender.as_ref().is_none_or(oneshot::Sender::is_closed)
    }
}

/// A runtime that ends takes its writers along, in the middle of whatever they do.
impl Drop for Parcel {
    fn drop(&mut self) {
        self.answer_unknown(&Error::Closed);
    }
}

impl Writers {
    /// `first` are ids that were drawn already.
    pub(crate) fn new(sending: Sending, server: Arc<AtomicI64>, first: Vec<i64>) -> Self {
        let mut writer = Writer::default();
        writer.ids.put(first, server.load(Ordering::Relaxed));
        let mut state = State::default();
        state.idle.push(writer);
        Self {
            sending,
            state: Mutex::new(state),
            room: Arc::new(Semaphore::new(ROOM as usize)),
            server,
            prune_due: AtomicBool::new(false),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// What the next statement carries; or none, and then the writer is idle: under the same lock by which
    /// the next send looks for one, so that none falls between.
    fn next(&self, writer: &mut Option<Writer>) -> Next {
        let mut state = self.lock();
        let (mut group, mut messages, mut bytes) = (Vec::new(), 0, 0);
        while let Some(parcel) = state.waiting.front() {
            messages += parcel.payloads.len();
            bytes += parcel.bytes;
            let fits = messages <= messages::CHUNK_MESSAGES && bytes <= messages::CHUNK_BYTES;
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
        if group.is_empty() {
            state.running -= 1;
            let lent = writer.take().and_then(|mut writer| {
                let lent = writer.lent.take();
                state.idle.push(writer);
                lent
            });
            return Next::Idle(lent);
        }
        Next::Group(group)
    }

    /// Whether rows of old writers are to be looked for: once for each new token.
    fn is_prune_due(&self) -> bool {
        self.prune_due.swap(false, Ordering::Relaxed)
    }

    /// The server can't be reached, so those who wait behind a try needn't have one of their own, once their
    /// time is over. They were not sent.
    fn expire(&self, why: &Error) {
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

/// What a writer does next.
enum Next {
    /// A statement for these.
    Group(Vec<Parcel>),
    /// Nothing: it is idle, and this is the connection that it had.
    Idle(Option<Lent>),
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
    let patience = writers.sending.retry_for.max(store.acquire_timeout());
    let bytes = payloads.iter().map(String::len).sum::<usize>();
    let room = (bytes + payloads.len() * OVERHEAD) / 1024 + 1;
    let room = u32::try_from(room).map_or(ROOM, |room| room.min(ROOM));
    let room = timeout(patience, Arc::clone(&writers.room).acquire_many_owned(room));
    let room = match room.await {
        Ok(room) => room.map_err(|_| Error::Closed)?,
        Err(_) => return Err(Error::AcquireTimeout { after: patience }),
    };
    let (sender, answer) = oneshot::channel();
    let parcel = Parcel {
        envelope,
        payloads,
        bytes,
        ids: Vec::new(),
        started,
        deadline: started + writers.sending.retry_for,
        sender: Some(sender),
        _room: room,
    };
    let writer = {
        let mut state = writers.lock();
        state.waiting.push_back(parcel);
        (state.running < writers.limit(&state)).then(|| {
            state.running += 1;
            state.idle.pop().unwrap_or_default()
        })
    };
    if let Some(writer) = writer {
        let store = store.clone();
        let writer = Some(writer);
        // Without the lock: a runtime that is ending drops the task here, and that takes the lock.
        tokio::spawn(work(AtWork { store, writer }));
    }
    // Each parcel is told, if only as it is dropped.
    answer.await.unwrap_or(Err(Error::Closed))
}

/// A writer, for as long as its task runs.
struct AtWork {
    store: Store,
    /// None once it is idle again.
    writer: Option<Writer>,
}

impl Drop for AtWork {
    fn drop(&mut self) {
        if self.writer.is_none() {
            return;
        }
        // The runtime has ended in the middle of its work. Nothing of what waits was sent.
        let mut state = self.store.writers().lock();
        state.running -= 1;
        if state.running == 0 {
            for parcel in mem::take(&mut state.waiting) {
                parcel.tell(Err(Error::Closed));
            }
        }
    }
}

async fn work(mut at_work: AtWork) {
    let store = at_work.store.clone();
    let mut stored = Vec::new();
    loop {
        let next = store.writers().next(&mut at_work.writer);
        // Only now: whoever sends again at once finds this writer idle, and needs no other.
        tell_all(&store, &mut stored);
        match (next, &mut at_work.writer) {
            (Next::Group(group), Some(writer)) => stored = writer.deliver(&store, group).await,
            (Next::Idle(Some(mut lent)), _) => {
                if store.writers().is_prune_due() {
                    prune(&store, &mut lent).await;
                }
                return;
            }
            _ => return,
        }
    }
}

/// An end to rows of writers that are long gone.
async fn prune(store: &Store, lent: &mut Lent) {
    let patience = store.writers().sending.patience();
    if let Err(error) = lent.within(patience, writers::prune).await {
        telemetry::prune_failed(&error);
    }
}

/// One line of statements: there is one under way, and the next follows when its fate is known.
struct Writer {
    token: i64,
    /// Of the last try.
    sequence: i64,
    since: Option<Instant>,
    ids: Ids,
    /// Kept from one statement to the next, while there is one.
    lent: Option<Lent>,
}

/// Ids that were drawn ahead.
#[derive(Default)]
struct Ids {
    drawn: VecDeque<i64>,
    /// By the server that was started then.
    by: i64,
}

impl Ids {
    fn put(&mut self, drawn: Vec<i64>, by: i64) {
        self.drawn.extend(drawn);
        self.by = by;
    }

    /// For those parcels that have none yet, where there are enough.
    fn deal(&mut self, group: &mut [Parcel]) {
        for parcel in group.iter_mut().filter(|parcel| parcel.ids.is_empty()) {
            parcel.ids = self.drawn.drain(..parcel.payloads.len()).collect();
        }
    }
}

/// What became of one try.
enum Tried {
    Stored,
    /// Nothing is stored: these envelopes, for these reasons, have no queue that takes them.
    Refused(Vec<(usize, Error)>),
    /// Nothing is stored, for a reason that all messages have in common.
    NotSent(Error),
    /// Nothing is stored: the server refused the statement, perhaps for the sake of one message.
    Failed(Error),
    Unknown(Error),
}

impl Default for Writer {
    fn default() -> Self {
        Self {
            token: rand::random(),
            sequence: 0,
            since: None,
            ids: Ids::default(),
            lent: None,
        }
    }
}

impl Writer {
    /// Until it is known what becomes of each parcel. Gives those of the last statement, if it has stored
    /// them; all others have been told.
    async fn deliver(&mut self, store: &Store, group: Vec<Parcel>) -> Vec<Parcel> {
        // Ordered as they came: the next is the last.
        let mut groups = vec![group];
        while let Some(mut group) = groups.pop() {
            let mut backoff = FIRST_BACKOFF;
            while !group.is_empty() {
                match self.attempt(store, &mut group).await {
                    Tried::Stored if groups.is_empty() => return group,
                    Tried::Stored => tell_all(store, &mut group),
                    Tried::Refused(reasons) => group = refuse(group, &reasons),
                    Tried::NotSent(error) if !error.is_retryable() => {
                        group.drain(..).for_each(|one| one.tell(Err(error.clone())));
                    }
                    Tried::Failed(error) if !error.is_retryable() && !is_id_taken(&error) => {
                        if group.len() == 1 {
                            group.drain(..).for_each(|one| one.tell(Err(error.clone())));
                        } else {
                            // One of them is refused: the half without it is not.
                            groups.push(group.split_off(group.len() / 2));
                        }
                    }
                    Tried::NotSent(error) | Tried::Failed(error) => {
                        telemetry::send_failed(&error);
                        take_expired(&mut group).for_each(|parcel| parcel.tell_not_stored(&error));
                        store.writers().expire(&error);
                        // Perhaps it is another server next time, which draws the same ids for others.
                        self.forget_ids(&mut group);
                        wait(&mut backoff, &group).await;
                    }
                    Tried::Unknown(error) => {
                        if self.find_out(store, &mut group, error).await {
                            tell_all(store, &mut group);
                        }
                    }
                }
            }
        }
        Vec::new()
    }

    /// Asks whether the last try stored its messages, until there is an answer. If it has not, what is left
    /// of the group is to be sent again.
    async fn find_out(&mut self, store: &Store, group: &mut Vec<Parcel>, mut why: Error) -> bool {
        let this = self.last();
        let mut backoff = FIRST_BACKOFF;
        loop {
            telemetry::send_failed(&why);
            take_expired(group).for_each(|parcel| parcel.tell_unknown(&why));
            if group.is_empty() {
                // The number's fate stays open, so it is never used again, nor any after it.
                self.renew();
                return false;
            }
            let (patience, asked_at) = (store.writers().sending.patience(), Instant::now());
            let asked = async {
                let mut lent = store.lend().await?;
                lent.within(patience, async |connection| {
                    writers::settle(connection, this).await
                })
                .await
            };
            match asked.await {
                Ok(true) => return true,
                Ok(false) => {
                    // After their time they are not sent again, however late the answer came: the row that
                    // forbids the last try may be pruned by then.
                    let in_time = asked_at.elapsed() < LIFETIME;
                    take_expired(group).for_each(|parcel| match in_time {
                        true => parcel.tell_not_stored(&why),
                        false => parcel.tell_unknown(&why),
                    });
                    // Perhaps it is another server by now, which draws the same ids for others.
                    self.forget_ids(group);
                    return false;
                }
                // Neither this server nor this login will ever tell.
                Err(error) if !error.is_retryable() => {
                    group.drain(..).for_each(|one| one.tell_unknown(&error));
                }
                Err(error) => {
                    store.writers().expire(&error);
                    why = error;
                }
            }
            wait(&mut backoff, group).await;
        }
    }

    fn last(&self) -> Try {
        Try {
            token: self.token,
            sequence: self.sequence,
        }
    }

    fn renew(&mut self) {
        (self.token, self.sequence, self.since) = (rand::random(), 0, None);
    }

    /// A new token in good time: ahead of a try, since the writer may have been idle for days.
    async fn grow_old(&mut self, store: &Store) {
        let is_old = self.since.is_some_and(|since| since.elapsed() > LIFETIME);
        if self.sequence >= 2 * STATEMENTS || is_old {
            self.renew();
            // Who has never been idle has not pruned yet.
            if let Some(lent) = &mut self.lent
                && store.writers().is_prune_due()
            {
                prune(store, lent).await;
            }
        }
        if self.since.is_none() {
            self.since = Some(Instant::now());
            store.writers().prune_due.store(true, Ordering::Relaxed);
        }
    }

    fn forget_ids(&mut self, group: &mut [Parcel]) {
        group.iter_mut().for_each(|parcel| parcel.ids.clear());
        self.ids.drawn.clear();
    }

    async fn attempt(&mut self, store: &Store, group: &mut [Parcel]) -> Tried {
        let patience = store.writers().sending.patience();
        self.grow_old(store).await;
        let mut lent = match self.lent.take() {
            Some(lent) => lent,
            None => match store.lend().await {
                Ok(lent) => lent,
                Err(error) => return Tried::NotSent(error),
            },
        };
        let server = store.writers().server.load(Ordering::Relaxed);
        if self.ids.by != server || !store.writers().sending.draw_ahead {
            self.ids.drawn.clear();
        }
        let without = group.iter().filter(|parcel| parcel.ids.is_empty());
        let needed: usize = without.map(|parcel| parcel.payloads.len()).sum();
        if self.ids.drawn.len() < needed {
            // For this statement, and for a few like it.
            let missing = (needed * 4).clamp(BLOCK, LARGEST_BLOCK).max(needed);
            let drawn = lent.within(patience, async |connection| {
                writers::reserve(connection, missing).await
            });
            match drawn.await {
                Ok(drawn) => self.ids.put(drawn, server),
                Err(error) => return Tried::NotSent(error),
            }
        }
        self.ids.deal(group);
        // So many numbers: one for each statement. The last one's tells of all.
        let statements = match &*group {
            [one] => chunks(&one.payloads).count(),
            _ => 1,
        };
        let first = self.sequence + 2;
        self.sequence += 2 * i64::try_from(statements).unwrap_or(1);
        let started = Instant::now();
        let token = self.token;
        let written = match &*group {
            [one] if statements > 1 => {
                let patience = patience + Duration::from_secs(statements as u64);
                lent.within(patience, async |connection| {
                    write_large(connection, token, first, one, patience).await
                })
                .await
            }
            _ => {
                let this = self.last();
                let batch = lay_out(group);
                lent.within(patience, async |connection| {
                    writers::write(connection, this, &batch).await
                })
                .await
            }
        };
        match written {
            Ok(Written::Stored) => {
                let rows = group.iter().map(|one| one.payloads.len()).sum::<usize>();
                let rows = A_ROW * u32::try_from(rows).unwrap_or(u32::MAX);
                let commit = started.elapsed().saturating_sub(rows);
                let mut state = store.writers().lock();
                state.commit = (state.commit * 7 + commit) / 8;
                drop(state);
                self.lent = Some(lent);
                Tried::Stored
            }
            Ok(Written::Refused(places)) => {
                reasons(&mut lent, &lay_out(group).envelopes, places, patience).await
            }
            // No try has its number twice; so whatever this is, it is looked into.
            Ok(Written::Taken) => Tried::Unknown(sqlx::Error::RowNotFound.into()),
            Err(Error::NotInstalled) => Tried::NotSent(Error::NotInstalled),
            Err(Error::SchemaOutdated) => Tried::NotSent(Error::SchemaOutdated),
            Err(Error::Database(source)) if source.as_database_error().is_some() => {
                refused_by_server(Error::Database(source))
            }
            Err(error) => Tried::Unknown(error),
        }
    }
}

/// All of a group is stored.
fn tell_all(store: &Store, group: &mut Vec<Parcel>) {
    for parcel in group.drain(..) {
        if parcel.envelope.visible == Visible::Now {
            store.wakes().enqueued(store.pool(), &parcel.envelope.queue);
        }
        parcel.tell(Ok(()));
    }
}

fn take_expired(group: &mut Vec<Parcel>) -> impl Iterator<Item = Parcel> + use<> {
    let now = Instant::now();
    let (expired, left) = mem::take(group)
        .into_iter()
        .partition::<Vec<_>, _>(|parcel| parcel.deadline <= now);
    *group = left;
    expired.into_iter()
}

/// Longer each time, apart from others who failed at the same time; not beyond the group's last deadline.
async fn wait(backoff: &mut Duration, group: &[Parcel]) {
    let until = Instant::now() + backoff.mul_f64(0.5 + rand::random::<f64>() / 2.0);
    *backoff = (*backoff * 2).min(LONGEST_BACKOFF);
    if let Some(last) = group.iter().map(|parcel| parcel.deadline).max() {
        sleep_until(until.min(last)).await;
    }
}

/// After a fail-over the server may draw ids again that it has drawn before. Others will do.
fn is_id_taken(error: &Error) -> bool {
    match error {
        Error::Database(source) => source
            .as_database_error()
            .is_some_and(|refusal| refusal.constraint() == Some("messages_pkey")),
        _ => false,
    }
}

/// What a trigger or a constraint says, in whichever code, may be about one message only.
fn refused_by_server(error: Error) -> Tried {
    let is_common = match &error {
        Error::Database(source) => source
            .as_database_error()
            .and_then(|refusal| refusal.code())
            // connections, transactions, logins, names and rights, resources, the operator, the server itself
            .is_some_and(|code| {
                let class = code.get(..2);
                class.is_some_and(|class| {
                    matches!(
                        class,
                        "08" | "25" | "28" | "3D" | "3F" | "42" | "53" | "57" | "58" | "F0" | "XX"
                    )
                })
            }),
        _ => true,
    };
    match is_common && !error.is_retryable() {
        true => Tried::NotSent(error),
        false => Tried::Failed(error),
    }
}

/// Tells those whose envelopes were refused; gives the others.
fn refuse(group: Vec<Parcel>, reasons: &[(usize, Error)]) -> Vec<Parcel> {
    let mut places = HashMap::new();
    let places: Vec<_> = group
        .iter()
        .map(|parcel| {
            let next = places.len();
            *places.entry(&parcel.envelope).or_insert(next)
        })
        .collect();
    let mut left = Vec::new();
    for (parcel, place) in group.into_iter().zip(places) {
        match reasons.iter().find(|(refused, _)| *refused == place) {
            Some((_, reason)) => parcel.tell(Err(reason.clone())),
            None => left.push(parcel),
        }
    }
    left
}

async fn reasons(
    lent: &mut Lent,
    envelopes: &[&Envelope],
    places: Vec<usize>,
    patience: Duration,
) -> Tried {
    let mut reasons = Vec::new();
    for place in places {
        let Some(envelope) = envelopes.get(place) else {
            continue;
        };
        let reason = lent
            .within(patience, async |connection| {
                workers::refusal(connection, &envelope.queue, envelope.producer).await
            })
            .await;
        match reason {
            Ok(reason) => reasons.push((place, reason)),
            Err(error) => return Tried::NotSent(error),
        }
    }
    Tried::Refused(reasons)
}

fn lay_out(group: &[Parcel]) -> Batch<'_> {
    let mut batch = Batch {
        envelopes: Vec::new(),
        ids: Vec::new(),
        envelope: Vec::new(),
        payloads: Vec::new(),
    };
    let mut places = HashMap::new();
    for parcel in group {
        let place = *places.entry(&parcel.envelope).or_insert_with(|| {
            batch.envelopes.push(&parcel.envelope);
            i32::try_from(batch.envelopes.len()).unwrap_or(i32::MAX)
        });
        batch.ids.extend(&parcel.ids);
        batch
            .payloads
            .extend(parcel.payloads.iter().map(String::as_str));
        batch.envelope.resize(batch.ids.len(), place);
    }
    batch
}

fn chunks(payloads: &[String]) -> impl Iterator<Item = &[String]> {
    let mut rest = payloads;
    std::iter::from_fn(move || {
        let (chunk, after) = next_chunk(rest);
        rest = after;
        (!chunk.is_empty()).then_some(chunk)
    })
}

/// More than one statement should carry: a few, in one transaction.
async fn write_large(
    connection: &mut PgConnection,
    token: i64,
    first: i64,
    parcel: &Parcel,
    patience: Duration,
) -> Result<Written> {
    let mut transaction = connection.begin().await?;
    writers::limit_silence(&mut transaction, patience).await?;
    // A batch becomes visible at one time, not chunk by chunk.
    let visible = messages::resolve(&mut transaction, parcel.envelope.visible).await?;
    let envelope = Envelope {
        queue: parcel.envelope.queue.clone(),
        visible: Visible::Exactly(visible),
        ..parcel.envelope
    };
    let (mut sequence, mut ids) = (first, &parcel.ids[..]);
    for chunk in chunks(&parcel.payloads) {
        let (of_chunk, rest) = ids.split_at(chunk.len());
        let batch = Batch {
            envelopes: vec![&envelope],
            ids: of_chunk.to_vec(),
            envelope: vec![1; chunk.len()],
            payloads: chunk.iter().map(String::as_str).collect(),
        };
        match writers::write(&mut transaction, Try { token, sequence }, &batch).await? {
            Written::Stored => {}
            written => return Ok(written),
        }
        (ids, sequence) = (rest, sequence + 2);
    }
    transaction.commit().await?;
    Ok(Written::Stored)
}
