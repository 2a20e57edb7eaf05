//! A registered consumer and its deliveries, for Python's `Consumer` and `Delivery`. The loop is that of pgqrs, with
//! its prefetching, lease extensions and retries; its handler is a few lines here, which pass each delivery to Python
//! and wait for Python's verdict.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, AtomicU64, Ordering},
};
use std::{future::pending, time::Duration};

use chrono::{DateTime, Utc};
use pgqrs::{Execute, Outcome, Priority, Queue, Report, RetryPolicy, Unsettled, Worker};
use pyo3::{exceptions::PyValueError, prelude::*, types::PyDict};
use serde_json::value::RawValue;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::AbortHandle,
    time::{Instant, sleep, sleep_until, timeout},
};

use crate::{answer::Mode, engine, errors, process::Here};

/// A payload as it was sent, byte for byte, for Python to decode. Decoded as a `Value`, some payloads would have other
/// numbers.
type Raw = Box<RawValue>;

/// The arguments of a registration.
pub(crate) struct Registration {
    pub(crate) queue: String,
    /// The host and the port; anonymous without them.
    pub(crate) identity: Option<(String, u16)>,
    pub(crate) heartbeat_interval: Duration,
    pub(crate) replace: bool,
}

/// Options of a run.
pub(crate) struct Settings {
    concurrency: usize,
    prefetch: usize,
    prefetch_bytes: usize,
    lease: Duration,
    poll_interval: Duration,
    /// First delay, factor, maximum delay, jitter.
    retry: (Duration, f64, Duration, f64),
    handler_timeout: Option<Duration>,
    listen: bool,
    shutdown_deadline: Duration,
}

impl Settings {
    fn apply(&self, run: pgqrs::Run) -> pgqrs::Run {
        let (first, factor, cap, jitter) = self.retry;
        let retry = RetryPolicy::builder()
            .first(first)
            .factor(factor)
            .cap(cap)
            .jitter(jitter)
            .build();
        run.concurrency(self.concurrency)
            .prefetch(self.prefetch)
            .prefetch_bytes(self.prefetch_bytes)
            .lease(self.lease)
            .poll_interval(self.poll_interval)
            .retry(retry)
            .listen(self.listen)
            .shutdown_deadline(self.shutdown_deadline)
    }

    /// How long after the stop request deliveries whose handlers have not started are released: a little before the
    /// loop aborts all of them, which would use their attempts.
    fn give_back_after(&self) -> Duration {
        let deadline = self.shutdown_deadline;
        let final_part = (deadline / 2).min(Duration::from_secs(5));
        let margin = (deadline / 20).min(Duration::from_millis(250));
        // Far beyond any use, but within the range of an instant.
        (deadline - final_part - margin).min(Duration::from_secs(365 * 24 * 60 * 60))
    }
}

/// A registered consumer.
#[pyclass(frozen, module = "pgqrs._pgqrs")]
pub(crate) struct Consumer {
    held: Here<Held>,
    mode: Mode,
}

struct Held {
    store: pgqrs::Store,
    handle: pgqrs::ConsumerHandle<Raw>,
    /// The stop request. Each running handler listens for it.
    stop: Arc<watch::Sender<Stop>>,
    state: Mutex<State>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stop {
    No,
    /// By this time.
    Graceful(Instant),
    Abort,
}

struct State {
    /// Until it runs.
    idle: Option<pgqrs::Consumer<Raw>>,
    /// Once it runs.
    running: Option<Running>,
}

#[derive(Clone)]
struct Running {
    /// Locked by one caller at a time.
    events: Arc<tokio::sync::Mutex<mpsc::UnboundedReceiver<Event>>>,
    outcome: watch::Receiver<Option<pgqrs::Result<Report>>>,
    #[expect(dead_code, reason = "it is for being dropped")]
    task: Arc<AbortOnDrop>,
}

/// Without its consumer, a loop would run without a handler: its messages come back when the leases run out.
struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// An event of the loop, for Python.
enum Event {
    Delivered(Handed),
    /// The loop has given up this delivery: its handler took too long, or the consumer ends.
    CutOff(u64),
}

impl<'py> IntoPyObject<'py> for Event {
    type Target = PyAny;
    type Output = Bound<'py, PyAny>;
    type Error = PyErr;

