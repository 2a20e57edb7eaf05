//! An enqueue as SQL, for connections of Python's own drivers. For `enqueue_in`.

use std::time::Duration;

use chrono::{DateTime, Utc};
use pgqrs::{QueueName, TestStatement};
use pyo3::{exceptions::PyValueError, prelude::*, types::PyList};

use crate::{
    encode::encode_raw,
    errors,
    producer::{Producer, to_priority, to_when},
};

/// The statement and its parameters.
#[pyclass(frozen, module = "pgqrs._pgqrs")]
pub(crate) struct Statement(pgqrs::Statement);

/// The values of `$1` to `$7`.
type Parameters<'a> = (
    &'a str,
    i16,
    Option<DateTime<Utc>>,
    i64,
    Option<i64>,
    &'a [String],
    &'a [Option<String>],
);

/// The statement of an enqueue, to a queue or through a producer.
#[pyfunction]
#[pyo3(signature = (queue, producer, payloads, in_batch, delay, at, priority, headers))]
#[expect(clippy::too_many_arguments, reason = "callers pass them by name")]
pub(crate) fn statement(
    py: Python<'_>,
    queue: String,
    producer: Option<&Producer>,
    payloads: &Bound<'_, PyList>,
    in_batch: bool,
    delay: Option<Duration>,
    at: Option<DateTime<Utc>>,
    priority: &str,
    headers: Vec<(String, String)>,
) -> PyResult<Statement> {
    let priority = to_priority(priority)?;
    let payloads = payloads
        .iter()
        .enumerate()
        .map(|(index, payload)| encode_raw(&payload, index, in_batch))
        .collect::<PyResult<Vec<_>>>()?;
    let enqueue = pgqrs::enqueue()
        .messages(&payloads)
        .when(to_when(delay, at))
        .priority(priority)
        .headers(headers);
    let statement = match producer {
        Some(producer) => enqueue.worker(&**producer.registered(py)?).statement(),
        None => enqueue.to(queue).statement(),
    };
    statement
        .map(Statement)
        .map_err(|error| errors::raised(py, &error))
}

#[pymethods]
impl Statement {
    /// The text, with `$1` to `$7`.
    #[getter]
    fn sql(&self) -> &str {
        self.0.sql()
    }

    /// The values of the parameters.
    #[getter]
    fn parameters(&self) -> Parameters<'_> {
        (
            self.0.queue().as_str(),
            self.0.priority(),
            self.0.not_before(),
            self.0.delay(),
            self.0.producer().map(|producer| producer.get()),
            self.0.payloads(),
            self.0.headers(),
        )
    }

    /// Returns the ids of the messages, in their order, from the rows that the statement returned. Raises if nothing
    /// was stored.
    fn check(&self, py: Python<'_>, rows: Vec<i64>) -> PyResult<Vec<i64>> {
        match self.0.check(rows) {
            Ok(ids) => Ok(ids.iter().map(|id| id.get()).collect()),
            Err(error) => Err(errors::raised(py, &error)),
        }
    }
}

/// The text of a test helper's statement.
#[pyfunction]
pub(crate) fn test_statement(name: &str) -> PyResult<&'static str> {
    let statement = match name {
        "list" => TestStatement::List,
        "take" => TestStatement::Take,
        "ack" => TestStatement::Ack,
        "ack_in_group" => TestStatement::AckInGroup,
        "archive" => TestStatement::Archive,
        "archive_in_group" => TestStatement::ArchiveInGroup,
        "put_back" => TestStatement::PutBack,
        "dead_letter" => TestStatement::DeadLetter,
        other => {
            return Err(PyValueError::new_err(format!(
                "{other:?} is not a statement"
            )));
        }
    };
    Ok(statement.sql())
}

/// Raises if a text isn't a valid queue name.
#[pyfunction]
pub(crate) fn check_queue_name(py: Python<'_>, name: String) -> PyResult<()> {
    match QueueName::new(name) {
        Ok(_) => Ok(()),
        Err(invalid) => Err(errors::raised(py, &invalid.into())),
    }
}
