//! A registered consumer, and what it delivers. For Python's `Consumer` and `Delivery`. The loop is pgqrs's
//! own, with its claims ahead, its leases kept alive and its retries; its handler is a few lines here, which
//! hand each delivery over to Python and wait for Python's verdict.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, Utc};
use pgqrs::{Execute, Outcome, Priority, Queue, QueueName, Report, RetryPolicy, Unsettled, Worker};
use pyo3::{exceptions::PyValueError, prelude::*, types::PyDict};
use serde_json::value::RawValue;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::AbortHandle,
};

use crate::{answer::Mode, engine, errors, process::Here};

/// A payload as it was sent: Python decodes it.
type Raw = Box<RawValue>;

/// What a consumer was registered with.
#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) queue: String,
    pub(crate) hostname: String,
    pub(crate) port: u16,
    pub(crate) prefetch: usize,
    pub(crate) lease: Duration,
    pub(crate) poll_interval: Duration,
    /// First wait, factor, longest wait, jitter.
    pub(crate) retry: (Duration, f64, Duration, f64),
    pub(crate) handler_timeout: Option<Duration>,
    pub(crate) listen: bool,
    pub(crate) heartbeat_interval: Duration,
}

impl Settings {
    async fn register(
        self,
        concurrency: usize,
        store: &pgqrs::Store,
    ) -> pgqrs::Result<pgqrs::Consumer<Raw>> {
        let (first, factor, cap, jitter) = self.retry;
        let retry = RetryPolicy::builder()
            .first(first)
            .factor(factor)
            .cap(cap)
            .jitter(jitter)
            .build();
        let queue = raw(&QueueName::new(self.queue)?);
        let mut builder = pgqrs::consumer(queue)
            .identity(self.hostname, self.port)
            .concurrency(concurrency)
            .prefetch(self.prefetch)
            .lease(self.lease)
            .poll_interval(self.poll_interval)
            .retry(retry)
            .listen(self.listen)
            .heartbeat_interval(self.heartbeat_interval);
        if let Some(timeout) = self.handler_timeout {
            builder = builder.handler_timeout(timeout);
        }
        builder.create(store).await
    }
}

/// A queue whose payloads stay as they are: read as a `Value`, some would not be numbers any more.
fn raw(name: &QueueName) -> Queue<Raw> {
    static NAMES: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    // A queue with a type has its name for ever. There are as many as a program has queues.
    let known = names.get(name.as_str()).copied();
    let known = known.unwrap_or_else(|| String::leak(name.as_str().to_owned()));
    names.insert(known);
    Queue::new(known)
}

/// A registered consumer.
#[pyclass(frozen, module = "pgqrs._pgqrs")]
pub(crate) struct Consumer {
    held: Here<Held>,
    mode: Mode,
}

struct Held {
    store: pgqrs::Store,
    settings: Settings,
    state: Arc<Mutex<State>>,
}

enum State {
    /// Registered, and about to run with this many handlers at once.
    Idle(Box<pgqrs::Consumer<Raw>>, usize),
    /// Changing its registration.
    Starting(pgqrs::ConsumerHandle<Raw>),
    Running(Running),
}

#[derive(Clone)]
struct Running {
    handle: pgqrs::ConsumerHandle<Raw>,
    /// For the one who asks at a time.
    events: Arc<tokio::sync::Mutex<mpsc::UnboundedReceiver<Event>>>,
    outcome: watch::Receiver<Option<pgqrs::Result<Report>>>,
    #[expect(dead_code, reason = "it is for being dropped")]
    task: Arc<AbortOnDrop>,
}