    fn into_pyobject(self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        match self {
            Self::Delivered(mut handed) => match handed.0.take() {
                Some(delivery) => Ok(Bound::new(py, delivery)?.into_any()),
                None => Ok(py.None().into_bound(py)),
            },
            Self::CutOff(ticket) => Ok(ticket.into_pyobject(py)?.into_any()),
        }
    }
}

/// A delivery in transit to Python. If it isn't taken, since the waiting caller was cancelled, it is delivered again at
/// once.
struct Handed(Option<Delivery>);

impl Drop for Handed {
    fn drop(&mut self) {
        if let Some(delivery) = self.0.take() {
            delivery.give_back();
        }
    }
}

/// Maximum number of deliveries returned to Python at once.
const AT_ONCE: usize = 256;

/// How long an abort waits at most until all handlers have released their deliveries.
const GIVING_BACK: Duration = Duration::from_secs(1);

#[pymethods]
impl Consumer {
    /// Starts receiving. Does nothing if it is running already, or has run.
    #[pyo3(signature = (
        *, concurrency, prefetch, prefetch_bytes, lease, poll_interval, retry, handler_timeout, listen,
        shutdown_deadline
    ))]
    #[expect(
        clippy::too_many_arguments,
        reason = "each is named where it is called"
    )]
    fn start(
        &self,
        py: Python<'_>,
        concurrency: usize,
        prefetch: usize,
        prefetch_bytes: usize,
        lease: Duration,
        poll_interval: Duration,
        retry: (Duration, f64, Duration, f64),
        handler_timeout: Option<Duration>,
        listen: bool,
        shutdown_deadline: Duration,
    ) -> PyResult<()> {
        let settings = Settings {
            concurrency,
            prefetch,
            prefetch_bytes,
            lease,
            poll_interval,
            retry,
            handler_timeout,
            listen,
            shutdown_deadline,
        };
        let runtime = engine::handle(py)?;
        self.held.get(py)?.start(&runtime, settings, self.mode);
        Ok(())
    }

    /// Returns the events since the last call: deliveries, and tickets of those that were given up. Empty at the end.
    fn next<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let running = self.running(py)?;
        self.mode.answer(py, async move {
            let mut events = Vec::new();
            if let Some(Running { events: from, .. }) = running {
                from.lock().await.recv_many(&mut events, AT_ONCE).await;
            }
            Ok(events)
        })
    }

    /// Requests a graceful stop. Returns at once.
    fn stop(&self, py: Python<'_>) -> PyResult<()> {
        self.held.get(py)?.stop();
        Ok(())
    }

    /// Ends the run without waiting for handlers: all messages that it holds are released. Returns at once.
    fn abort(&self, py: Python<'_>) -> PyResult<()> {
        let runtime = engine::handle(py)?;
        let held = self.held.get(py)?;
        held.stop();
        held.stop.send_replace(Stop::Abort);
        let (stop, handle) = (Arc::clone(&held.stop), held.handle.clone());
        runtime.spawn(async move {
            // First the deliveries that are released without an attempt being used.
            let _ = timeout(GIVING_BACK, stop.closed()).await;
            handle.abort();
        });
        Ok(())
    }

    /// Waits for the end, and returns the report.
    fn report<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let running = self.running(py)?;
        self.mode.answer(py, async move {
            let Some(Running { mut outcome, .. }) = running else {
                return Ok(Counts(Report::default()));
            };
            let ended = outcome.wait_for(Option::is_some).await;
            let report = ended.map_or(Ok(Report::default()), |outcome| {
                outcome.clone().unwrap_or(Ok(Report::default()))
            });
            Ok(Counts(report?))
        })
    }

    /// Waits for the end, at most for this time.
    fn ended<'py>(&self, py: Python<'py>, limit: Duration) -> PyResult<Bound<'py, PyAny>> {
        let running = self.running(py)?;
        self.mode.answer(py, async move {
            if let Some(Running { mut outcome, .. }) = running {
                let ended = outcome.wait_for(Option::is_some);
                let _ = tokio::time::timeout(limit, ended).await;
            }
            Ok(())
        })
    }

    /// The host that it was registered with.
    #[getter]
    fn hostname(&self, py: Python<'_>) -> PyResult<String> {
        Ok(self.handle(py)?.hostname().to_owned())
    }

    /// The port that it was registered with.
    #[getter]
    fn port(&self, py: Python<'_>) -> PyResult<u16> {
        Ok(self.handle(py)?.port())
    }

    /// The worker's id.
    #[getter]
    fn id(&self, py: Python<'_>) -> PyResult<i64> {
        Ok(self.handle(py)?.id().get())
    }

    /// Sends a heartbeat.
    fn heartbeat<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let handle = self.handle(py)?;
        self.mode
            .answer(py, async move { handle.heartbeat().await })
    }

    /// Suspends the worker.
    fn suspend<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let handle = self.handle(py)?;
        self.mode.answer(py, async move { handle.suspend().await })
    }

    /// Resumes the worker.
    fn resume<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let handle = self.handle(py)?;
        self.mode.answer(py, async move { handle.resume().await })
    }

    /// Shuts the worker down.
    fn shutdown<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let handle = self.handle(py)?;
        self.mode.answer(py, async move { handle.shutdown().await })
    }

    /// The worker's state.
    fn status<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let handle = self.handle(py)?;
        self.mode
            .answer(py, async move { Ok(handle.status().await?.as_str()) })
    }

    /// Whether its last heartbeat is within this time.
    fn is_healthy<'py>(&self, py: Python<'py>, max_age: Duration) -> PyResult<Bound<'py, PyAny>> {
        let handle = self.handle(py)?;
        self.mode
            .answer(py, async move { handle.is_healthy(max_age).await })
    }
}

