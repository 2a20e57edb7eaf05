//! A registered producer, for Python's `Producer`.

use std::time::Duration;

use chrono::{DateTime, Utc};
use pgqrs::{Enqueued, MessageBuilder, Priority, When, Worker};
use pyo3::{exceptions::PyValueError, prelude::*, types::PyList};
use serde_json::value::RawValue;

use crate::{
    answer::Mode,
    encode::{encode_all, encode_raw},
    engine,
    process::Here,
};

/// A registered producer.
#[pyclass(frozen, module = "pgqrs._pgqrs")]
pub(crate) struct Producer {
    held: Here<(pgqrs::Producer, pgqrs::Store)>,
    mode: Mode,
}

#[pymethods]
impl Producer {
    /// Enqueues a message, and returns its id.
    #[pyo3(signature = (payload, delay, at, priority, headers))]
    fn enqueue<'py>(
        &self,
        py: Python<'py>,
        payload: &Bound<'py, PyAny>,
        delay: Option<Duration>,
        at: Option<DateTime<Utc>>,
        priority: &str,
        headers: Vec<(String, String)>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (producer, store) = self.held.get(py)?;
        let priority = to_priority(priority)?;
        let payload = encode_raw(payload, 0, false)?;
        let enqueue = pgqrs::enqueue()
            .message(&payload)
            .worker(&**producer)
            .when(to_when(delay, at))
            .priority(priority)
            .headers(headers);
        let store = store.clone();
        self.mode.answer_among_many(py, async move {
            let enqueued = enqueue.execute(&store).await?;
            Ok(enqueued[0].get())
        })
    }

    /// Enqueues messages, all or none, and returns their ids.
    #[pyo3(signature = (payloads, delay, at, priority, headers))]
    fn enqueue_batch<'py>(
        &self,
        py: Python<'py>,
        payloads: &Bound<'py, PyList>,
        delay: Option<Duration>,
        at: Option<DateTime<Utc>>,
        priority: &str,
        headers: Vec<(String, String)>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (producer, store) = self.held.get(py)?;
        let priority = to_priority(priority)?;
        let payloads = encode_all(payloads)?;
        let enqueue = pgqrs::enqueue()
            .messages(&payloads)
            .worker(&**producer)
            .when(to_when(delay, at))
            .priority(priority)
            .headers(headers);
        let store = store.clone();
        self.mode.answer(py, async move {
            let enqueued = enqueue.execute(&store).await?;
            Ok(numbers(&enqueued))
        })
    }

    /// Enqueues messages with options of their own, all or none. Returns for each its id, whether it is new, and whether the
    /// one that has its key has the same payload.
    #[pyo3(signature = (messages, in_batch, delay, at, priority, headers))]
    #[expect(clippy::too_many_arguments, reason = "callers pass them by name")]
    fn enqueue_messages<'py>(
        &self,
        py: Python<'py>,
        messages: Vec<Options<'py>>,
        in_batch: bool,
        delay: Option<Duration>,
        at: Option<DateTime<Utc>>,
        priority: &str,
        headers: Vec<(String, String)>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (producer, store) = self.held.get(py)?;
        let priority = to_priority(priority)?;
        let messages = messages
            .into_iter()
            .enumerate()
            .map(|(index, message)| to_message(index, in_batch, message))
            .collect::<PyResult<Vec<_>>>()?;
        let enqueue = pgqrs::enqueue()
            .worker(&**producer)
            .when(to_when(delay, at))
            .priority(priority)
            .headers(headers)
            .batch(messages);
        let store = store.clone();
        self.mode.answer(py, async move {
            let enqueued = enqueue.execute(&store).await?;
            let outcomes = enqueued.outcomes();
            let outcomes = outcomes.map(|sent| (sent.id.get(), sent.new, sent.same_payload));
            Ok(outcomes.collect::<Vec<_>>())
        })
    }

    /// The worker's id.
    #[getter]
    fn id(&self, py: Python<'_>) -> PyResult<i64> {
        Ok(self.held.get(py)?.0.id().get())
    }

    /// Wakes the consumers of its queue in the background: callable from any thread, and without an event loop.
    fn wake_soon(&self, py: Python<'_>) -> PyResult<()> {
        let (producer, store) = self.held.get(py)?;
        let (queue, store) = (producer.queue().clone(), store.clone());
        engine::handle(py)?.spawn(async move {
            // Its name was validated before.
            let _ = store.wake(queue);
        });
        Ok(())
    }

    /// Sends a heartbeat.
    fn heartbeat<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let producer = self.held.get(py)?.0.clone();
        self.mode
            .answer(py, async move { producer.heartbeat().await })
    }

    /// Suspends the worker.
    fn suspend<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let producer = self.held.get(py)?.0.clone();
        self.mode
            .answer(py, async move { producer.suspend().await })
    }

    /// Resumes the worker.
    fn resume<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let producer = self.held.get(py)?.0.clone();
        self.mode.answer(py, async move { producer.resume().await })
    }

    /// Shuts the worker down.
    fn shutdown<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let producer = self.held.get(py)?.0.clone();
        self.mode
            .answer(py, async move { producer.shutdown().await })
    }

    /// The worker's state.
    fn status<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let producer = self.held.get(py)?.0.clone();
        self.mode
            .answer(py, async move { Ok(producer.status().await?.as_str()) })
    }

    /// Whether its last heartbeat is within this time.
    fn is_healthy<'py>(&self, py: Python<'py>, max_age: Duration) -> PyResult<Bound<'py, PyAny>> {
        let producer = self.held.get(py)?.0.clone();
        self.mode
            .answer(py, async move { producer.is_healthy(max_age).await })
    }
}

