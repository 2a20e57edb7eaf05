//! A connected database. For Python's `connect` and `Store`.

use std::time::Duration;

use pgqrs::ConnectOptions;
use pyo3::prelude::*;

use crate::{
    answer::Mode,
    consumer::{self, Consumer},
    process::Here,
    producer::Producer,
};

/// Connects; what it gives makes its calls in the same mode.
#[pyfunction]
#[pyo3(signature = (
    url, *, max_connections, acquire_timeout, application_name, payload_limit, retry_for, coalesce, install,
    pgbouncer, blocking
))]
#[expect(
    clippy::too_many_arguments,
    reason = "each is named where it is called"
)]
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
        .pgbouncer(pgbouncer)
        .build();
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

/// How long closing waits for calls that are under way.
const CLOSING: Duration = Duration::from_secs(5);

#[pymethods]
impl Store {
    /// Closes its connections. What is called afterwards is refused.
    fn close<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let store = self.get(py)?;
        self.mode.answer(py, async move {
            // From here on nothing new begins, whether or not all that is under way comes to its end.
            let _ = tokio::time::timeout(CLOSING, store.pool().close()).await;
            Ok(())
        })
    }

    /// Creates the queue, if there is none of that name.
    fn queue<'py>(&self, py: Python<'py>, name: String) -> PyResult<Bound<'py, PyAny>> {
        let store = self.get(py)?;
        self.mode.answer(py, async move {
            store.queue(name).await?;
            Ok(())
        })
    }

    /// Registers a producer.
    #[pyo3(signature = (queue, hostname, port, *, heartbeat_interval))]
    fn producer<'py>(
        &self,
        py: Python<'py>,
        queue: String,
        hostname: String,
        port: u16,
        heartbeat_interval: Duration,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (store, mode) = (self.get(py)?, self.mode);
        self.mode.answer(py, async move {
            let producer = pgqrs::producer(hostname, port, queue)
                .heartbeat_interval(heartbeat_interval)
                .create(&store)
                .await?;
            Ok(Producer::new(producer, store, mode))
        })
    }

    /// Registers a consumer.
    #[pyo3(signature = (
        queue, hostname, port, *, concurrency, prefetch, lease, poll_interval, retry, handler_timeout, listen,
        heartbeat_interval
    ))]
    #[expect(
        clippy::too_many_arguments,
        reason = "each is named where it is called"
    )]
    fn consumer<'py>(
        &self,
        py: Python<'py>,
        queue: String,
        hostname: String,
        port: u16,
        concurrency: usize,
        prefetch: usize,
        lease: Duration,
        poll_interval: Duration,
        retry: (Duration, f64, Duration, f64),
        handler_timeout: Option<Duration>,
        listen: bool,
        heartbeat_interval: Duration,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (store, mode) = (self.get(py)?, self.mode);
        let settings = consumer::Settings {
            queue,
            hostname,
            port,
            prefetch,
            lease,
            poll_interval,
            retry,
            handler_timeout,
            listen,
            heartbeat_interval,
        };
        self.mode.answer(py, async move {
            Consumer::register(settings, concurrency, store, mode).await
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