impl Consumer {
    pub(crate) async fn register(
        registration: Registration,
        store: pgqrs::Store,
        mode: Mode,
    ) -> pgqrs::Result<Self> {
        let mut builder = pgqrs::consumer(Queue::<Raw>::named(registration.queue)?)
            .heartbeat_interval(registration.heartbeat_interval)
            .replace(registration.replace);
        if let Some((hostname, port)) = registration.identity {
            builder = builder.identity(hostname, port);
        }
        let consumer = builder.create(&store).await?;
        Ok(Self {
            held: Here::new(Held {
                store,
                handle: consumer.handle(),
                stop: Arc::new(watch::Sender::new(Stop::No)),
                state: Mutex::new(State {
                    idle: Some(consumer),
                    running: None,
                }),
            }),
            mode,
        })
    }

    fn handle(&self, py: Python<'_>) -> PyResult<pgqrs::ConsumerHandle<Raw>> {
        Ok(self.held.get(py)?.handle.clone())
    }

    fn running(&self, py: Python<'_>) -> PyResult<Option<Running>> {
        Ok(lock(&self.held.get(py)?.state).running.clone())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Held {
    fn stop(&self) {
        self.stop.send_if_modified(|stop| {
            let is_first = matches!(stop, Stop::No);
            if is_first {
                *stop = Stop::Graceful(Instant::now());
            }
            is_first
        });
        self.handle.stop();
    }

    fn start(&self, runtime: &tokio::runtime::Handle, settings: Settings, mode: Mode) {
        let mut state = lock(&self.state);
        let Some(consumer) = state.idle.take() else {
            return;
        };
        let (tell, events) = mpsc::unbounded_channel();
        let (end, outcome) = watch::channel(None);
        let run = self.run(consumer, settings, tell, mode);
        let task = runtime.spawn(async move {
            let outcome = run.await;
            end.send_replace(Some(outcome));
        });
        state.running = Some(Running {
            events: Arc::new(events.into()),
            outcome,
            task: Arc::new(AbortOnDrop(task.abort_handle())),
        });
    }

    /// Runs the loop, whose handlers pass each delivery to Python and wait for Python's verdict.
    fn run(
        &self,
        consumer: pgqrs::Consumer<Raw>,
        settings: Settings,
        tell: mpsc::UnboundedSender<Event>,
        mode: Mode,
    ) -> pgqrs::Run {
        let tickets = AtomicU64::new(0);
        let (store, stop) = (self.store.clone(), Arc::clone(&self.stop));
        let limit = settings.handler_timeout;
        let give_back_after = settings.give_back_after();
        let run = consumer.run(move |delivery: pgqrs::Delivery<Raw>| {
            let ticket = tickets.fetch_add(1, Ordering::Relaxed);
            let (verdict, returned) = oneshot::channel();
            let stage = Arc::new(watch::Sender::new(Stage::Waiting));
            let own = Arc::clone(&stage);
            let handed = Delivery::new(ticket, delivery, verdict, own, store.clone(), mode);
            let mut cut_off = CutOff {
                ticket,
                tell: Some(tell.clone()),
                stage: Arc::clone(&stage),
            };
            let stop = stop.subscribe();
            async move {
                if let Some(tell) = &cut_off.tell {
                    // If Python no longer listens, the delivery is released.
                    let _ = tell.send(Event::Delivered(Handed(Some(handed))));
                }
                tokio::select! {
                    biased;
                    verdict = returned => {
                        cut_off.is_settled();
                        verdict.unwrap_or_else(|_| let_go_of(&stage))
                    }
                    verdict = over_limit(limit, stage.subscribe()) => verdict,
                    () = given_back(stop, give_back_after, &stage) => Ok(Outcome::Release),
                }
            }
        });
        settings.apply(run)
    }
}

/// The state of a delivery's handler.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Python has not called it yet.
    Waiting,
    Begun,
    /// The loop has given up the delivery: the handler must not start any more.
    Over,
}

/// Moves from one stage to another, unless it is in a third one.
fn advance(stage: &watch::Sender<Stage>, from: Stage, to: Stage) -> bool {
    stage.send_if_modified(|stage| {
        let is_from = *stage == from;
        if is_from {
            *stage = to;
        }
        is_from
    })
}

/// Python has dropped the delivery.
fn let_go_of(stage: &watch::Sender<Stage>) -> Verdict {
    if *stage.borrow() == Stage::Begun {
        Err("let go of without being settled".to_owned())
    } else {
        Ok(Outcome::Release)
    }
}

/// Ready when the handler has run for too long. The time limit starts with the handler's first step: while it is queued
/// in an event loop, or for a thread, it can't have failed.
async fn over_limit(limit: Option<Duration>, mut stage: watch::Receiver<Stage>) -> Verdict {
    let begun = stage.wait_for(|stage| *stage == Stage::Begun).await.is_ok();
    match limit {
        Some(limit) if begun => {
            sleep(limit).await;
            Err(format!("the handler was cut off after {limit:?}"))
        }
        _ => pending().await,
    }
}

/// Ready when a delivery is to be released: at once if the consumer is aborted; if it was stopped and the handler has
/// not started, shortly before the loop aborts it.
async fn given_back(stop: watch::Receiver<Stop>, after: Duration, stage: &watch::Sender<Stage>) {
    let mut aborted = stop.clone();
    let aborted = aborted.wait_for(|stop| *stop == Stop::Abort);
    let not_begun = async move {
        let mut stop = stop;
        let stopped = stop.wait_for(|stop| *stop != Stop::No).await;
        let Ok(Stop::Graceful(at)) = stopped.map(|stop| *stop) else {
            return pending().await;
        };
        sleep_until(at + after).await;
        if !advance(stage, Stage::Waiting, Stage::Over) {
            pending().await
        }
    };
    tokio::select! {
        _ = aborted => {}
        () = not_begun => {}
    }
}

/// Reports a handler that is dropped, or aborted, before Python has settled its delivery.
struct CutOff {
    ticket: u64,
    tell: Option<mpsc::UnboundedSender<Event>>,
    stage: Arc<watch::Sender<Stage>>,
}

impl CutOff {
    fn is_settled(&mut self) {
        self.tell = None;
    }
}

impl Drop for CutOff {
    fn drop(&mut self) {
        if let Some(tell) = &self.tell {
            self.stage.send_replace(Stage::Over);
            let _ = tell.send(Event::CutOff(self.ticket));
        }
    }
}

/// A report, as a dictionary.
struct Counts(Report);

impl<'py> IntoPyObject<'py> for Counts {
    type Target = PyDict;
    type Output = Bound<'py, PyDict>;
    type Error = PyErr;

