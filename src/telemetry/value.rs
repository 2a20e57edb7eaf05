//! One measurement.

use super::names::Id;

/// One value of a metric. `subject` and `label` are values of the attributes that the metric names.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(
    not(any(feature = "metrics", feature = "opentelemetry")),
    expect(dead_code, reason = "nothing is recorded")
)]
pub(super) struct Value<'a> {
    pub(super) metric: Id,
    pub(super) value: f64,
    pub(super) subject: &'a str,
    pub(super) label: &'static str,
    /// Empty if it didn't fail.
    pub(super) error: &'static str,
}

impl<'a> Value<'a> {
    pub(super) fn of(metric: Id, value: f64, subject: &'a str, label: &'static str) -> Self {
        Self {
            metric,
            value,
            subject,
            label,
            error: "",
        }
    }

    pub(super) fn failed(self, error: Option<&'static str>) -> Self {
        Self {
            error: error.unwrap_or_default(),
            ..self
        }
    }
}
