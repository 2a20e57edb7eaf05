//! The adapter of OpenTelemetry's meter.

use std::sync::OnceLock;

use opentelemetry::{
    KeyValue, Value, global,
    metrics::{Counter, Gauge, Histogram, Meter},
};

use super::series::{Measured, Series};
use crate::telemetry::names::{Kind, METRICS, Metric, TARGET};

enum Instrument {
    Counter(Counter<u64>),
    Histogram(Histogram<f64>),
    Gauge(Gauge<f64>),
}

/// Of the global meter provider that there is at the first measurement.
static INSTRUMENTS: OnceLock<Vec<Instrument>> = OnceLock::new();

fn build(meter: &Meter, metric: &Metric) -> Instrument {
    let Metric {
        name,
        unit,
        description,
        ..
    } = *metric;
    match metric.kind {
        Kind::Counter => {
            let counter = meter.u64_counter(name).with_unit(unit);
            Instrument::Counter(counter.with_description(description).build())
        }
        Kind::Histogram(bounds) => {
            let histogram = meter.f64_histogram(name).with_unit(unit);
            let histogram = histogram.with_boundaries(bounds.to_vec());
            Instrument::Histogram(histogram.with_description(description).build())
        }
        Kind::Gauge => {
            let gauge = meter.f64_gauge(name).with_unit(unit);
            Instrument::Gauge(gauge.with_description(description).build())
        }
    }
}

/// Records a series.
pub(super) fn emit(series: &Series<'_>, measured: &Measured<'_>) {
    let instruments = INSTRUMENTS.get_or_init(|| {
        let meter = global::meter(TARGET);
        METRICS.iter().map(|metric| build(&meter, metric)).collect()
    });
    let attributes: Vec<_> = series
        .attributes()
        .map(|(name, value)| KeyValue::new(name, Value::from(value.to_owned())))
        .collect();
    match (instruments.get(series.index), measured) {
        (Some(Instrument::Counter(counter)), Measured::Sum(sum)) => counter.add(*sum, &attributes),
        (Some(Instrument::Gauge(gauge)), Measured::Last(value)) => {
            gauge.record(*value, &attributes);
        }
        (Some(Instrument::Histogram(histogram)), Measured::Values(values)) => {
            for value in *values {
                histogram.record(*value, &attributes);
            }
        }
        _ => {}
    }
}
