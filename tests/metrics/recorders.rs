//! A recorder of the crate `metrics`, and OpenTelemetry's SDK, which note what they are passed.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, OnceLock},
};

use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder,
    SharedString, Unit,
};
use opentelemetry::{KeyValue, global};
use opentelemetry_sdk::metrics::{
    InMemoryMetricExporter, SdkMeterProvider,
    data::{AggregatedMetrics, MetricData},
};

use crate::TestResult;

/// A series, as `name{attribute=value,..}`.
pub(crate) type Series = String;

/// The sum of a counter, the last value of a gauge, the number of a histogram's values and their sum.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Measured {
    Sum(u64),
    Last(f64),
    Values(u64, f64),
}

fn series<'a>(name: &str, labels: impl Iterator<Item = (&'a str, String)>) -> Series {
    let mut labels: Vec<_> = labels
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    labels.sort();
    format!("{name}{{{}}}", labels.join(","))
}

/// A recorder of the crate `metrics`. It blocks or panics at a queue whose name says so.
#[derive(Debug, Clone, Default)]
pub(crate) struct Recorded {
    series: Arc<Mutex<BTreeMap<Series, Measured>>>,
    /// Held by a test while the recorder is to block.
    pub(crate) blocked: Arc<Mutex<()>>,
}

struct Handle {
    recorded: Recorded,
    series: Series,
}

impl Recorded {
    fn handle(&self, key: &Key) -> Arc<Handle> {
        let labels = key
            .labels()
            .map(|label| (label.key(), label.value().to_owned()));
        Arc::new(Handle {
            recorded: self.clone(),
            series: series(key.name(), labels),
        })
    }

    pub(crate) fn get(&self, series: &str) -> Option<Measured> {
        self.series
            .lock()
            .expect("not poisoned")
            .get(series)
            .copied()
    }

    pub(crate) fn sum(&self, series: &str) -> u64 {
        match self.get(series) {
            Some(Measured::Sum(sum)) => sum,
            None => 0,
            other => panic!("{series} is {other:?}"),
        }
    }

    pub(crate) fn values(&self, series: &str) -> (u64, f64) {
        match self.get(series) {
            Some(Measured::Values(many, sum)) => (many, sum),
            None => (0, 0.0),
            other => panic!("{series} is {other:?}"),
        }
    }

    /// The series with this text in them, by name.
    pub(crate) fn with(&self, text: &str) -> BTreeMap<Series, Measured> {
        let series = self.series.lock().expect("not poisoned").clone();
        let found = series
            .into_iter()
            .filter(|(series, _)| series.contains(text));
        found.collect()
    }
}

impl Handle {
    fn change(&self, change: impl FnOnce(Option<Measured>) -> Measured) {
        if self.series.contains("=blocks") {
            drop(self.recorded.blocked.lock());
        }
        assert!(!self.series.contains("=panics"), "on purpose");
        let mut series = self.recorded.series.lock().expect("not poisoned");
        let before = series.get(&self.series).copied();
        series.insert(self.series.clone(), change(before));
    }
}

impl CounterFn for Handle {
    fn increment(&self, value: u64) {
        self.change(|before| match before {
            Some(Measured::Sum(sum)) => Measured::Sum(sum + value),
            _ => Measured::Sum(value),
        });
    }

    fn absolute(&self, _: u64) {
        unreachable!("never set");
    }
}

impl GaugeFn for Handle {
    fn increment(&self, _: f64) {
        unreachable!("only set");
    }

    fn decrement(&self, _: f64) {
        unreachable!("only set");
    }

    fn set(&self, value: f64) {
        self.change(|_| Measured::Last(value));
    }
}

impl HistogramFn for Handle {
    fn record(&self, value: f64) {
        self.change(|before| match before {
            Some(Measured::Values(many, sum)) => Measured::Values(many + 1, sum + value),
            _ => Measured::Values(1, value),
        });
    }
}

impl Recorder for Recorded {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.handle(key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.handle(key))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.handle(key))
    }
}

/// OpenTelemetry's SDK, with an exporter in memory.
pub(crate) struct Exported {
    provider: SdkMeterProvider,
    exporter: InMemoryMetricExporter,
}

impl Exported {
    /// The series with this text in them, by name.
    pub(crate) fn with(&self, text: &str) -> TestResult<BTreeMap<Series, Measured>> {
        self.exporter.reset();
        self.provider.force_flush()?;
        let mut found = BTreeMap::new();
        for resource in self.exporter.get_finished_metrics()? {
            let scopes = resource.scope_metrics();
            for metric in scopes.flat_map(|scope| scope.metrics()) {
                let name = |attributes: Vec<&KeyValue>| {
                    let labels = attributes.into_iter();
                    let labels = labels.map(|one| (one.key.as_str(), one.value.to_string()));
                    series(metric.name(), labels)
                };
                match metric.data() {
                    AggregatedMetrics::U64(MetricData::Sum(sum)) => {
                        found.extend(sum.data_points().map(|point| {
                            (
                                name(point.attributes().collect()),
                                Measured::Sum(point.value()),
                            )
                        }));
                    }
                    AggregatedMetrics::F64(MetricData::Gauge(gauge)) => {
                        found.extend(gauge.data_points().map(|point| {
                            (
                                name(point.attributes().collect()),
                                Measured::Last(point.value()),
                            )
                        }));
                    }
                    AggregatedMetrics::F64(MetricData::Histogram(histogram)) => {
                        found.extend(histogram.data_points().map(|point| {
                            let values = Measured::Values(point.count(), point.sum());
                            (name(point.attributes().collect()), values)
                        }));
                    }
                    other => panic!("{} is {other:?}", metric.name()),
                }
            }
        }
        found.retain(|series, _| series.contains(text));
        Ok(found)
    }
}

pub(crate) fn recorders() -> &'static (Recorded, Exported) {
    static RECORDERS: OnceLock<(Recorded, Exported)> = OnceLock::new();
    RECORDERS.get_or_init(|| {
        let recorded = Recorded::default();
        metrics::set_global_recorder(recorded.clone()).expect("there is no other");
        let exporter = InMemoryMetricExporter::default();
        let provider = SdkMeterProvider::builder();
        let provider = provider.with_periodic_exporter(exporter.clone()).build();
        global::set_meter_provider(provider.clone());
        (recorded, Exported { provider, exporter })
    })
}
