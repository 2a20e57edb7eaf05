//! pgqrs's errors as Python exceptions. The classes are in `pgqrs/errors.py`, one for each variant and named after it;
//! here their fields are extracted.

use std::{error::Error as _, sync::Arc};

use pgqrs::Error;
use pyo3::{IntoPyObject, intern, prelude::*, types::PyDict};

/// The Python exception for an error of pgqrs.
pub(crate) fn raised(py: Python<'_>, error: &Error) -> PyErr {
    exception(py, error).unwrap_or_else(|failure| failure)
}

/// For a value that was created in another process.
pub(crate) fn forked(py: Python<'_>, made_in: u32) -> PyErr {
    made(py, "Forked", String::new(), false, |fields| {
        fields.set_item("connected_in", made_in)
    })
}

/// For a payload that can't be represented in JSON.
pub(crate) fn not_json(py: Python<'_>, index: usize, path: &str, reason: &str) -> PyErr {
    made(py, "Serialize", String::new(), false, |fields| {
        fields.set_item("index", index)?;
        fields.set_item("path", path)?;
        fields.set_item("reason", reason)
    })
}

/// For a payload that is nested too deeply, or endlessly.
pub(crate) fn too_deep(py: Python<'_>, index: usize, limit: usize) -> PyErr {
    let error = Error::PayloadTooDeep { index, limit };
    raised(py, &error)
}

/// For a delivery that is settled, or being settled.
pub(crate) fn already_settled(py: Python<'_>, message: i64) -> PyErr {
    made(py, "AlreadySettled", String::new(), false, |fields| {
        fields.set_item("message", message)
    })
}

fn made(
    py: Python<'_>,
    kind: &str,
    text: String,
    retryable: bool,
    fill: impl FnOnce(&Bound<'_, PyDict>) -> PyResult<()>,
) -> PyErr {
    let exception = || {
        let fields = PyDict::new(py);
        fill(&fields)?;
        let module = py.import(intern!(py, "pgqrs.errors"))?;
        module
            .getattr(intern!(py, "_made"))?
            .call1((kind, text, retryable, fields))
    };
    match exception() {
        Ok(exception) => PyErr::from_value(exception),
        Err(failure) => failure,
    }
}

fn exception(py: Python<'_>, error: &Error) -> PyResult<PyErr> {
    let fields = PyDict::new(py);
    let kind = describe(error, &fields)?;
    let fill = |into: &Bound<'_, PyDict>| into.update(fields.as_mapping());
    let raised = made(py, kind, text(error), error.is_retryable(), fill);
    if let Error::NotStored { source, .. } | Error::OutcomeUnknown { source, .. } = error {
        raised.set_cause(py, Some(self::raised(py, source)));
    }
    Ok(raised)
}

/// The error's text, and that of its sources. Of PostgreSQL's own errors the message alone, without the place in the
/// server's source code.
fn text(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let of_sqlx = cause
            .downcast_ref::<Arc<sqlx::Error>>()
            .map(AsRef::as_ref)
            .or_else(|| cause.downcast_ref::<sqlx::Error>());
        let refusal = of_sqlx.and_then(sqlx::Error::as_database_error);
        let cause_text =
            refusal.map_or_else(|| cause.to_string(), |refusal| refusal.message().to_owned());
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        if refusal.is_some() {
            break;
        }
        source = cause.source();
    }
    text
}

