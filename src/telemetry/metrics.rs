//! The metrics: their names, and how they are recorded. Measurements are collected here, and a thread of their own passes
//! them to the adapters: so no recorder of the application's, slow or faulty, holds up a message. Without the features
//! `metrics` and `opentelemetry`, nothing of this is compiled in.

#[cfg(any(feature = "metrics", feature = "opentelemetry"))]
pub(crate) mod binding;
#[cfg(any(feature = "metrics", feature = "opentelemetry"))]
mod collector;
#[cfg(feature = "metrics")]
mod facade;
#[cfg(feature = "opentelemetry")]
mod meter;
#[cfg(any(feature = "metrics", feature = "opentelemetry"))]
mod samples;
#[cfg(any(feature = "metrics", feature = "opentelemetry"))]
mod series;

use std::time::Duration;

use super::{names::Id, subject::Subject, timer::Timer, value::Value};
use crate::{error::Error, message::Origin};

#[cfg(any(feature = "metrics", feature = "opentelemetry"))]
pub(crate) use self::{
    collector::{MAX_SUBJECTS, OTHERS, watch},
    samples::{Sampled, Samples},
};

#[cfg(any(feature = "metrics", feature = "opentelemetry"))]
fn record(values: &[Value<'_>]) {
    collector::record(values);
}

#[cfg(not(any(feature = "metrics", feature = "opentelemetry")))]
#[inline(always)]
fn record(_: &[Value<'_>]) {}

/// Passes on what was measured so far, and waits a moment for that: at the end of a consumer, so that a program which
/// ends then has reported all.
pub(crate) async fn flush() {
    #[cfg(any(feature = "metrics", feature = "opentelemetry"))]
    collector::flush().await;
}

/// A send has ended.
pub(crate) fn sent(queue: &str, messages: usize, timer: Timer, error: Option<&Error>) {
    let error = error.map(Error::kind);
    record(&[
        Value::of(
            Id::OperationDuration,
            timer.elapsed().as_secs_f64(),
            queue,
            "send",
        )
        .failed(error),
        Value::of(Id::SentMessages, messages as f64, queue, "send").failed(error),
    ]);
}

/// A statement has stored messages of sends.
pub(crate) fn stored(messages: usize) {
    record(&[Value::of(
        Id::StatementMessages,
        messages as f64,
        "",
        "send",
    )]);
}

/// A claim has ended.
pub(crate) fn claimed(queue: &str, timer: Timer, outcome: Result<usize, &Error>) {
    let duration = Value::of(
        Id::OperationDuration,
        timer.elapsed().as_secs_f64(),
        queue,
        "receive",
    );
    match outcome {
        Ok(0) => record(&[duration, Value::of(Id::EmptyClaims, 1.0, queue, "")]),
        Ok(messages) => record(&[
            duration,
            Value::of(Id::StatementMessages, messages as f64, "", "receive"),
        ]),
        Err(error) => record(&[duration.failed(Some(error.kind()))]),
    }
}

/// A dequeue returns messages to the application.
pub(crate) fn dequeued(queue: &str, messages: usize) {
    if messages > 0 {
        let consumed = Value::of(Id::ConsumedMessages, messages as f64, queue, "receive");
        record(&[consumed]);
    }
}

/// A consumer begins: what it counts begins at 0, since an increase is only seen from one value to the next.
pub(super) fn begin(queue: &str) {
    let counters = [
        Id::Retries,
        Id::Snoozes,
        Id::Undecodable,
        Id::DeadLetters,
        Id::Expired,
        Id::Redeliveries,
        Id::LeasesLost,
        #[cfg(feature = "opentelemetry")]
        Id::MalformedTraceContexts,
    ];
    record(&counters.map(|metric| Value::of(metric, 0.0, queue, "")));
}

/// A handler has ended. `waited` is `None` if it isn't known when the message was ready.
pub(crate) fn processed(
    subject: &Subject,
    waited: Option<Duration>,
    timer: Timer,
    error: Option<&'static str>,
) {
    let queue = subject.origin.queue.as_str();
    let consumed = Value::of(Id::ConsumedMessages, 1.0, queue, "process");
    let duration = Value::of(
        Id::ProcessDuration,
        timer.elapsed().as_secs_f64(),
        queue,
        "process",
    )
    .failed(error);
    match waited {
        None => record(&[consumed, duration]),
        Some(waited) => record(&[
            consumed,
            duration,
            Value::of(Id::WaitDuration, waited.as_secs_f64(), queue, ""),
        ]),
    }
}

/// A handler of a chunk has ended. `waited` is that of each message.
pub(crate) fn processed_chunk(
    origin: &Origin,
    waited: &[Option<Duration>],
    timer: Timer,
    error: Option<&'static str>,
) {
    let queue = origin.queue.as_str();
    let mut values = vec![
        Value::of(Id::ConsumedMessages, waited.len() as f64, queue, "process"),
        Value::of(
            Id::ProcessDuration,
            timer.elapsed().as_secs_f64(),
            queue,
            "process",
        )
        .failed(error),
    ];
    let waited = waited.iter().flatten();
    values
        .extend(waited.map(|waited| Value::of(Id::WaitDuration, waited.as_secs_f64(), queue, "")));
    record(&values);
}

/// A statement that settles messages has ended. `queue` is `None` for messages of several queues.
pub(crate) fn settled(
    operation: &'static str,
    queue: Option<&str>,
    messages: usize,
    timer: Timer,
    error: Option<&Error>,
) {
    let error = error.map(Error::kind);
    let queue = queue.unwrap_or_default();
    record(&[
        Value::of(
            Id::OperationDuration,
            timer.elapsed().as_secs_f64(),
            queue,
            operation,
        )
        .failed(error),
        Value::of(Id::StatementMessages, messages as f64, "", operation).failed(error),
    ]);
}

/// A schedule has sent messages, or missed some of its times.
#[cfg(feature = "schedules")]
pub(super) fn scheduled(queue: &str, messages: u64, missed: u64, late: Option<Duration>) {
    let mut values = vec![
        Value::of(Id::SchedulesFired, messages as f64, queue, ""),
        Value::of(Id::SchedulesMissed, missed as f64, queue, ""),
    ];
    if let Some(late) = late {
        let late = late.as_secs_f64();
        values.push(Value::of(Id::ScheduleLateness, late, queue, ""));
    }
    record(&values);
}

pub(super) fn retried(subject: &Subject) {
    count(Id::Retries, 1, &subject.origin);
}

pub(super) fn snooze(subject: &Subject) {
    count(Id::Snoozes, 1, &subject.origin);
}

pub(super) fn undecoded(subject: &Subject) {
    count(Id::Undecodable, 1, &subject.origin);
}

pub(super) fn expiry(subject: &Subject) {
    count(Id::Expired, 1, &subject.origin);
}

pub(super) fn dead(subject: &Subject) {
    count(Id::DeadLetters, 1, &subject.origin);
}

pub(super) fn redelivery(subject: &Subject) {
    count(Id::Redeliveries, 1, &subject.origin);
}

pub(super) fn lost(origin: &Origin, leases: u64) {
    count(Id::LeasesLost, leases, origin);
}

pub(super) fn cancellation(subject: &Subject) {
    count(Id::Cancellations, 1, &subject.origin);
}

pub(super) fn deleted(queue: &str, messages: u64) {
    record(&[Value::of(Id::Pruned, messages as f64, queue, "")]);
}

#[cfg(feature = "opentelemetry")]
pub(super) fn malformed(subject: &Subject) {
    count(Id::MalformedTraceContexts, 1, &subject.origin);
}

fn count(metric: Id, by: u64, origin: &Origin) {
    record(&[Value::of(metric, by as f64, origin.queue.as_str(), "")]);
}
