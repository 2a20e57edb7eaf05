//! Sends through a store: few writers take what is waiting, and store it with one statement for all of it.
//! For `.execute(&store)` of an enqueue. What waits is stored exactly once, whatever breaks on the way: a
//! try whose answer got lost is asked about, and forbidden to come late, before it is made again.

use std::{
    collections::{HashMap, VecDeque},
    fmt, mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
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
    /// How many connections the pool has opened: ids that were drawn on another server, before a
    /// fail-over, may be drawn again on this one.
    opened: Arc<AtomicU64>,
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
    sender: oneshot::Sender<Result<Vec<MessageId>>>,
    _room: OwnedSemaphorePermit,
}

impl Parcel {
    fn tell(self, outcome: Result<()>) {
        let ids = outcome.map(|()| self.ids.into_iter().map(MessageId::from).collect());
        // Nobody may be waiting any more.
        let _ = self.sender.send(ids);
    }

    fn tell_not_stored(self, why: &Error) {
        let (after, source) = (self.started.elapsed(), Box::new(why.clone()));
        self.tell(Err(Error::NotStored { after, source }));
    }

    fn tell_unknown(self, why: &Error) {
        let ids = self.ids.iter().copied().map(MessageId::from).collect();
        let source = Box::new(why.clone());
        self.tell(Err(Error::OutcomeUnknown { ids, source }));
    }
}