/// The variant's name, with its fields.
fn describe(error: &Error, fields: &Bound<'_, PyDict>) -> PyResult<&'static str> {
    let set = |name: &str, value: &dyn Field| value.set(fields, name);
    let kind = match error {
        Error::NotInstalled => "NotInstalled",
        Error::SchemaOutdated => "SchemaOutdated",
        Error::SchemaNewer {
            installed,
            compiled,
        } => {
            set("installed", installed)?;
            set("compiled", compiled)?;
            "SchemaNewer"
        }
        Error::SchemaDistributed { tables } => {
            set("tables", tables)?;
            "SchemaDistributed"
        }
        Error::Migrate(_) => "Migrate",
        Error::PermissionDenied { role, object, .. } => {
            set("role", role)?;
            set("object", object)?;
            "PermissionDenied"
        }
        Error::QueueNotFound { queue } => {
            set("queue", &queue.as_str())?;
            "QueueNotFound"
        }
        Error::QueueClosed { queue } => {
            set("queue", &queue.as_str())?;
            "QueueClosed"
        }
        Error::QueueExists { queue } => {
            set("queue", &queue.as_str())?;
            "QueueExists"
        }
        Error::QueueNotEmpty { queue, messages } => {
            set("queue", &queue.as_str())?;
            set("messages", messages)?;
            "QueueNotEmpty"
        }
        Error::WorkerExists {
            kind,
            hostname,
            port,
            queue,
            last_heartbeat,
            crashed_after,
        } => {
            set("kind", &kind.as_str())?;
            set("hostname", hostname)?;
            set("port", port)?;
            set("queue", &queue.as_str())?;
            set("last_heartbeat", &last_heartbeat.as_secs_f64())?;
            set("crashed_after", &crashed_after.as_secs_f64())?;
            "WorkerExists"
        }
        Error::WorkerNotFound { worker } => {
            set("worker", &worker.get())?;
            "WorkerNotFound"
        }
        Error::WorkerSuspended { worker } => {
            set("worker", &worker.get())?;
            "WorkerSuspended"
        }
        Error::WorkerStopped { worker } => {
            set("worker", &worker.get())?;
            "WorkerStopped"
        }
        Error::InvalidTransition { worker, from, to } => {
            set("worker", &worker.get())?;
            set("current", &from.as_str())?;
            set("wanted", &to.as_str())?;
            "InvalidTransition"
        }
        Error::InvalidHostname { hostname } => {
            set("hostname", hostname)?;
            "InvalidHostname"
        }
        Error::InvalidSetting {
            setting,
            value,
            expected,
        } => {
            set("setting", setting)?;
            set("value", value)?;
            set("expected", expected)?;
            "InvalidSetting"
        }
        Error::InvalidQueueName(invalid) => {
            set("name", &invalid.name())?;
            "InvalidQueueName"
        }
        Error::InvalidKey { index, problem } => {
            set("index", index)?;
            set("problem", problem)?;
            "InvalidKey"
        }
        Error::KeyHeld { queue } => {
            set("queue", &queue.as_str())?;
            "KeyHeld"
        }
        Error::GroupsNotEnabled { queue } => {
            set("queue", &queue.as_str())?;
            "GroupsNotEnabled"
        }
        Error::InvalidHeader(invalid) => {
            set("name", &invalid.name())?;
            "InvalidHeader"
        }
        Error::InvalidCron(invalid) => {
            set("expression", &invalid.expression())?;
            "InvalidCron"
        }
        Error::ScheduleNotFound { schedule } => {
            set("schedule", schedule)?;
            "ScheduleNotFound"
        }
        Error::ScheduleTaken { schedule, owner } => {
            set("schedule", schedule)?;
            set("owner", owner)?;
            "ScheduleTaken"
        }
        Error::Serialize { index, source } => {
            set("index", index)?;
            set("path", &format!("payloads[{index}]"))?;
            set("reason", &source.to_string())?;
            "Serialize"
        }
        Error::PayloadTooLarge {
            index,
            bytes,
            limit,
        } => {
            set("index", index)?;
            set("size", bytes)?;
            set("limit", limit)?;
            "PayloadTooLarge"
        }
        Error::PayloadTooDeep { index, limit } => {
            set("index", index)?;
            set("limit", limit)?;
            "PayloadTooDeep"
        }
        Error::Decode { message, source } => {
            set("message", &message.get())?;
            set("path", &"payload")?;
            set("reason", &source.to_string())?;
            "Decode"
        }
        Error::DelayTooLong { delay, limit } => {
            set("delay", &delay.as_secs_f64())?;
            set("limit", &limit.as_secs_f64())?;
            "DelayTooLong"
        }
        Error::LimitOutOfRange { limit, max } => {
            set("limit", limit)?;
            set("highest", max)?;
            "LimitOutOfRange"
        }
        Error::LeaseOutOfRange { lease, min, max } => {
            set("lease", &lease.as_secs_f64())?;
            set("shortest", &min.as_secs_f64())?;
            set("longest", &max.as_secs_f64())?;
            "LeaseOutOfRange"
        }
        Error::LeaseLost { message } => {
            set("message", &message.get())?;
            "LeaseLost"
        }
        Error::AcquireTimeout { after } => {
            set("after", &after.as_secs_f64())?;
            "AcquireTimeout"
        }
        Error::Closed => "Closed",
        Error::Connect(source) => {
            of_server(source, fields)?;
            "Connect"
        }
        Error::ConnectionLost(_) => "ConnectionLost",
        Error::NotStored { after, .. } => {
            set("after", &after.as_secs_f64())?;
            "NotStored"
        }
        Error::OutcomeUnknown { ids, .. } => {
            let ids: Vec<i64> = ids.iter().map(|id| id.get()).collect();
            fields.set_item("ids", ids)?;
            "OutcomeUnknown"
        }
        Error::Database(source) => {
            of_server(source, fields)?;
            "Database"
        }
        // A variant of a later version, which this file doesn't know, is still an error of pgqrs.
        _ => "",
    };
    Ok(kind)
}

/// The fields of an error from PostgreSQL itself.
fn of_server(source: &sqlx::Error, fields: &Bound<'_, PyDict>) -> PyResult<()> {
    let refusal = source.as_database_error();
    let sqlstate = refusal.and_then(|refusal| refusal.code()).map(String::from);
    fields.set_item("sqlstate", sqlstate)
}

/// A value of a field, whatever its type.
trait Field {
    fn set(&self, fields: &Bound<'_, PyDict>, name: &str) -> PyResult<()>;
}

impl<T> Field for T
where
    for<'a, 'py> &'a T: IntoPyObject<'py>,
{
    fn set(&self, fields: &Bound<'_, PyDict>, name: &str) -> PyResult<()> {
        fields.set_item(name, self)
    }
}
