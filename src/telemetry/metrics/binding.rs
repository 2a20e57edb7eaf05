//! The adapter of the Python package, which passes measurements on to the application's meter in Python.

use std::sync::{
    OnceLock,
    atomic::{AtomicBool, Ordering},
};

use super::series::{Measured, Series};
use crate::telemetry::names::Kind;

/// Measurements of one metric with the same attributes. What it has may change with any version: it is for the Python
/// package, which is built with this version.
#[doc(hidden)]
#[derive(Debug)]
#[non_exhaustive]
pub struct Measurement<'a> {
    /// The metric's name.
    pub name: &'static str,
    /// `counter`, `histogram` or `gauge`.
    pub kind: &'static str,
    /// As UCUM has it.
    pub unit: &'static str,
    /// What is measured.
    pub description: &'static str,
    /// The upper bounds of a histogram's buckets.
    pub bounds: &'static [f64],
    /// Names and values.
    pub attributes: &'a [(&'static str, &'a str)],
    /// All values of a histogram, what a counter has to be increased by, or the last value of a gauge.
    pub values: &'a [f64],
}

/// Takes measurements, on a thread of this crate's.
type Take = fn(&Measurement<'_>);

static TAKE: OnceLock<Take> = OnceLock::new();

/// Read before any lock is taken: a child made by `fork` has no thread that collects, and the one of its parent may have
/// held a lock then.
static IS_MEASURING: AtomicBool = AtomicBool::new(true);

/// From now on, passes measurements on to this function, the first one that is named; without one, measures nothing.
#[doc(hidden)]
pub fn measure(take: Option<Take>) {
    if let Some(take) = take {
        // The first one stays.
        let _ = TAKE.set(take);
    }
    IS_MEASURING.store(take.is_some(), Ordering::Relaxed);
}

pub(super) fn is_measuring() -> bool {
    IS_MEASURING.load(Ordering::Relaxed)
}

/// Passes a series on.
pub(super) fn emit(series: &Series<'_>, measured: &Measured<'_>) {
    let Some(take) = TAKE.get() else {
        return;
    };
    let metric = series.metric;
    let (kind, bounds): (_, &[f64]) = match metric.kind {
        Kind::Counter => ("counter", &[]),
        Kind::Histogram(bounds) => ("histogram", bounds),
        Kind::Gauge => ("gauge", &[]),
    };
    let attributes: Vec<_> = series.attributes().collect();
    let single;
    let values = match measured {
        Measured::Values(values) => *values,
        Measured::Sum(sum) => {
            single = [*sum as f64];
            &single
        }
        Measured::Last(value) => {
            single = [*value];
            &single
        }
    };
    take(&Measurement {
        name: metric.name,
        kind,
        unit: metric.unit,
        description: metric.description,
        bounds,
        attributes: &attributes,
        values,
    });
}