    fn into_pyobject(self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let counts = PyDict::new(py);
        counts.set_item("done", self.0.done)?;
        counts.set_item("archived", self.0.archived)?;
        counts.set_item("retried", self.0.retried)?;
        counts.set_item("dead", self.0.dead)?;
        counts.set_item("released", self.0.released)?;
        counts.set_item("lost", self.0.lost)?;
        counts.set_item("unknown", self.0.unknown)?;
        Ok(counts)
    }
}

type Verdict = Result<Outcome, String>;

/// A message that is leased to this process. Its lease is extended until it is settled, or dropped.
#[pyclass(frozen, module = "pgqrs._pgqrs")]
pub(crate) struct Delivery {
    ticket: u64,
    held: Here<HeldDelivery>,
    mode: Mode,
}

struct HeldDelivery {
    about: About,
    store: pgqrs::Store,
    /// `None` once it is settled. Locked while a statement about it is under way.
    delivery: Arc<tokio::sync::Mutex<Option<pgqrs::Delivery<Raw>>>>,
    /// Whether it is settled, or is being settled.
    settled: Arc<AtomicBool>,
    /// The channel for the verdict that the loop waits for.
    verdict: Arc<Mutex<Option<oneshot::Sender<Verdict>>>>,
    stage: Arc<watch::Sender<Stage>>,
}

/// What remains available after it is settled.
struct About {
    id: i64,
    payload: String,
    headers: Option<String>,
    priority: &'static str,
    attempt: u32,
    enqueued_at: DateTime<Utc>,
}

#[pymethods]
impl Delivery {
    /// The ticket of this delivery in the loop.
    #[getter]
    fn ticket(&self) -> u64 {
        self.ticket
    }