/// Without its consumer, a loop would go on for nobody: its messages come back when the leases run out.
struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What the loop tells Python.
enum Event {
    Delivered(Handed),
    /// The handler of this one was cut off: it took too long, or until the deadline of the end.
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

/// A delivery on its way to Python. Where nobody takes it, since the one who waited for it was cancelled, nobody
/// has failed either: it is delivered again at once.
struct Handed(Option<Delivery>);

impl Drop for Handed {
    fn drop(&mut self) {
        if let Some(delivery) = self.0.take() {
            delivery.give_back();
        }
    }
}

/// The most deliveries that are handed over at once.
const AT_ONCE: usize = 256;

#[pymethods]
impl Consumer {
    /// Begins to receive, with this many deliveries unsettled at once.
    fn start<'py>(
        &self,
        py: Python<'py>,
        concurrency: usize,
        deadline: Duration,
    ) -> PyResult<Bound<'py, PyAny>> {
        let Held {
            store,
            settings,
            state,
        } = self.held.get(py)?;
        let (store, settings, state) = (store.clone(), settings.clone(), Arc::clone(state));
        let (mode, runtime) = (self.mode, engine::handle(py)?);
        self.mode.answer(py, async move {
            let (consumer, registered) = {
                let mut state = lock(&state);
                let State::Idle(consumer, _) = &*state else {
                    // It runs already, or is about to.
                    return Ok(());
                };
                let starting = State::Starting(consumer.handle());
                match std::mem::replace(&mut *state, starting) {
                    State::Idle(consumer, registered) => (consumer, registered),
                    _ => return Ok(()),
                }
            };
            let handle = consumer.handle();
            let consumer = match registered == concurrency {
                true => *consumer,
                // How many it handles at once is fixed when it is registered.
                false => match again(*consumer, settings, concurrency, &store).await {
                    Ok(consumer) => consumer,
                    Err(error) => {
                        let (_, outcome) = watch::channel(Some(Err(error.clone())));
                        let (_, events) = mpsc::unbounded_channel();
                        let ended = runtime.spawn(async {}).abort_handle();
                        *lock(&state) = State::Running(Running {
                            handle,
                            events: Arc::new(events.into()),
                            outcome,
                            task: Arc::new(AbortOnDrop(ended)),
                        });
                        return Err(error);
                    }
                },
            };
            *lock(&state) = State::Running(run(&runtime, consumer, store, deadline, mode));
            Ok(())
        })
    }

    /// What has happened since: deliveries, and tickets of those that were cut off. Empty at the end.
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

    /// Lets it come to its end. Returns at once.
    fn stop(&self, py: Python<'_>) -> PyResult<()> {
        self.handle(py)?.stop();
        Ok(())
    }

    /// Waits for the end, and gives the report.
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

    /// Waits for the end, for this long at most.
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

    /// Its key.
    #[getter]
    fn id(&self, py: Python<'_>) -> PyResult<i64> {
        Ok(self.handle(py)?.id().get())
    }

    /// Says that it lives.
    fn heartbeat<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let handle = self.handle(py)?;
        self.mode
            .answer(py, async move { handle.heartbeat().await })
    }

    /// Holds it back.
    fn suspend<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let handle = self.handle(py)?;
        self.mode.answer(py, async move { handle.suspend().await })
    }

    /// Lets it go on.
    fn resume<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let handle = self.handle(py)?;
        self.mode.answer(py, async move { handle.resume().await })
    }

    /// Ends it.
    fn shutdown<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let handle = self.handle(py)?;
        self.mode.answer(py, async move { handle.shutdown().await })
    }

    /// Its state.
    fn status<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let handle = self.handle(py)?;
        self.mode
            .answer(py, async move { Ok(handle.status().await?.as_str()) })
    }

    /// Whether it was heard of within this time.
    fn is_healthy<'py>(&self, py: Python<'py>, max_age: Duration) -> PyResult<Bound<'py, PyAny>> {
        let handle = self.handle(py)?;
        self.mode
            .answer(py, async move { handle.is_healthy(max_age).await })
    }
}

impl Consumer {
    pub(crate) async fn register(
        settings: Settings,
        concurrency: usize,
        store: pgqrs::Store,
        mode: Mode,
    ) -> pgqrs::Result<Self> {
        let consumer = settings.clone().register(concurrency, &store).await?;
        let state = State::Idle(Box::new(consumer), concurrency);
        Ok(Self {
            held: Here::new(Held {
                store,
                settings,
                state: Arc::new(Mutex::new(state)),
            }),
            mode,
        })
    }

    fn handle(&self, py: Python<'_>) -> PyResult<pgqrs::ConsumerHandle<Raw>> {
        Ok(match &*lock(&self.held.get(py)?.state) {
            State::Idle(consumer, _) => consumer.handle(),
            State::Starting(handle) | State::Running(Running { handle, .. }) => handle.clone(),
        })
    }

