//! What an operator sees of this crate: spans, events and metrics. Their names are defined here and nowhere else, and
//! docs/guide/telemetry.md lists them; payloads are never recorded.

mod fields;
mod messages;
pub(crate) mod metrics;
#[cfg_attr(
    not(any(feature = "metrics", feature = "opentelemetry")),
    expect(dead_code, reason = "nobody asks for the metrics")
)]
mod names;
mod queues;
#[cfg(feature = "schedules")]
mod schedules;
mod spans;
mod stores;
mod subject;
pub(crate) mod timer;
mod value;
mod workers;

#[cfg(any(feature = "metrics", feature = "opentelemetry"))]
pub(crate) use self::names::Id;
#[cfg(feature = "schedules")]
pub(crate) use self::schedules::*;
pub(crate) use self::{
    messages::*, metrics::*, queues::*, spans::*, stores::*, subject::Subject, timer::Timer,
    workers::*,
};
