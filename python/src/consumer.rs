//! A registered consumer and its deliveries, for Python's `Consumer` and `Delivery`. The loop is that of pgqrs, with
//! its prefetching, lease extensions and retries; its handler is a few lines here, which pass each delivery to Python
//! and wait for Python's verdict.

mod ack_statement;
mod chunk;
mod delivery;
mod settings;
mod stage;

use std::{
    future::Future,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use pgqrs::{Outcome, Queue, Report, Worker};
use pyo3::{prelude::*, types::PyDict};
use serde_json::value::RawValue;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::AbortHandle,
    time::{Instant, timeout},
};

use self::stage::{CutOff, Stage, dropped_unsettled, over_limit, release_due};
pub(crate) use self::{
    ack_statement::AckStatement,
    chunk::Chunk,
    delivery::{Delivery, priority_name, texts},
    settings::Settings,
};
use crate::{answer::Mode, engine, process::Here};

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
    Delivered(Box<Handed>),
    /// The loop has abandoned this delivery: its handler took too long, or the consumer ends.
    CutOff(u64),
}

impl<'py> IntoPyObject<'py> for Event {
    type Target = PyAny;
    type Output = Bound<'py, PyAny>;
    type Error = PyErr;

    fn into_pyobject(self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        match self {
            Self::Delivered(mut handed) => match handed.0.take() {
                Some(Call::Delivery(delivery)) => Ok(Bound::new(py, delivery)?.into_any()),
                Some(Call::Chunk(chunk)) => Ok(Bound::new(py, chunk)?.into_any()),
                None => Ok(py.None().into_bound(py)),
            },
            Self::CutOff(ticket) => Ok(ticket.into_pyobject(py)?.into_any()),
        }
    }
}

/// A delivery in transit to Python. If it isn't taken, since the waiting caller was cancelled, it is delivered again at
/// once.
struct Handed(Option<Call>);

/// What a handler is called with.
enum Call {
    Delivery(Delivery),
    Chunk(Chunk),
}

impl Drop for Handed {
    fn drop(&mut self) {
        match self.0.take() {
            Some(Call::Delivery(delivery)) => delivery.release(),
            Some(Call::Chunk(chunk)) => chunk.release(),
            None => {}
        }
    }
}

/// What the calls of a run's handlers have in common.
struct Calls {
    tickets: AtomicU64,
    events: mpsc::UnboundedSender<Event>,
    stop: Arc<watch::Sender<Stop>>,
    limit: Option<Duration>,
    release_after: Duration,
}

impl Calls {
    /// Passes a call to Python, and waits for Python's verdict.
    fn call<M>(&self, make: M) -> impl Future<Output = Verdict> + Send + 'static + use<M>
    where
        M: FnOnce(u64, oneshot::Sender<Verdict>, Arc<watch::Sender<Stage>>) -> Call + 'static,
    {
        let ticket = self.tickets.fetch_add(1, Ordering::Relaxed);
        let (verdict, settled) = oneshot::channel();
        let stage = Arc::new(watch::Sender::new(Stage::Waiting));
        let handed = Handed(Some(make(ticket, verdict, Arc::clone(&stage))));
        let mut cut_off = CutOff {
            ticket,
            events: Some(self.events.clone()),
            stage: Arc::clone(&stage),
        };
        let (limit, release_after) = (self.limit, self.release_after);
        let stop = self.stop.subscribe();
        async move {
            if let Some(events) = &cut_off.events {
                // If Python no longer listens, what was handed over is released.
                let _ = events.send(Event::Delivered(Box::new(handed)));
            }
            tokio::select! {
                biased;
                verdict = settled => {
                    cut_off.is_settled();
                    verdict.unwrap_or_else(|_| dropped_unsettled(&stage))
                }
                verdict = over_limit(limit, stage.subscribe()) => verdict,
                () = release_due(stop, release_after, &stage) => Ok(Outcome::Release),
            }
        }
    }
}

