//! pgqrs's events, on their way to Python's `logging`. They are collected without the GIL, a limited number of them, and a
//! thread of Python's logs them: a slow handler of `logging` delays nothing but the log.

use std::{
    collections::VecDeque,
    fmt, mem,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

use pyo3::{IntoPyObjectExt, prelude::*, types::PyDict};
use tracing::{
    Dispatch, Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span,
    subscriber::Interest,
};

/// Events of one process. A child made by `fork` has its own.
#[pyclass(frozen, module = "pgqrs._pgqrs")]
#[derive(Clone)]
pub(crate) struct Log(Arc<Shared>);

struct Shared {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Default)]
struct Waiting {
    records: VecDeque<Record>,
    /// Maximum number of them; further ones are dropped, and counted.
    capacity: usize,
    dropped: u64,
    is_closed: bool,
}

impl Waiting {
    fn is_idle(&self) -> bool {
        self.records.is_empty() && self.dropped == 0 && !self.is_closed
    }
}

/// Level, text and fields of an event.
struct Record {
    level: &'static str,
    text: String,
    fields: Vec<(&'static str, Value)>,
}

enum Value {
    Text(String),
    Integer(i64),
    Unsigned(u64),
    Float(f64),
    Bool(bool),
}

#[pymethods]
impl Log {
    /// Sets how many events can wait to be logged. Further ones are dropped, and counted.
    fn limit(&self, capacity: usize) {
        self.lock().capacity = capacity;
    }

    /// Waits for events. Returns them as tuples of level, text and fields, with the number of those that were dropped
    /// before them; `None` after the last ones.
    fn next(&self, py: Python<'_>) -> PyResult<Option<(Vec<Py<PyAny>>, u64)>> {
        let (records, dropped, is_closed) = py.detach(|| {
            let mut waiting = self
                .0
                .changed
                .wait_while(self.lock(), |waiting| waiting.is_idle())
                .unwrap_or_else(PoisonError::into_inner);
            let records = mem::take(&mut waiting.records);
            (records, mem::take(&mut waiting.dropped), waiting.is_closed)
        });
        if is_closed && records.is_empty() && dropped == 0 {
            return Ok(None);
        }
        let records = records.into_iter().map(|record| record.into_python(py));
        Ok(Some((records.collect::<PyResult<_>>()?, dropped)))
    }
}

impl Log {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Shared {
            waiting: Mutex::default(),
            changed: Condvar::new(),
        }))
    }

    pub(crate) fn dispatch(&self) -> Dispatch {
        Dispatch::new(Events(self.clone()))
    }

    /// No more events will come.
    pub(crate) fn close(&self) {
        self.lock().is_closed = true;
        self.0.changed.notify_all();
    }

    fn add(&self, record: Record) {
        let mut waiting = self.lock();
        if waiting.records.len() < waiting.capacity {
            waiting.records.push_back(record);
        } else {
            waiting.dropped += 1;
        }
        drop(waiting);
        self.0.changed.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0
            .waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Record {
    fn into_python(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let fields = PyDict::new(py);
        for (name, value) in self.fields {
            match value {
                Value::Text(text) => fields.set_item(name, text)?,
                Value::Integer(number) => fields.set_item(name, number)?,
                Value::Unsigned(number) => fields.set_item(name, number)?,
                Value::Float(number) => fields.set_item(name, number)?,
                Value::Bool(value) => fields.set_item(name, value)?,
            }
        }
        (self.level, self.text, fields).into_py_any(py)
    }
}

/// Takes the events of pgqrs, and no spans.
struct Events(Log);

impl Events {
    fn takes(metadata: &Metadata<'_>) -> bool {
        metadata.is_event()
            && *metadata.level() <= Level::DEBUG
            && metadata.target().split("::").next() == Some("pgqrs")
    }
}

impl Subscriber for Events {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if Self::takes(metadata) {
            Interest::always()
        } else {
            Interest::never()
        }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        Self::takes(metadata)
    }

    fn max_level_hint(&self) -> Option<tracing::level_filters::LevelFilter> {
        Some(tracing::level_filters::LevelFilter::DEBUG)
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut record = Record {
            level: event.metadata().level().as_str(),
            text: String::new(),
            fields: Vec::new(),
        };
        event.record(&mut record);
        self.0.add(record);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

impl Visit for Record {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            value.clone_into(&mut self.text);
        } else {
            self.fields
                .push((field.name(), Value::Text(value.to_owned())));
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.fields.push((field.name(), Value::Integer(value)));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.fields.push((field.name(), Value::Unsigned(value)));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.fields.push((field.name(), Value::Float(value)));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.fields.push((field.name(), Value::Bool(value)));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}
