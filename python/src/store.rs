//! A connected database, for Python's `connect` and `Store`.

use std::time::Duration;

use pgqrs::ConnectOptions;
use pyo3::prelude::*;

use crate::{
    answer::Mode,
    consumer::{self, Consumer},
    engine,
    health::Observer,
    process::Here,
    producer::Producer,
    schedule::{Schedule, Scheduler, change_name},
};

/// Connects. The store and all objects made from it make their calls in the same mode.
#[pyfunction]
#[pyo3(signature = (
    url, *, max_connections, acquire_timeout, application_name, payload_limit, retry_for, coalesce, install,
    pgbouncer, listen_url, blocking
))]
#[expect(clippy::too_many_arguments, reason = "callers pass them by name")]
pub(crate) fn connect<'py>(
    py: Python<'py>,
    url: &str,
    max_connections: u32,
    acquire_timeout: Duration,
    application_name: &str,
    payload_limit: usize,
    retry_for: Duration,
    coalesce: bool,
    install: bool,
    pgbouncer: bool,
    listen_url: Option<&str>,
    blocking: bool,
) -> PyResult<Bound<'py, PyAny>> {
    let options = ConnectOptions::builder()
        .url(url)
        .max_connections(max_connections)
        .acquire_timeout(acquire_timeout)
        .application_name(application_name)
        .payload_limit(payload_limit)
        .retry_for(retry_for)
        .coalesce(coalesce)
        .install(install)
        .pgbouncer(pgbouncer);
    let options = match listen_url {
        Some(listen_url) => options.listen_url(listen_url).build(),
        None => options.build(),
    };
    let mode = Mode::new(blocking);
    mode.answer(py, async move {
        let store = pgqrs::connect_with(options).await?;
        Ok(Store {
            store: Here::new(store),
            mode,
        })
    })
}

/// A connected database.
#[pyclass(frozen, module = "pgqrs._pgqrs")]
pub(crate) struct Store {
    store: Here<pgqrs::Store>,
    mode: Mode,
}

/// Maximum time for which closing waits for calls that are under way.
const CLOSING: Duration = Duration::from_secs(5);

#[pymethods]
impl Store {
    /// Closes its connections. Later calls are refused.
    fn close<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let store = self.get(py)?;
        self.mode.answer(py, async move {
            // No new call starts from here on, whether or not those that are under way end in time.
            let _ = tokio::time::timeout(CLOSING, store.pool().close()).await;
            Ok(())
        })
    }

    /// Creates the queue if there is none of that name.
    fn queue<'py>(&self, py: Python<'py>, name: String) -> PyResult<Bound<'py, PyAny>> {
        let store = self.get(py)?;
        self.mode.answer(py, async move {
            store.queue(name).await?;
            Ok(())
        })
    }

    /// Wakes the consumers of a queue.
    fn wake<'py>(&self, py: Python<'py>, queue: String) -> PyResult<Bound<'py, PyAny>> {
        let store = self.get(py)?;
        self.mode.answer(py, async move { store.wake(queue) })
    }

    /// The same, in the background: callable from any thread, and without an event loop.
    fn wake_soon(&self, py: Python<'_>, queue: String) -> PyResult<()> {
        let (store, runtime) = (self.get(py)?, engine::handle(py)?);
        runtime.spawn(async move {
            // An invalid name has no consumers.
            let _ = store.wake(queue);
        });
        Ok(())
    }

    /// Observes the queues.
    fn observe<'py>(&self, py: Python<'py>, interval: Duration) -> PyResult<Bound<'py, PyAny>> {
        let (store, mode) = (self.get(py)?, self.mode);
        self.mode.answer(py, async move {
            Ok(Observer::new(store.observe(interval).await?, mode))
        })
    }

    /// Installs a schedule without an owner.
    fn schedule<'py>(&self, py: Python<'py>, schedule: &Schedule) -> PyResult<Bound<'py, PyAny>> {
        let (store, spec) = (self.get(py)?, schedule.spec.clone());
        self.mode.answer(
            py,
            async move { Ok(change_name(spec.install(&store).await?)) },
        )
    }

    /// Makes these the owner's schedules.
    fn replace_schedules<'py>(
        &self,
        py: Python<'py>,
        owner: String,
        schedules: Vec<PyRef<'py, Schedule>>,
        version: u32,
    ) -> PyResult<Bound<'py, PyAny>> {
        let store = self.get(py)?;
        let specs: Vec<_> = schedules
            .iter()
            .map(|schedule| schedule.spec.clone())
            .collect();
        self.mode.answer(py, async move {
            let changes = store
                .schedules(owner)
                .version(version)
                .replace(specs)
                .await?;
            Ok((
                changes.created,
                changes.replaced,
                changes.deleted,
                changes.is_outdated,
            ))
        })
    }

    /// Fires schedules.
    fn scheduler<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let store = self.get(py)?;
        self.mode.answer(
            py,
            async move { Ok(Scheduler::new(store.scheduler().await?)) },
        )
    }

    /// Registers a producer.
    #[pyo3(signature = (queue, hostname, port, *, heartbeat_interval, replace))]
    fn producer<'py>(
        &self,
        py: Python<'py>,
        queue: String,
        hostname: String,
        port: u16,
        heartbeat_interval: Duration,
        replace: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (store, mode) = (self.get(py)?, self.mode);
        self.mode.answer(py, async move {
            let producer = pgqrs::producer(hostname, port, queue)
                .heartbeat_interval(heartbeat_interval)
                .replace(replace)
                .create(&store)
                .await?;
            Ok(Producer::new(producer, store, mode))
        })
    }

    /// Registers a consumer; anonymous without an identity.
    #[pyo3(signature = (queue, identity, *, heartbeat_interval, replace))]
    fn consumer<'py>(
        &self,
        py: Python<'py>,
        queue: String,
        identity: Option<(String, u16)>,
        heartbeat_interval: Duration,
        replace: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (store, mode) = (self.get(py)?, self.mode);
        let registration = consumer::Registration {
            queue,
            identity,
            heartbeat_interval,
            replace,
        };
        self.mode.answer(py, async move {
            Consumer::register(registration, store, mode).await
        })
    }
}

impl Store {
    pub(crate) fn get(&self, py: Python<'_>) -> PyResult<pgqrs::Store> {
        self.store.get(py).cloned()
    }

    pub(crate) fn mode(&self) -> Mode {
        self.mode
    }
}