impl Producer {
    pub(crate) fn new(producer: pgqrs::Producer, store: pgqrs::Store, mode: Mode) -> Self {
        Self {
            held: Here::new((producer, store)),
            mode,
        }
    }

    pub(crate) fn registered(&self, py: Python<'_>) -> PyResult<&pgqrs::Producer> {
        Ok(&self.held.get(py)?.0)
    }
}

fn numbers(enqueued: &Enqueued) -> Vec<i64> {
    enqueued.iter().map(|id| id.get()).collect()
}

/// Payload, delay, time, priority, headers, key, attempts, time to expire, whether it is dropped then.
type Options<'py> = (
    Bound<'py, PyAny>,
    Option<Duration>,
    Option<DateTime<Utc>>,
    Option<String>,
    Vec<(String, String)>,
    Option<Key>,
    Option<u32>,
    Option<Duration>,
    bool,
);

/// Its kind, its text, what a duplicate does, and a time.
type Key = (String, String, String, Option<Duration>);

fn to_message(
    index: usize,
    in_batch: bool,
    options: Options<'_>,
) -> PyResult<MessageBuilder<Box<RawValue>>> {
    let (payload, delay, at, priority, headers, key, max_attempts, expires_in, drops) = options;
    let mut message = pgqrs::message(&encode_raw(&payload, index, in_batch)?);
    for (name, value) in headers {
        message = message.header(name, value);
    }
    if delay.is_some() || at.is_some() {
        message = message.when(to_when(delay, at));
    }
    if let Some(priority) = priority {
        message = message.priority(to_priority(&priority)?);
    }
    if let Some(attempts) = max_attempts {
        message = message.max_attempts(attempts);
    }
    if let Some(time) = expires_in {
        message = message.expires_in(time);
    }
    if drops {
        message = message.drop_if_expired();
    }
    let Some((kind, key, on_duplicate, time)) = key else {
        return Ok(message);
    };
    let time = time.unwrap_or_default();
    Ok(match (kind.as_str(), on_duplicate.as_str()) {
        ("group", _) => message.group(key).into(),
        ("unique", _) => message.unique(key),
        ("once_within", _) => message.once_within(key, time),
        (_, "replace") => message.unique_until_claimed(key).or_replace(),
        (_, "postpone") => message.unique_until_claimed(key).or_postpone(time),
        (_, "append") => message.unique_until_claimed(key).or_append(),
        _ => message.unique_until_claimed(key).or_keep(),
    })
}

pub(crate) fn to_when(delay: Option<Duration>, at: Option<DateTime<Utc>>) -> When {
    match (delay, at) {
        (Some(delay), _) => When::After(delay),
        (None, Some(at)) => When::At(at),
        (None, None) => When::Now,
    }
}

pub(crate) fn to_priority(priority: &str) -> PyResult<Priority> {
    match priority {
        "urgent" => Ok(Priority::Urgent),
        "high" => Ok(Priority::High),
        "normal" => Ok(Priority::Normal),
        "low" => Ok(Priority::Low),
        other => Err(PyValueError::new_err(format!(
            "priority: {other:?} is none"
        ))),
    }
}
