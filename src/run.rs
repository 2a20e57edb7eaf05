//! The loop of a consumer: claims ahead, runs handlers, keeps their leases alive, settles in batches, and
//! goes on whatever breaks. For [`Consumer::run`](crate::Consumer::run). It holds all of its state in one
//! task; handlers and statements are tasks of their own, which report back to it.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    future::{Future, IntoFuture, pending},
    mem,
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use chrono::{DateTime, Utc};
use serde::de::DeserializeOwned;
use tokio::{
    task::{JoinError, JoinSet},
    time::{Instant, sleep_until, timeout},
};
use tracing::Instrument;

use crate::{
    board::{AtWork, Board, Held},
    consumer::{ConsumerHandle, Options},
    delivery::{Delivery, Lease},
    error::{Error, Result},
    handler::{IntoOutcome, Outcome, Verdict, handle},
    lifecycle::WorkerId,
    message::MessageId,
    postgres::messages::{self, Claim, Claimed, Failure},
    queue::{QueueName, Readable},
    settling::{Report, Unsettled, settle},
    store::{Execute, PATIENCE, Store},
    telemetry,
    wake::Sleeper,
    watermark::Reading,
    worker::Worker,
};

/// A consumer that runs as soon as this is awaited; made by [`Consumer::run`](crate::Consumer::run).
#[must_use = "a consumer does nothing until this is awaited: add `.await`"]
pub struct Run<C> {
    handle: ConsumerHandle<C>,
    options: Options,
    shutdown: Shutdown,
    deadline: Duration,
    /// Knows the handler. So whoever awaits a consumer needs no bounds, and a handler that is wrong is
    /// told of once.
    start: Box<dyn FnOnce(Shutdown, Duration) -> Execute<'static, Result<Report>> + Send>,
}

type Shutdown = Pin<Box<dyn Future<Output = ()> + Send>>;

impl<C: Readable + 'static> Run<C> {
    pub(crate) fn new<F, R, O>(
        handle: ConsumerHandle<C>,
        store: Store,
        options: Options,
        handler: F,
    ) -> Self
    where
        F: Fn(Delivery<C::Payload>) -> R + Send + Sync + 'static,
        R: Future<Output = O> + Send + 'static,
        O: IntoOutcome,
    {
        let (shutdown, deadline) = (Box::pin(pending()), Duration::from_secs(30));
        let started = handle.clone();
        Self {
            handle,
            options,
            shutdown,
            deadline,
            start: Box::new(move |shutdown, deadline| {
                start(started, store, options, handler, shutdown, deadline)
            }),
        }
    }
}

impl<C> Run<C> {
    /// Stops when this future is ready, as [`ConsumerHandle::stop`] does.
    pub fn with_graceful_shutdown(self, signal: impl Future<Output = ()> + Send + 'static) -> Self {
        Self {
            shutdown: Box::pin(signal),
            ..self
        }
    }

    /// How long handlers may go on after the loop was told to stop; 30 seconds unless told. Those that
    /// haven't finished by then are aborted, and their messages given back.
    pub fn shutdown_deadline(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }
}

impl<C> fmt::Debug for Run<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run")
            .field("handle", &self.handle)
            .field("options", &self.options)
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}

impl<C> IntoFuture for Run<C> {
    type Output = Result<Report>;
    type IntoFuture = Execute<'static, Result<Report>>;

    fn into_future(self) -> Self::IntoFuture {
        (self.start)(self.shutdown, self.deadline)
    }
}

fn start<C, F, R, O>(
    handle: ConsumerHandle<C>,
    store: Store,
    options: Options,
    handler: F,
    shutdown: Shutdown,
    deadline: Duration,
) -> Execute<'static, Result<Report>>
where
    C: Readable + 'static,
    F: Fn(Delivery<C::Payload>) -> R + Send + Sync + 'static,
    R: Future<Output = O> + Send + 'static,
    O: IntoOutcome,
{
    Execute::new(async move {
        let listen = options.listen && store.can_listen();
        let sleeper = store.wakes().sleeper(store.pool(), handle.queue(), listen);
        let mut stop = handle.stopped();
        let signal = async move {
            tokio::select! {
                () = shutdown => {}
                _ = stop.wait_for(|stop| *stop) => {}
            }
        };
        let outcome = Loop {
            queue: handle.queue().clone(),
            worker: handle.id(),
            store,
            options,
            deadline,
            handler: Arc::new(handler),
            sleeper,
            board: Arc::new(Board::new()),
            running: JoinSet::new(),
            statements: JoinSet::new(),
            claims: 0,
            asked: 0,
            settling: false,
            extending: false,
            unsettled: Unsettled::default(),
            claim_at: Instant::now(),
            settle_at: Instant::now(),
            extend_at: Instant::now() + options.lease / 3,
            backoff: FIRST_BACKOFF,
            pace: Pace::new(),
            ending: None,
            fatal: None,
            report: Report::default(),
        }
        .run(signal)
        .await;
        // The identity is free again. Where the database is away, that takes until it counts as crashed.
        let _ = timeout(LAST_WORDS, handle.shutdown()).await;
        outcome
    })
}