    fn running(&self, py: Python<'_>) -> PyResult<Option<Running>> {
        Ok(match &*lock(&self.held.get(py)?.state) {
            State::Running(running) => Some(running.clone()),
            State::Idle(..) | State::Starting(_) => None,
        })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The same consumer, registered anew with another concurrency.
async fn again(
    consumer: pgqrs::Consumer<Raw>,
    settings: Settings,
    concurrency: usize,
    store: &pgqrs::Store,
) -> pgqrs::Result<pgqrs::Consumer<Raw>> {
    if consumer.status().await? != pgqrs::WorkerStatus::Ready {
        // Whoever has suspended or stopped it has meant it.
        return Ok(consumer);
    }
    consumer.shutdown().await?;
    settings.register(concurrency, store).await
}

/// Starts the loop.
fn run(
    runtime: &tokio::runtime::Handle,
    consumer: pgqrs::Consumer<Raw>,
    store: pgqrs::Store,
    deadline: Duration,
    mode: Mode,
) -> Running {
    let handle = consumer.handle();
    let (tell, events) = mpsc::unbounded_channel();
    let (end, outcome) = watch::channel(None);
    let tickets = AtomicU64::new(0);
    let handler = move |delivery: pgqrs::Delivery<Raw>| {
        let ticket = tickets.fetch_add(1, Ordering::Relaxed);
        let (verdict, told) = oneshot::channel();
        let handed = Delivery::new(ticket, delivery, verdict, store.clone(), mode);
        let cut_off = CutOff {
            ticket,
            tell: Some(tell.clone()),
        };
        async move {
            let mut cut_off = cut_off;
            if let Some(tell) = &cut_off.tell {
                // Where nobody listens any more, it comes back, and is told as unsettled.
                let _ = tell.send(Event::Delivered(Handed(Some(handed))));
            }
            let verdict = told.await;
            cut_off.tell = None;
            verdict.unwrap_or_else(|_| Err("let go of without being settled".to_owned()))
        }
    };
    let running = consumer.run(handler).shutdown_deadline(deadline);
    let task = runtime.spawn(async move {
        let outcome = running.await;
        end.send_replace(Some(outcome));
    });
    Running {
        handle,
        events: Arc::new(tokio::sync::Mutex::new(events)),
        outcome,
        task: Arc::new(AbortOnDrop(task.abort_handle())),
    }
}

/// Tells of a handler that is dropped before it has its verdict.
struct CutOff {
    ticket: u64,
    tell: Option<mpsc::UnboundedSender<Event>>,
}

impl Drop for CutOff {
    fn drop(&mut self) {
        if let Some(tell) = &self.tell {
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
        Ok(counts)
    }
}

type Verdict = Result<Outcome, String>;

/// A message that is leased to this process. Its lease is kept alive until it is settled, or let go of.
#[pyclass(frozen, module = "pgqrs._pgqrs")]
pub(crate) struct Delivery {
    ticket: u64,
    held: Here<HeldDelivery>,
    mode: Mode,
}

struct HeldDelivery {
    about: About,
    store: pgqrs::Store,
    /// Not there once it is settled. Locked while a statement about it is under way.
    delivery: Arc<tokio::sync::Mutex<Option<pgqrs::Delivery<Raw>>>>,
    /// Whether it is settled, or is being settled.
    settled: Arc<AtomicBool>,
    /// What the loop waits for.
    verdict: Arc<Mutex<Option<oneshot::Sender<Verdict>>>>,
}

/// What stays when it is settled.
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
    /// Which of the loop's deliveries this is.
    #[getter]
    fn ticket(&self) -> u64 {
        self.ticket
    }

    /// The message's key.
    #[getter]
    fn id(&self, py: Python<'_>) -> PyResult<i64> {
        Ok(self.held.get(py)?.about.id)
    }

    /// The payload as it was sent.
    #[getter]
    fn raw_payload(&self, py: Python<'_>) -> PyResult<String> {
        Ok(self.held.get(py)?.about.payload.clone())
    }

    /// What was sent along, as JSON.
    #[getter]
    fn headers(&self, py: Python<'_>) -> PyResult<Option<String>> {
        Ok(self.held.get(py)?.about.headers.clone())
    }

    /// Its priority.
    #[getter]
    fn priority(&self, py: Python<'_>) -> PyResult<&'static str> {
        Ok(self.held.get(py)?.about.priority)
    }

    /// Which delivery of the message this is.
    #[getter]
    fn attempt(&self, py: Python<'_>) -> PyResult<u32> {
        Ok(self.held.get(py)?.about.attempt)
    }

    /// When the message was enqueued.
    #[getter]
    fn enqueued_at(&self, py: Python<'_>) -> PyResult<DateTime<Utc>> {
        Ok(self.held.get(py)?.about.enqueued_at)
    }

    /// When the lease runs out; none where it is settled, or a statement about it is under way.
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

    /// Says that it is done.
    fn ack<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.settle(py, |delivery, store| delivery.try_ack(store))
    }

    /// Says that it is done, and keeps it.
    fn archive<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.settle(py, |delivery, store| delivery.try_archive(store))
    }

    /// Says that this attempt failed: again after this wait, or by the consumer's policy.
    fn nack<'py>(&self, py: Python<'py>, delay: Option<Duration>) -> PyResult<Bound<'py, PyAny>> {
        self.settle(py, move |delivery, store| match delay {
            Some(delay) => delivery.try_retry_in(delay, store),
            None => delivery.try_nack(store),
        })
    }

    /// Says that it can't be handled.
    fn dead_letter<'py>(&self, py: Python<'py>, reason: String) -> PyResult<Bound<'py, PyAny>> {
        self.settle(py, move |delivery, store| {
            delivery.try_dead_letter(reason, store)
        })
    }

    /// Lets the lease run this long from now on.
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

    /// Tells the loop how it went. It settles in batches, and nothing happens where it is settled already.
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
            ("failed", _) => Err(reason),
            (other, _) => return Err(PyValueError::new_err(format!("{other:?} is no outcome"))),
        };
        if !held.settled.swap(true, Ordering::AcqRel)
            && let Some(tell) = lock(&held.verdict).take()
        {
            // The loop may have come to its end.
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
            }),
            mode,
        }
    }

    fn give_back(&self) {
        let Some(held) = self.held.here() else {
            return;
        };
        if let Some(tell) = lock(&held.verdict).take() {
            let _ = tell.send(Ok(Outcome::RetryIn(Duration::ZERO)));
        }
    }

    /// Settles it by itself, at once.
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
                // The delivery knows that it is settled, so the loop only goes on.
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
