//! The adapter of the facade crate `metrics`, which exporters for Prometheus and others implement.

use metrics::{Key, KeyName, Label, Level, Metadata, SharedString, Unit, with_recorder};

use super::series::{Measured, Series};
use crate::telemetry::names::{Kind, TARGET};

static METADATA: Metadata<'static> = Metadata::new(TARGET, Level::INFO, None);

/// Passes a series to the recorder that is installed, if there is one.
pub(super) fn emit(series: &Series<'_>, measured: &Measured<'_>) {
    let metric = series.metric;
    let labels: Vec<_> = series
        .attributes()
        .map(|(name, value)| Label::new(name, value.to_owned()))
        .collect();
    let key = Key::from_parts(metric.name, labels);
    let unit = match metric.unit {
        "s" => Some(Unit::Seconds),
        _ => Some(Unit::Count),
    };
    with_recorder(|recorder| {
        // Each time, since a recorder can be installed late; it keeps what was described before.
        let name = KeyName::from_const_str(metric.name);
        let description = SharedString::const_str(metric.description);
        match metric.kind {
            Kind::Counter => recorder.describe_counter(name, unit, description),
            Kind::Histogram(_) => recorder.describe_histogram(name, unit, description),
            Kind::Gauge => recorder.describe_gauge(name, unit, description),
        }
        match measured {
            Measured::Sum(sum) => recorder.register_counter(&key, &METADATA).increment(*sum),
            Measured::Last(value) => recorder.register_gauge(&key, &METADATA).set(*value),
            Measured::Values(values) => {
                let histogram = recorder.register_histogram(&key, &METADATA);
                for value in *values {
                    histogram.record(*value);
                }
            }
        }
    });
}