/// Maximum number of deliveries returned to Python at once.
const AT_ONCE: usize = 256;

/// How long an abort waits at most until all handlers have released their deliveries.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(1);

#[pymethods]
impl Consumer {
    /// Starts receiving. Does nothing if it is running already, or has run.
    #[pyo3(signature = (
        *, concurrency, prefetch, prefetch_bytes, lease, poll_interval, retry, undecodable, handler_timeout,
        cancel_grace, listen, shutdown_deadline, chunk
    ))]
    #[expect(clippy::too_many_arguments, reason = "callers pass them by name")]
    fn start(
        &self,
        py: Python<'_>,
        concurrency: usize,
        prefetch: usize,
        prefetch_bytes: usize,
        lease: Duration,
        poll_interval: Duration,
        retry: (Duration, f64, Duration, f64),
        undecodable: (Duration, Duration),
        handler_timeout: Option<Duration>,
        cancel_grace: Duration,
        listen: bool,
        shutdown_deadline: Duration,
        chunk: Option<(usize, Duration)>,
    ) -> PyResult<()> {
        let settings = Settings {
            concurrency,
            prefetch,
            prefetch_bytes,
            lease,
            poll_interval,
            retry,
            undecodable,
            handler_timeout,
            cancel_grace,
            listen,
            shutdown_deadline,
            chunk,
        };
        let runtime = engine::handle(py)?;
        self.held.get(py)?.start(&runtime, settings, self.mode);
        Ok(())
    }

    /// Returns the events since the last call: deliveries or chunks, and tickets of those that were abandoned. Empty at
    /// the end.
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

    /// The events that are there already. Waiting for the next ones takes longer than to handle a few, since it needs
    /// another thread, which needs the interpreter.
    fn ready(&self, py: Python<'_>) -> PyResult<Vec<Event>> {
        let mut events = Vec::new();
        if let Some(running) = self.running(py)?
            && let Ok(mut from) = running.events.try_lock()
        {
            while events.len() < AT_ONCE
                && let Ok(event) = from.try_recv()
            {
                events.push(event);
            }
        }
        Ok(events)
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
            let _ = timeout(RELEASE_TIMEOUT, stop.closed()).await;
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
        let (events_sender, events) = mpsc::unbounded_channel();
        let (end, outcome) = watch::channel(None);
        let calls = Calls {
            tickets: AtomicU64::new(0),
            events: events_sender,
            stop: Arc::clone(&self.stop),
            limit: settings.handler_timeout,
            release_after: settings.release_after(),
        };
        let report = move |outcome| {
            end.send_replace(Some(outcome));
        };
        let task = match settings.chunk {
            None => {
                let store = self.store.clone();
                let run = settings.apply(consumer.run(move |delivery| {
                    let store = store.clone();
                    calls.call(move |ticket, verdict, stage| {
                        Call::Delivery(Delivery::new(ticket, delivery, verdict, stage, store, mode))
                    })
                }));
                runtime.spawn(async move { report(run.await) })
            }
            Some((size, wait)) => {
                let run = settings.apply(consumer.run_chunks(size, wait, move |chunk| {
                    calls.call(move |ticket, verdict, stage| {
                        Call::Chunk(Chunk::new(ticket, chunk, verdict, stage))
                    })
                }));
                runtime.spawn(async move { report(run.await) })
            }
        };
        state.running = Some(Running {
            events: Arc::new(events.into()),
            outcome,
            task: Arc::new(AbortOnDrop(task.abort_handle())),
        });
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
        counts.set_item("snoozed", self.0.snoozed)?;
        counts.set_item("undecodable", self.0.undecodable)?;
        counts.set_item("dead", self.0.dead)?;
        counts.set_item("released", self.0.released)?;
        counts.set_item("lost", self.0.lost)?;
        counts.set_item("cancelled", self.0.cancelled)?;
        counts.set_item("unknown", self.0.unknown)?;
        Ok(counts)
    }
}

type Verdict = Result<Outcome, String>;