const FIRST_BACKOFF: Duration = Duration::from_millis(50);
const LONGEST_BACKOFF: Duration = Duration::from_secs(5);
/// After the deadline, for what is still to be told to the database.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// Claims that are under way at once. They share what there is room for: a single one would leave the database
/// idle while its messages are handled. More of them step over what the others have locked.
const CLAIMS: usize = 2;
/// While messages are claimed, acknowledgements wait until they are this many: the claim's end is a good time too.
const MANY: usize = 64;
/// As many messages are held ready as are handled in this time.
const AHEAD: Duration = Duration::from_millis(50);

struct Loop<P, F> {
    queue: QueueName,
    worker: WorkerId,
    store: Store,
    options: Options,
    deadline: Duration,
    handler: Arc<F>,
    sleeper: Sleeper,
    board: Arc<Board<P>>,
    /// Tasks that take deliveries from the board until it is empty: at most as many as handlers may run.
    running: JoinSet<()>,
    statements: JoinSet<Statement>,
    /// Claims under way, and for how many messages.
    claims: usize,
    asked: usize,
    settling: bool,
    extending: bool,
    unsettled: Unsettled,
    /// When to claim next, unless woken before.
    claim_at: Instant,
    settle_at: Instant,
    extend_at: Instant,
    backoff: Duration,
    pace: Pace,
    ending: Option<Ending>,
    fatal: Option<Error>,
    report: Report,
}

struct Ending {
    deadline: Instant,
    aborted: bool,
}

/// A statement that has come to its end.
enum Statement {
    Claimed {
        result: Result<Claimed>,
        reading: Reading,
        sent: Instant,
        limit: usize,
    },
    Settled {
        rest: Unsettled,
        report: Report,
        error: Option<Error>,
    },
    Extended {
        result: Result<Vec<(MessageId, DateTime<Utc>)>>,
        of: Vec<Arc<Lease>>,
        sent: Instant,
    },
}

