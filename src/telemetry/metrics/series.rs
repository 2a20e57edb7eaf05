//! Measurements with the same attributes, as adapters get them.

use crate::telemetry::names::Metric;

/// Measurements of one metric with the same attributes, for an adapter.
pub(super) struct Series<'a> {
    pub(super) metric: &'static Metric,
    /// The place of the metric among all.
    #[cfg_attr(
        not(feature = "opentelemetry"),
        expect(dead_code, reason = "only the meter keeps instruments")
    )]
    pub(super) index: usize,
    pub(super) subject: &'a str,
    pub(super) label: &'static str,
    pub(super) error: &'static str,
}

impl Series<'_> {
    /// The attributes that have a value.
    pub(super) fn attributes(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let system = self
            .metric
            .name
            .starts_with("messaging.")
            .then_some("pgqrs");
        [
            ("messaging.system", system.unwrap_or_default()),
            (self.metric.label, self.label),
            (self.metric.subject, self.subject),
            ("error.type", self.error),
        ]
        .into_iter()
        .filter(|(name, value)| !name.is_empty() && !value.is_empty())
    }
}

/// What a series has measured.
pub(super) enum Measured<'a> {
    Sum(u64),
    Values(&'a [f64]),
    Last(f64),
}
