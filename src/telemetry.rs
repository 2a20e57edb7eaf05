//! The spans and events of this crate. One span for each verb, entered where the verb is dispatched. Their names and
//! fields follow OpenTelemetry's conventions for messaging and are defined nowhere else; payloads are never recorded.

mod queues;

use std::{io, time::Duration};

use tracing::{Span, field::Empty};

pub(crate) use self::queues::{
    horizon_observed, observation_failed, observation_succeeded, queue_observed,
};
use crate::{
    error::{Error, error_chain},
    lifecycle::{WorkerId, WorkerKind, WorkerStatus},
    message::MessageId,
    queue::QueueName,
};

/// An enqueue: `messaging.batch.message_count` is set if there is more than one message.
pub(crate) fn send(queue: &str, messages: usize) -> Span {
    let span = tracing::info_span!(
        "send",
        otel.kind = "producer",
        messaging.system = "pgqrs",
        messaging.operation.name = "enqueue",
        "messaging.operation.type" = "send",
        messaging.destination.name = queue,
        messaging.batch.message_count = Empty,
        "error.type" = Empty,
    );
    if messages != 1 {
        span.record("messaging.batch.message_count", messages);
    }
    span
}

/// A dequeue.
pub(crate) fn receive(queue: &str) -> Span {
    tracing::info_span!(
        "receive",
        otel.kind = "consumer",
        messaging.system = "pgqrs",
        messaging.operation.name = "dequeue",
        "messaging.operation.type" = "receive",
        messaging.destination.name = queue,
        messaging.batch.message_count = Empty,
        "error.type" = Empty,
    )
}

/// A handler that processes a delivery.
pub(crate) fn process(queue: &str, message: i64, attempt: u32) -> Span {
    tracing::info_span!(
        "process",
        otel.kind = "consumer",
        messaging.system = "pgqrs",
        messaging.operation.name = "process",
        "messaging.operation.type" = "process",
        messaging.destination.name = queue,
        messaging.message.id = message,
        attempt,
        "error.type" = Empty,
    )
}

/// The settlement of deliveries; `verb` is `ack`, `nack` and so on.
pub(crate) fn settle(verb: &'static str, message: Option<i64>) -> Span {
    tracing::info_span!(
        "settle",
        otel.kind = "client",
        messaging.system = "pgqrs",
        messaging.operation.name = verb,
        "messaging.operation.type" = "settle",
        messaging.message.id = message,
        messaging.batch.message_count = Empty,
        "error.type" = Empty,
    )
}

/// Records the number of messages of a call, if it is not one.
pub(crate) fn batch(span: &Span, messages: usize) {
    span.record("messaging.batch.message_count", messages);
}

/// Records on the span why its call failed.
pub(crate) fn failed(span: &Span, error: &Error) {
    span.record("error.type", error.kind());
}

/// A worker was registered.
pub(crate) fn registered(worker: WorkerId, kind: WorkerKind, queue: &QueueName) {
    tracing::info!(
        worker.id = worker.get(),
        worker.kind = kind.as_str(),
        messaging.destination.name = queue.as_str(),
        "worker registered",
    );
}

/// A worker changed its state.
pub(crate) fn transition(worker: WorkerId, from: WorkerStatus, to: WorkerStatus) {
    tracing::info!(
        worker.id = worker.get(),
        worker.status.from = from.as_str(),
        worker.status.to = to.as_str(),
        "worker changed its state",
    );
}

/// A worker has ended, but its row could not be updated.
pub(crate) fn deregistration_failed(worker: WorkerId, reason: &str, crashes_after: Duration) {
    tracing::warn!(
        worker.id = worker.get(),
        reason,
        "a worker could not be deregistered: its identity stays taken for {crashes_after:?} after its last heartbeat",
    );
}

/// The operating system doesn't deliver a signal that stops consumers.
pub(crate) fn signal_failed(error: &io::Error) {
    tracing::warn!(
        error = error_chain(error),
        "a termination signal can't be received"
    );
}

/// Heartbeats could not be sent, and will be retried.
pub(crate) fn heartbeat_failed(reason: &str) {
    tracing::warn!(reason, "heartbeats failed and will be retried");
}

/// A notification could not be sent or received. Polling goes on.
pub(crate) fn notification_failed(reason: &str) {
    tracing::debug!(reason, "a notification could not be sent or received");
}

/// A call of a consumer's loop failed, and will be retried.
pub(crate) fn loop_failed(what: &'static str, error: &Error) {
    tracing::warn!(
        what,
        error = error_chain(error),
        "error.type" = error.kind(),
        "a consumer's statement failed and will be retried"
    );
}

/// The server refuses to settle one message, which is delivered again when its lease runs out.
pub(crate) fn settlement_refused(message: Option<i64>, error: &Error) {
    tracing::error!(
        messaging.message.id = message,
        error = error_chain(error),
        "error.type" = error.kind(),
        "a message can't be settled: the server refuses it"
    );
}

/// The server refuses to extend the lease of one message. Unless it is settled before, it is delivered again.
pub(crate) fn extension_refused(message: MessageId, error: &Error) {
    tracing::error!(
        messaging.message.id = message.get(),
        error = error_chain(error),
        "error.type" = error.kind(),
        "a lease can't be extended: the server refuses it"
    );
}

/// Handlers that each use a connection of the store would use up its pool.
pub(crate) fn more_handlers_than_connections(
    queue: &QueueName,
    concurrency: usize,
    max_connections: u32,
) {
    tracing::warn!(
        messaging.destination.name = queue.as_str(),
        concurrency,
        max_connections,
        "as many handlers as connections: if each has a transaction on `store.pool()`, claims and sends wait for a \
         connection; raise `max_connections` above `concurrency`, or use another pool in handlers",
    );
}

/// A dequeue returned fewer messages than it asked for, because of their size.
pub(crate) fn stopped_by_bytes(queue: &QueueName, messages: usize, max_bytes: usize) {
    tracing::info!(
        messaging.destination.name = queue.as_str(),
        messages,
        max_bytes,
        "a dequeue stopped at its limit of bytes before that of messages: the next one returns the rest",
    );
}

/// A send failed, and is retried or resolved.
pub(crate) fn send_failed(error: &Error) {
    tracing::warn!(
        error = error_chain(error),
        "error.type" = error.kind(),
        "a send failed and will be retried"
    );
}

/// Rows of writers or workers that ended long ago could not be deleted. The next one that starts retries it.
pub(crate) fn prune_failed(table: &'static str, error: &Error) {
    tracing::debug!(
        table,
        error = error_chain(error),
        "old rows could not be deleted"
    );
}

/// A handler failed, on the span that it ran in.
pub(crate) fn handler_failed(span: &Span, kind: &'static str) {
    span.record("error.type", kind);
}

/// A message's `traceparent` is malformed, so its span has no parent and no link. The value isn't logged, since anybody
/// may have written it.
#[cfg(feature = "opentelemetry")]
pub(crate) fn malformed_trace_context(queue: &QueueName, message: MessageId) {
    tracing::debug!(
        messaging.destination.name = queue.as_str(),
        messaging.message.id = message.get(),
        "a message's `traceparent` is malformed and was ignored",
    );
}