impl<P, F, R> Loop<P, F>
where
    P: Send + Sync + DeserializeOwned + 'static,
    F: Fn(Delivery<P>) -> R + Send + Sync + 'static,
    R: Future<Output: IntoOutcome> + Send + 'static,
{
    async fn run(mut self, signal: impl Future<Output = ()> + Send) -> Result<Report> {
        let mut signal = pin!(signal);
        loop {
            // First: what a handler has settled by itself leaves nothing else to wait for.
            self.take_stock();
            if self.is_over() {
                break;
            }
            self.start_statements();
            self.start_handlers();
            let next = self.next_deadline();
            let ending = self.ending.is_some();
            tokio::select! {
                () = self.board.news.notified() => {}
                Some(_) = self.running.join_next() => {}
                Some(statement) = self.statements.join_next() => self.ended(statement),
                () = self.sleeper.notified(), if !ending => self.claim_at = Instant::now(),
                () = &mut signal, if !ending => self.end(),
                () = sleep_until(next) => {}
            }
            while self.running.try_join_next().is_some() {}
        }
        match self.fatal {
            Some(error) => Err(error),
            None => Ok(self.report),
        }
    }

    fn is_over(&self) -> bool {
        let Some(ending) = &self.ending else {
            return false;
        };
        let nothing_left = self.running.is_empty()
            && self.statements.is_empty()
            && self.unsettled.is_empty()
            && self.board.lock().is_empty();
        nothing_left || Instant::now() >= ending.deadline + LAST_WORDS
    }

    fn end(&mut self) {
        if self.ending.is_none() {
            self.ending = Some(Ending {
                deadline: Instant::now() + self.deadline,
                aborted: false,
            });
        }
    }

    fn fail(&mut self, error: Error) {
        self.fatal = Some(error);
        self.end();
    }

    /// Takes from the board what was handled; and at the end, what won't be.
    fn take_stock(&mut self) {
        let mut state = self.board.lock();
        let handled = mem::take(&mut state.handled);
        self.report.lost += mem::take(&mut state.lost);
        if self.ending.is_some() {
            let untouched = state
                .ready
                .drain(..)
                .map(|held| held.delivery.lease().leased);
            self.unsettled.untouched.extend(untouched);
            if self.running.is_empty() {
                // Their handlers were aborted.
                let unfinished = state.at_work.drain().map(|work| work.lease.leased);
                self.unsettled.unfinished.extend(unfinished);
            }
        }
        drop(state);
        self.pace.handled(handled.len());
        for (work, verdict) in handled {
            self.handled(work, verdict);
        }
    }

    fn start_handlers(&mut self) {
        let ready = self.board.lock().ready.len();
        let idle = self.options.concurrency.saturating_sub(self.running.len());
        for _ in 0..ready.min(idle) {
            let board = Arc::clone(&self.board);
            let (handler, limit) = (Arc::clone(&self.handler), self.options.handler_timeout);
            let queue = self.queue.clone();
            self.running.spawn(async move {
                while let Some((key, delivery)) = board.take() {
                    let (id, attempt) = (delivery.id(), delivery.attempt());
                    let span = telemetry::process(queue.as_str(), id.get(), attempt);
                    let verdict = handle(&*handler, delivery, limit)
                        .instrument(span.clone())
                        .await;
                    if verdict.is_err() {
                        telemetry::handler_failed(&span, "handler");
                    }
                    board.handled(key, verdict);
                    // A handler that never waits must not keep its thread from all other tasks.
                    tokio::task::coop::consume_budget().await;
                }
            });
        }
    }

    fn handled(&mut self, work: AtWork, verdict: Verdict) {
        let AtWork { lease, attempt } = work;
        let leased = lease.leased;
        let retry = |delay, error, dead| Failure {
            leased,
            delay,
            error,
            dead,
        };
        let wait = || self.options.retry.jittered(attempt, rand::random());
        let failure = match verdict {
            // The handler has settled it, in a transaction that it has committed: it says so itself.
            Ok(Outcome::Done | Outcome::Archive) if lease.is_settled() => {
                self.report.done += 1;
                return;
            }
            Ok(Outcome::Done) => return self.unsettled.done.push(leased),
            Ok(Outcome::Archive) => return self.unsettled.archive.push(leased),
            Ok(Outcome::Retry) => retry(wait(), None, None),
            Ok(Outcome::RetryIn(wait)) => retry(wait, None, None),
            Ok(Outcome::DeadLetter(reason)) => retry(Duration::ZERO, None, Some(reason)),
            Err(error) => retry(wait(), Some(error), None),
        };
        self.unsettled.failed.push(failure);
    }

    fn start_statements(&mut self) {
        let now = Instant::now();
        let abort = self
            .ending
            .as_ref()
            .is_some_and(|ending| !ending.aborted && ending.deadline <= now);
        if abort {
            self.running.abort_all();
            if let Some(ending) = &mut self.ending {
                ending.aborted = true;
            }
        }
        while self.ending.is_none() && self.claim_at <= now {
            match self.wanted() {
                0 => break,
                wanted => self.start_claim(wanted),
            }
        }
        let is_few = self.unsettled.is_only_done() && self.unsettled.done.len() < MANY;
        let can_wait = self.claims > 0 && is_few;
        if !self.settling && !self.unsettled.is_empty() && !can_wait && self.settle_at <= now {
            self.start_settling();
        }
        if !self.extending && self.extend_at <= now {
            self.start_extending();
        }
        let mut state = self.board.lock();
        state.tell_below = match self.claims {
            // What was handled is to be settled at once.
            0 => usize::MAX,
            // The next claim is due when this few are left.
            1..CLAIMS => self.capacity() / 2,
            _ => 0,
        };
        // What was handled since stock was taken was not told of yet.
        if !state.handled.is_empty() && state.ready.len() < state.tell_below {
            self.board.news.notify_one();
        }
    }

    /// How long a statement waits for its answer: so that there is time for another before the lease is over.
    fn patience(&self) -> Duration {
        (self.options.lease / 3).clamp(Duration::from_secs(1), PATIENCE)
    }

    fn capacity(&self) -> usize {
        self.options.concurrency + self.pace.ahead(AHEAD).min(self.options.prefetch)
    }

    /// How many messages to claim now; none while there is enough, or on its way.
    fn wanted(&self) -> usize {
        let capacity = self.capacity();
        let held = self.board.lock().held() + self.asked;
        let room = capacity.saturating_sub(held);
        // Not one by one, where many are handled in the time that a claim takes; but a handler that is
        // idle waits for nothing.
        let idle = held < self.options.concurrency;
        if self.claims < CLAIMS && (idle || room > capacity / 3) {
            room.min(capacity.div_ceil(CLAIMS).max(self.options.concurrency))
        } else {
            0
        }
    }

    fn start_claim(&mut self, wanted: usize) {
        self.claims += 1;
        self.asked += wanted;
        let reading = self.store.hints().begin(&self.queue);
        let (store, queue, worker) = (self.store.clone(), self.queue.clone(), self.worker);
        let (lease, patience) = (self.options.lease, self.patience());
        self.statements.spawn(async move {
            let sent = Instant::now();
            let claim = Claim {
                queue: &queue,
                consumer: Some(worker),
                limit: u32::try_from(wanted).unwrap_or(u32::MAX),
                lease,
                from: reading.from,
            };
            let span = telemetry::receive(queue.as_str());
            let result = async {
                let mut lent = store.lend().await?;
                lent.within(patience, async |connection| {
                    messages::claim(connection, &claim).await
                })
                .await
            };
            let result = result.instrument(span.clone()).await;
            match &result {
                Ok(claimed) => telemetry::batch(&span, claimed.messages.len()),
                Err(error) => telemetry::failed(&span, error),
            }
            Statement::Claimed {
                result,
                reading,
                sent,
                limit: wanted,
            }
        });
    }

    fn start_settling(&mut self) {
        self.settling = true;
        let unsettled = mem::take(&mut self.unsettled);
        let (store, patience) = (self.store.clone(), self.patience());
        self.statements.spawn(async move {
            let span = telemetry::settle("settle", None);
            let settling = settle(&store, unsettled, patience);
            let (rest, report, error) = settling.instrument(span.clone()).await;
            if let Some(error) = &error {
                telemetry::failed(&span, error);
            }
            Statement::Settled {
                rest,
                report,
                error,
            }
        });
    }

    fn start_extending(&mut self) {
        let of: Vec<_> = {
            let state = self.board.lock();
            let ready = state.ready.iter().map(|held| held.delivery.lease());
            let at_work = state.at_work.iter().map(|(_, work)| &work.lease);
            ready
                .chain(at_work)
                .filter(|lease| !lease.is_settled())
                .cloned()
                .collect()
        };
        if of.is_empty() {
            self.extend_at = Instant::now() + self.options.lease / 3;
            return;
        }
        self.extending = true;
        let (store, lease) = (self.store.clone(), self.options.lease);
        let patience = self.patience();
        self.statements.spawn(async move {
            let sent = Instant::now();
            let leased: Vec<_> = of.iter().map(|lease| lease.leased).collect();
            let result = async {
                let mut lent = store.lend().await?;
                lent.within(patience, async |connection| {
                    messages::extend_all(connection, &leased, lease).await
                })
                .await
            };
            Statement::Extended {
                result: result.await,
                of,
                sent,
            }
        });
    }

    fn ended(&mut self, statement: Result<Statement, JoinError>) {
        match statement {
            Ok(Statement::Claimed {
                result,
                reading,
                sent,
                limit,
            }) => {
                self.claims = self.claims.saturating_sub(1);
                self.asked = self.asked.saturating_sub(limit);
                self.claimed(result, &reading, sent, limit);
            }
            Ok(Statement::Settled {
                rest,
                report,
                error,
            }) => {
                self.settling = false;
                self.report.add(report);
                self.unsettled.append(rest);
                match error {
                    Some(error) => {
                        telemetry::loop_failed("settle", &error);
                        self.settle_at = self.back_off();
                    }
                    None => self.backoff = FIRST_BACKOFF,
                }
            }
            Ok(Statement::Extended { result, of, sent }) => {
                self.extending = false;
                self.extended(result, &of, sent);
            }
            // A statement's task neither panics nor is aborted; and if it did, its leases run out.
            Err(_) => {
                (self.claims, self.asked) = (0, 0);
                (self.settling, self.extending) = (false, false);
            }
        }
    }

    fn claimed(&mut self, result: Result<Claimed>, reading: &Reading, sent: Instant, limit: usize) {
        let claimed = match result {
            Ok(claimed) => claimed,
            Err(error) => return self.claim_failed(error),
        };
        self.backoff = FIRST_BACKOFF;
        self.store.hints().end(
            &self.queue,
            reading,
            claimed.now,
            claimed.took,
            &claimed.messages,
            claimed.full,
        );
        // A claim that found less than there was room for has found all.
        let all = !claimed.full && claimed.messages.len() < limit;
        // Unless something was hinted at meanwhile.
        if all && self.claim_at <= sent {
            self.claim_at = Instant::now() + self.options.poll_interval;
        }
        let until = sent + self.options.lease;
        let mut state = self.board.lock();
        for message in claimed.messages {
            let decode = |json: &str| serde_json::from_str(json);
            let delivery = Delivery::new(message, decode, self.store.clone(), self.options.retry);
            match delivery.payload() {
                Ok(_) => state.ready.push_back(Held { delivery, until }),
                Err(error) => self.unsettled.failed.push(Failure {
                    leased: delivery.lease().leased,
                    delay: Duration::ZERO,
                    error: std::error::Error::source(&error).map(ToString::to_string),
                    dead: Some("its payload doesn't decode".to_owned()),
                }),
            }
        }
    }

    fn claim_failed(&mut self, error: Error) {
        match error {
            // Others have stopped it.
            Error::WorkerStopped { .. } => self.end(),
            // Others hold it back, until they let it go on.
            Error::WorkerSuspended { .. } => {
                self.claim_at = Instant::now() + self.options.poll_interval
            }
            Error::NotInstalled
            | Error::SchemaOutdated
            | Error::QueueNotFound { .. }
            | Error::Closed => self.fail(error),
            error => {
                telemetry::loop_failed("claim", &error);
                self.claim_at = self.back_off();
            }
        }
    }

    fn extended(
        &mut self,
        result: Result<Vec<(MessageId, DateTime<Utc>)>>,
        of: &[Arc<Lease>],
        sent: Instant,
    ) {
        let extended: HashMap<_, _> = match result {
            Ok(extended) => extended.into_iter().collect(),
            Err(error) => {
                telemetry::loop_failed("extend", &error);
                // Soon again, while there is still something to extend.
                self.extend_at =
                    Instant::now() + (self.options.lease / 10).min(Duration::from_secs(1));
                return;
            }
        };
        self.extend_at = sent + self.options.lease / 3;
        for lease in of {
            if let Some(until) = extended.get(&lease.leased.id) {
                lease.extended(*until);
            }
        }
        let until = sent + self.options.lease;
        let asked: HashSet<_> = of.iter().map(|lease| lease.leased.id).collect();
        self.board.lock().ready.retain_mut(|held| {
            let id = held.delivery.id();
            if extended.contains_key(&id) {
                held.until = until;
            }
            // What was asked for and not extended is somebody else's.
            extended.contains_key(&id) || !asked.contains(&id)
        });
    }

    /// When to try again. Apart from others who failed at the same time.
    fn back_off(&mut self) -> Instant {
        let wait = self.backoff.mul_f64(0.5 + rand::random::<f64>() / 2.0);
        self.backoff = (self.backoff * 2).min(LONGEST_BACKOFF);
        Instant::now() + wait
    }

    fn next_deadline(&self) -> Instant {
        let mut next = self.extend_at;
        if self.extending {
            next = Instant::now() + PATIENCE;
        }
        if let Some(ending) = &self.ending {
            next = next.min(if ending.aborted {
                ending.deadline + LAST_WORDS
            } else {
                ending.deadline
            });
        } else if self.wanted() > 0 {
            next = next.min(self.claim_at);
        }
        if !self.settling && !self.unsettled.is_empty() && self.claims == 0 {
            next = next.min(self.settle_at);
        }
        next
    }
}

/// How fast messages are handled, of late.
struct Pace {
    since: Instant,
    handled: usize,
    per_second: f64,
}

impl Pace {
    fn new() -> Self {
        Self {
            since: Instant::now(),
            handled: 0,
            per_second: 0.0,
        }
    }

    fn handled(&mut self, messages: usize) {
        self.handled += messages;
        let elapsed = self.since.elapsed();
        if elapsed >= Duration::from_millis(5) {
            let now = self.handled as f64 / elapsed.as_secs_f64();
            self.per_second = (self.per_second + now) / 2.0;
            (self.since, self.handled) = (Instant::now(), 0);
        }
    }

    /// How many are handled in this time.
    fn ahead(&self, time: Duration) -> usize {
        (self.per_second * time.as_secs_f64()) as usize
    }
}