impl Writers {
    /// `first` are ids that were drawn already.
    pub(crate) fn new(sending: Sending, opened: Arc<AtomicU64>, first: Vec<i64>) -> Self {
        let mut writer = Writer::default();
        // The pool's first connection goes where they were drawn.
        writer.ids.put(first, 1);
        let mut state = State::default();
        state.idle.push(writer);
        Self {
            sending,
            state: Mutex::new(state),
            room: Arc::new(Semaphore::new(ROOM as usize)),
            opened,
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
    fn next(&self, writer: &mut Option<Writer>) -> Option<Vec<Parcel>> {
        // Given back after the lock is.
        let _lent;
        let mut state = self.lock();
        let (mut group, mut messages, mut bytes) = (Vec::new(), 0, 0);
        while let Some(parcel) = state.waiting.front() {
            messages += parcel.payloads.len();
            bytes += parcel.bytes;
            let fits = messages <= messages::CHUNK_MESSAGES && bytes <= messages::CHUNK_BYTES;
            if !(group.is_empty() || fits && self.sending.coalesce) {
                break;
            }
            let parcel = state.waiting.pop_front()?;
            if parcel.sender.is_closed() {
                // Its caller has left before it was taken: it isn't sent.
                messages -= parcel.payloads.len();
                bytes -= parcel.bytes;
                continue;
            }
            group.push(parcel);
        }
        if group.is_empty() {
            state.running -= 1;
            let mut writer = writer.take()?;
            _lent = writer.lent.take();
            state.idle.push(writer);
            return None;
        }
        Some(group)
    }
}

impl fmt::Debug for Writers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        f.debug_struct("Writers")
            .field("waiting", &state.waiting.len())
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
        sender,
        _room: room,
    };
    {
        let mut state = writers.lock();
        state.waiting.push_back(parcel);
        if state.running < writers.limit(&state) {
            state.running += 1;
            let writer = state.idle.pop().unwrap_or_default();
            tokio::spawn(work(AtWork {
                store: store.clone(),
                writer: Some(writer),
            }));
        }
    }
    // A writer that ends without a word has ended with its runtime.
    answer.await.unwrap_or_else(|_| {
        Err(Error::OutcomeUnknown {
            ids: Vec::new(),
            source: Box::new(Error::Closed),
        })
    })
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
    while let Some(group) = store.writers().next(&mut at_work.writer) {
        if let Some(writer) = &mut at_work.writer {
            writer.deliver(&store, group).await;
        }
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
    /// When they were, counted in connections.
    at: u64,
}

impl Ids {
    fn put(&mut self, drawn: Vec<i64>, at: u64) {
        if self.at != at {
            self.drawn.clear();
        }
        self.drawn.extend(drawn);
        self.at = at;
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
    /// Until each of the parcels has its answer.
    async fn deliver(&mut self, store: &Store, group: Vec<Parcel>) {
        // Ordered as they came: the next is the last.
        let mut groups = vec![group];
        while let Some(mut group) = groups.pop() {
            let mut backoff = FIRST_BACKOFF;
            while !group.is_empty() {
                match self.attempt(store, &mut group).await {
                    Tried::Stored => tell_all(store, &mut group),
                    Tried::Refused(reasons) => group = refuse(group, &reasons),
                    Tried::NotSent(error) if !error.is_retryable() => {
                        for parcel in group.drain(..) {
                            parcel.tell(Err(error.clone()));
                        }
                    }
                    Tried::Failed(error) if !error.is_retryable() => {
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
                        wait(&mut backoff, &group).await;
                    }
                    Tried::Unknown(error) => self.find_out(store, &mut group, error).await,
                }
            }
        }
        self.grow_old(store).await;
    }

    /// Asks whether the last try stored its messages, until there is an answer. If it has not, what is left
    /// of the group is to be sent again.
    async fn find_out(&mut self, store: &Store, group: &mut Vec<Parcel>, mut why: Error) {
        let this = self.last();
        let mut backoff = FIRST_BACKOFF;
        loop {
            telemetry::send_failed(&why);
            take_expired(group).for_each(|parcel| parcel.tell_unknown(&why));
            if group.is_empty() {
                // The number's fate stays open, so it is never used again, nor any after it.
                return self.renew();
            }
            let patience = store.writers().sending.patience();
            let asked = async {
                let mut lent = store.lend().await?;
                lent.within(patience, async |connection| {
                    writers::settle(connection, this).await
                })
                .await
            };
            match asked.await {
                Ok(true) => return tell_all(store, group),
                Ok(false) => {
                    // Perhaps it is another server by now, which draws the same ids for others.
                    for parcel in group.iter_mut() {
                        parcel.ids.clear();
                    }
                    self.ids.drawn.clear();
                    return;
                }
                Err(error) => why = error,
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

    /// A new token in good time, and an end to rows of writers that are long gone.
    async fn grow_old(&mut self, store: &Store) {
        let since = *self.since.get_or_insert_with(Instant::now);
        let is_new = self.sequence == 2;
        if self.sequence >= 2 * STATEMENTS || since.elapsed() > LIFETIME {
            self.renew();
        }
        if let (true, Some(lent)) = (is_new, &mut self.lent) {
            let patience = store.writers().sending.patience();
            if let Err(error) = lent.within(patience, writers::prune).await {
                telemetry::prune_failed(&error);
                self.lent = None;
            }
        }
    }

    async fn attempt(&mut self, store: &Store, group: &mut [Parcel]) -> Tried {
        let patience = store.writers().sending.patience();
        let mut lent = match self.lent.take() {
            Some(lent) => lent,
            None => match store.lend().await {
                Ok(lent) => lent,
                Err(error) => return Tried::NotSent(error),
            },
        };
        let opened = store.writers().opened.load(Ordering::Relaxed);
        if self.ids.at != opened {
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
                Ok(drawn) => self.ids.put(drawn, opened),
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
                    write_large(connection, token, first, one).await
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

/// A data error or a broken constraint may be one message's; whatever else it is, all messages share it.
fn refused_by_server(error: Error) -> Tried {
    let of_a_message = match &error {
        Error::Database(source) => source
            .as_database_error()
            .and_then(|refusal| refusal.code())
            // data exceptions, integrity, limits, what a trigger raises
            .is_some_and(|code| matches!(&code[..2], "22" | "23" | "54" | "P0")),
        _ => false,
    };
    match of_a_message || error.is_retryable() {
        true => Tried::Failed(error),
        false => Tried::NotSent(error),
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
) -> Result<Written> {
    let mut transaction = connection.begin().await?;
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