    /// The message's id.
    #[getter]
    fn id(&self, py: Python<'_>) -> PyResult<i64> {
        Ok(self.held.get(py)?.about.id)
    }

    /// The payload as it was sent.
    #[getter]
    fn raw_payload(&self, py: Python<'_>) -> PyResult<String> {
        Ok(self.held.get(py)?.about.payload.clone())
    }

    /// The headers, as JSON.
    #[getter]
    fn headers(&self, py: Python<'_>) -> PyResult<Option<String>> {
        Ok(self.held.get(py)?.about.headers.clone())
    }

    /// Its priority.
    #[getter]
    fn priority(&self, py: Python<'_>) -> PyResult<&'static str> {
        Ok(self.held.get(py)?.about.priority)
    }

    /// The attempt: 1 for the first delivery of the message.
    #[getter]
    fn attempt(&self, py: Python<'_>) -> PyResult<u32> {
        Ok(self.held.get(py)?.about.attempt)
    }

    /// When the message was enqueued.
    #[getter]
    fn enqueued_at(&self, py: Python<'_>) -> PyResult<DateTime<Utc>> {
        Ok(self.held.get(py)?.about.enqueued_at)
    }

    /// When the lease runs out; `None` if it is settled, or if a statement about it is under way.
    #[getter]
    fn lease_expires_at(&self, py: Python<'_>) -> PyResult<Option<DateTime<Utc>>> {
        let held = self.held.get(py)?;
        let delivery = held.delivery.try_lock();
        Ok(delivery
            .ok()
            .and_then(|delivery| delivery.as_ref().map(pgqrs::Delivery::lease_expires_at)))
    }

    /// Whether it is settled, or is being settled.
    #[getter]
    fn is_settled(&self, py: Python<'_>) -> PyResult<bool> {
        Ok(self.held.get(py)?.settled.load(Ordering::Acquire))
    }

    /// Acknowledges the message.
    fn ack<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.settle(py, |delivery, store| delivery.try_ack(store))
    }

    /// Archives the message.
    fn archive<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.settle(py, |delivery, store| delivery.try_archive(store))
    }

