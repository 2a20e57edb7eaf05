//! The spans, by OpenTelemetry's conventions for messaging: named by the operation and the queue.

use std::{
    fmt,
    future::{Future, poll_fn},
    pin::Pin,
    task::{Poll, ready},
    time::Duration,
};

use tracing::{
    Span,
    field::{DisplayValue, Empty, display},
};

use super::names::TARGET;
use crate::{
    error::Error,
    lifecycle::WorkerId,
    message::{MessageId, Origin},
};

const SYSTEM: &str = "pgqrs";

/// The name of a span: `ack emails`, or `ack` for messages of several queues.
struct Name<'a>(&'static str, Option<&'a str>);

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(operation, queue) = self;
        f.write_str(operation)?;
        queue.map_or(Ok(()), |queue| write!(f, " {queue}"))
    }
}

/// The messages of an operation.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Messages {
    /// One, with its id if that is known already.
    One(Option<MessageId>),
    Batch(usize),
}

impl Messages {
    /// Text, as the conventions say.
    fn id(self) -> Option<DisplayValue<MessageId>> {
        match self {
            Self::One(id) => id.map(display),
            Self::Batch(_) => None,
        }
    }

    fn batch(self) -> Option<usize> {
        match self {
            Self::One(_) => None,
            Self::Batch(messages) => Some(messages),
        }
    }
}

/// An enqueue.
pub(crate) fn send(queue: &str, messages: usize) -> Span {
    tracing::info_span!(
        target: TARGET,
        "send",
        otel.name = %Name("send", Some(queue)),
        otel.kind = "producer",
        otel.status_code = Empty,
        messaging.system = SYSTEM,
        messaging.operation.name = "send",
        "messaging.operation.type" = "send",
        messaging.destination.name = queue,
        messaging.message.id = Empty,
        messaging.batch.message_count = (messages != 1).then_some(messages),
        "error.type" = Empty,
    )
}

/// The id of the single message of an enqueue.
pub(crate) fn sent_one(span: &Span, message: MessageId) {
    span.record("messaging.message.id", display(message));
}

/// A claim that returned messages, or failed. Begun only once that is known, since one that finds nothing has no span:
/// `took` is how long it took.
pub(crate) fn receive(
    queue: &str,
    worker: Option<WorkerId>,
    messages: Messages,
    took: Duration,
) -> Span {
    tracing::info_span!(
        target: TARGET,
        "receive",
        otel.name = %Name("receive", Some(queue)),
        otel.kind = "consumer",
        otel.status_code = Empty,
        messaging.system = SYSTEM,
        messaging.operation.name = "receive",
        "messaging.operation.type" = "receive",
        messaging.destination.name = queue,
        messaging.message.id = messages.id(),
        messaging.batch.message_count = messages.batch(),
        pgqrs.worker.id = worker.map(WorkerId::get),
        pgqrs.claim.duration = took.as_secs_f64(),
        "error.type" = Empty,
    )
}

/// A handler that processes a delivery, or a chunk of them, which has no attempt.
pub(crate) fn process(origin: &Origin, messages: Messages, attempt: Option<u32>) -> Span {
    let queue = origin.queue.as_str();
    tracing::info_span!(
        target: TARGET,
        "process",
        otel.name = %Name("process", Some(queue)),
        otel.kind = "consumer",
        otel.status_code = Empty,
        messaging.system = SYSTEM,
        messaging.operation.name = "process",
        "messaging.operation.type" = "process",
        messaging.destination.name = queue,
        messaging.message.id = messages.id(),
        messaging.batch.message_count = messages.batch(),
        pgqrs.message.attempt = attempt,
        pgqrs.worker.id = origin.worker.map(WorkerId::get),
        "error.type" = Empty,
    )
}

/// The settlement of deliveries; `operation` is `ack`, `nack` and so on. `queue` is `None` for messages of several ones.
pub(crate) fn settle(operation: &'static str, queue: Option<&str>, messages: Messages) -> Span {
    tracing::info_span!(
        target: TARGET,
        "settle",
        otel.name = %Name(operation, queue),
        otel.kind = "client",
        otel.status_code = Empty,
        messaging.system = SYSTEM,
        messaging.operation.name = operation,
        "messaging.operation.type" = "settle",
        messaging.destination.name = queue,
        messaging.message.id = messages.id(),
        messaging.batch.message_count = messages.batch(),
        "error.type" = Empty,
    )
}

/// Records on a span why its call failed.
pub(crate) fn failed(span: &Span, error: &Error) {
    failed_with(span, error.kind());
}

/// The same, for a handler's failure.
pub(crate) fn failed_with(span: &Span, kind: &'static str) {
    span.record("error.type", kind);
    span.record("otel.status_code", "ERROR");
}

/// Runs a future in a span. As `Instrument`, but a future that is ready at its first poll enters the span once and not
/// twice: a subscriber takes more time for that than everything else about a message takes. It stays where it is, since
/// a future that is moved into another one takes twice its size there.
pub(crate) async fn in_span<F: Future>(span: &Span, future: Pin<&mut Option<F>>) -> F::Output {
    let mut running = Running { future, span };
    poll_fn(|context| {
        span.in_scope(|| {
            let Some(future) = running.future.as_mut().as_pin_mut() else {
                return Poll::Pending;
            };
            let output = ready!(future.poll(context));
            running.future.set(None);
            Poll::Ready(output)
        })
    })
    .await
}

/// A future that is dropped in its span, too, if it is dropped before it has ended.
struct Running<'a, F> {
    future: Pin<&'a mut Option<F>>,
    span: &'a Span,
}

impl<F> Drop for Running<'_, F> {
    fn drop(&mut self) {
        if self.future.is_some() {
            self.span.in_scope(|| self.future.set(None));
        }
    }
}
