//! Measurements on their way to the application's meter. They are collected without the GIL, a limited number of them, and
//! a thread of Python's records them.

use std::{
    collections::HashMap,
    mem,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use pgqrs::Measurement;
use pyo3::{IntoPyObjectExt, prelude::*, types::PyDict};

/// What waits to be recorded. A child made by `fork` never touches it, since a thread of its parent may have held its
/// lock.
static WAITING: Mutex<Option<Waiting>> = Mutex::new(None);
static CHANGED: Condvar = Condvar::new();

/// Values of histograms that can wait. Further ones are dropped.
const CAPACITY: usize = 1 << 16;

#[derive(Default)]
struct Waiting {
    series: HashMap<Key, Series>,
    values: usize,
    /// The thread has taken what there was, and has not come back.
    is_recording: bool,
    is_closed: bool,
}

#[derive(PartialEq, Eq, Hash)]
struct Key {
    name: &'static str,
    attributes: Vec<(&'static str, String)>,
}

struct Series {
    kind: &'static str,
    unit: &'static str,
    description: &'static str,
    bounds: &'static [f64],
    values: Vec<f64>,
}

impl Waiting {
    fn add(&mut self, measurement: &Measurement<'_>) {
        let attributes = measurement.attributes.iter();
        let key = Key {
            name: measurement.name,
            attributes: attributes
                .map(|(name, value)| (*name, (*value).to_owned()))
                .collect(),
        };
        let series = self.series.entry(key).or_insert_with(|| Series {
            kind: measurement.kind,
            unit: measurement.unit,
            description: measurement.description,
            bounds: measurement.bounds,
            values: Vec::new(),
        });
        match (measurement.kind, series.values.first_mut()) {
            ("counter", Some(sum)) => *sum += measurement.values.iter().sum::<f64>(),
            ("gauge", Some(last)) => *last = measurement.values.last().copied().unwrap_or(*last),
            _ => {
                let room = CAPACITY.saturating_sub(self.values);
                let values = measurement.values.iter().take(room);
                self.values += values.len();
                series.values.extend(values);
            }
        }
    }
}

fn lock() -> MutexGuard<'static, Option<Waiting>> {
    WAITING.lock().unwrap_or_else(PoisonError::into_inner)
}

fn take(measurement: &Measurement<'_>) {
    lock().get_or_insert_with(Waiting::default).add(measurement);
    CHANGED.notify_all();
}

/// The measurements of this process.
#[pyclass(frozen, module = "pgqrs._pgqrs")]
pub(crate) struct Measurements;

#[pymethods]
impl Measurements {
    /// Begins to measure, or ends it at once, without a lock.
    #[staticmethod]
    fn measure(on: bool) {
        pgqrs::measure(on.then_some(take));
    }

    /// Waits for measurements. Returns each as a tuple of name, kind, unit, description, bounds, attributes and values;
    /// `None` after the last ones.
    #[staticmethod]
    fn next(py: Python<'_>) -> PyResult<Option<Vec<Py<PyAny>>>> {
        let series = py.detach(|| {
            let mut waiting = lock();
            waiting.get_or_insert_with(Waiting::default).is_recording = false;
            CHANGED.notify_all();
            let mut waiting = CHANGED
                .wait_while(waiting, |waiting| {
                    waiting
                        .as_ref()
                        .is_none_or(|waiting| waiting.series.is_empty() && !waiting.is_closed)
                })
                .unwrap_or_else(PoisonError::into_inner);
            let waiting = waiting.get_or_insert_with(Waiting::default);
            let series = mem::take(&mut waiting.series);
            waiting.values = 0;
            waiting.is_recording = !series.is_empty();
            series
        });
        if series.is_empty() {
            return Ok(None);
        }
        let series = series.into_iter().map(|(key, series)| {
            let attributes = PyDict::new(py);
            for (name, value) in key.attributes {
                attributes.set_item(name, value)?;
            }
            let Series {
                kind,
                unit,
                description,
                bounds,
                values,
            } = series;
            let bounds = bounds.to_vec();
            (
                key.name,
                kind,
                unit,
                description,
                bounds,
                attributes,
                values,
            )
                .into_py_any(py)
        });
        series.collect::<PyResult<_>>().map(Some)
    }

    /// Waits until all of them are recorded, or for this many seconds.
    #[staticmethod]
    fn wait(py: Python<'_>, seconds: f64) {
        py.detach(|| {
            let waiting = lock();
            let for_ = Duration::try_from_secs_f64(seconds).unwrap_or_default();
            let waited = CHANGED.wait_timeout_while(waiting, for_, |waiting| {
                waiting
                    .as_ref()
                    .is_some_and(|waiting| waiting.is_recording || !waiting.series.is_empty())
            });
            drop(waited);
        });
    }

    /// No more of them are to come.
    #[staticmethod]
    fn close() {
        lock().get_or_insert_with(Waiting::default).is_closed = true;
        CHANGED.notify_all();
    }
}