    /// Fails this attempt: the message is retried after this delay, or by the consumer's policy.
    fn nack<'py>(&self, py: Python<'py>, delay: Option<Duration>) -> PyResult<Bound<'py, PyAny>> {
        self.settle(py, move |delivery, store| match delay {
            Some(delay) => delivery.try_retry_in(delay, store),
            None => delivery.try_nack(store),
        })
    }

    /// Makes the message a dead letter.
    fn dead_letter<'py>(&self, py: Python<'py>, reason: String) -> PyResult<Bound<'py, PyAny>> {
        self.settle(py, move |delivery, store| {
            delivery.try_dead_letter(reason, store)
        })
    }

    /// Extends the lease to this duration from now on.
    fn extend<'py>(&self, py: Python<'py>, lease: Duration) -> PyResult<Bound<'py, PyAny>> {
        let held = self.held.get(py)?;
        let message = held.about.id;
        if held.settled.load(Ordering::Acquire) {
            return Err(errors::already_settled(py, message));
        }
        let delivery = Arc::clone(&held.delivery);
        self.mode.answer(py, async move {
            match &*delivery.lock().await {
                Some(delivery) => delivery.extend(lease).await,
                // It was settled a moment ago.
                None => Err(pgqrs::Error::LeaseLost {
                    message: message.into(),
                }),
            }
        })
    }

    /// Starts the handler's time limit; `false` if the handler must not start, since the loop has given up the
    /// delivery.
    fn begin(&self, py: Python<'_>) -> PyResult<bool> {
        let held = self.held.get(py)?;
        Ok(advance(&held.stage, Stage::Waiting, Stage::Begun))
    }

    /// Reports the handler's outcome to the loop, which settles in batches. Does nothing if the delivery is settled
    /// already.
    #[pyo3(signature = (outcome, delay=None, reason=None))]
    fn finish(
        &self,
        py: Python<'_>,
        outcome: &str,
        delay: Option<Duration>,
        reason: Option<String>,
    ) -> PyResult<()> {
        let held = self.held.get(py)?;
        let reason = reason.unwrap_or_default();
        let verdict = match (outcome, delay) {
            ("done", _) => Ok(Outcome::Done),
            ("archive", _) => Ok(Outcome::Archive),
            ("retry", Some(delay)) => Ok(Outcome::RetryIn(delay)),
            ("retry", None) => Ok(Outcome::Retry),
            ("dead_letter", _) => Ok(Outcome::DeadLetter(reason)),
            ("release", _) => Ok(Outcome::Release),
            ("failed", _) => Err(reason),
            (other, _) => return Err(PyValueError::new_err(format!("{other:?} is no outcome"))),
        };
        if !held.settled.swap(true, Ordering::AcqRel)
            && let Some(tell) = lock(&held.verdict).take()
        {
            // The loop may have ended.
            let _ = tell.send(verdict);
        }
        Ok(())
    }
}

impl Delivery {
    fn new(
        ticket: u64,
        delivery: pgqrs::Delivery<Raw>,
        verdict: oneshot::Sender<Verdict>,
        stage: Arc<watch::Sender<Stage>>,
        store: pgqrs::Store,
        mode: Mode,
    ) -> Self {
        let about = About {
            id: delivery.id().get(),
            payload: delivery.raw_payload().to_owned(),
            headers: delivery.headers().map(|headers| headers.get().to_owned()),
            priority: priority_name(delivery.priority()),
            attempt: delivery.attempt(),
            enqueued_at: delivery.enqueued_at(),
        };
        Self {
            ticket,
            held: Here::new(HeldDelivery {
                about,
                store,
                delivery: Arc::new(Some(delivery).into()),
                settled: Arc::default(),
                verdict: Arc::new(Mutex::new(Some(verdict))),
                stage,
            }),
            mode,
        }
    }

    fn give_back(&self) {
        let Some(held) = self.held.here() else {
            return;
        };
        if let Some(tell) = lock(&held.verdict).take() {
            let _ = tell.send(Ok(Outcome::Release));
        }
    }

    /// Settles the delivery itself, at once.
    fn settle<'py, F>(&self, py: Python<'py>, verb: F) -> PyResult<Bound<'py, PyAny>>
    where
        F: for<'a> FnOnce(
                pgqrs::Delivery<Raw>,
                &'a pgqrs::Store,
            ) -> Execute<'a, Result<(), Unsettled<Raw>>>
            + Send
            + 'static,
    {
        let held = self.held.get(py)?;
        if held.settled.swap(true, Ordering::AcqRel) {
            return Err(errors::already_settled(py, held.about.id));
        }
        let (store, message) = (held.store.clone(), held.about.id);
        let (delivery, settled) = (Arc::clone(&held.delivery), Arc::clone(&held.settled));
        let verdict = Arc::clone(&held.verdict);
        self.mode.answer(py, async move {
            let mut place = delivery.lock().await;
            let Some(held) = place.take() else {
                return Err(pgqrs::Error::LeaseLost {
                    message: message.into(),
                });
            };
            if let Err(unsettled) = verb(held, &store).await {
                let error = unsettled.error().clone();
                *place = Some(unsettled.into_delivery());
                settled.store(false, Ordering::Release);
                return Err(error);
            }
            if let Some(tell) = lock(&verdict).take() {
                // The delivery knows that it is settled, so the loop only continues.
                let _ = tell.send(Ok(Outcome::Done));
            }
            Ok(())
        })
    }
}

pub(crate) fn priority_name(priority: Priority) -> &'static str {
    match priority {
        Priority::Urgent => "urgent",
        Priority::High => "high",
        Priority::Normal => "normal",
        Priority::Low => "low",
    }
}
