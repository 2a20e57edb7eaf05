//! Events about workers, and what consumers do.

use std::time::Duration;

use super::{
    fields::{
        Compact, Handlers, Seconds, Undecodable, Waits, bounded, is_reported_by_store, of_worker,
    },
    metrics,
    names::TARGET,
};
use crate::{
    error::{Error, error_chain},
    lifecycle::{WorkerId, WorkerKind, WorkerStatus},
    queue::QueueName,
    report::Report,
    retry::{RetryPolicy, UndecodablePolicy},
};

/// A worker was registered, maybe in the place of another one of the same identity.
pub(crate) fn registered(
    worker: WorkerId,
    kind: WorkerKind,
    queue: &QueueName,
    (hostname, port): (&str, u16),
    replaced: Option<WorkerId>,
) {
    match replaced {
        None => of_worker!(
            info,
            queue,
            worker,
            kind = kind.as_str(),
            hostname,
            port,
            "worker registered",
        ),
        Some(replaced) => of_worker!(
            info,
            queue,
            worker,
            kind = kind.as_str(),
            hostname,
            port,
            previous_worker_id = replaced.get(),
            "worker registered, in the place of another with its host and port",
        ),
    }
}

/// A worker changed its state.
pub(crate) fn transition(
    worker: WorkerId,
    queue: Option<&str>,
    from: WorkerStatus,
    to: WorkerStatus,
) {
    tracing::info!(
        target: TARGET,
        queue,
        worker_id = worker.get(),
        from = from.as_str(),
        to = to.as_str(),
        "worker changed its state",
    );
}

/// A worker has ended, but its row could not be updated.
pub(crate) fn deregistration_failed(
    worker: WorkerId,
    queue: &QueueName,
    reason: &str,
    crashes_after: Duration,
) {
    of_worker!(
        warn,
        queue,
        worker,
        error = &*bounded(reason),
        free_after = %Compact(crashes_after),
        "worker not deregistered: its host and port are taken until it counts as crashed",
    );
}

/// The settings of a run.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) concurrency: usize,
    pub(crate) prefetch: usize,
    pub(crate) prefetch_bytes: usize,
    pub(crate) lease: Duration,
    pub(crate) poll_interval: Duration,
    pub(crate) handler_timeout: Option<Duration>,
    pub(crate) listen: bool,
    pub(crate) shutdown_deadline: Duration,
    pub(crate) retry: RetryPolicy,
    pub(crate) undecodable: UndecodablePolicy,
}

/// A consumer runs from now on.
pub(crate) fn consumer_started(worker: WorkerId, queue: &QueueName, settings: &Settings) {
    metrics::begin(queue.as_str());
    let Settings {
        concurrency,
        prefetch,
        prefetch_bytes,
        lease,
        poll_interval,
        handler_timeout,
        listen,
        shutdown_deadline,
        retry,
        undecodable,
    } = settings;
    of_worker!(
        info,
        queue,
        worker,
        concurrency,
        prefetch,
        prefetch_bytes,
        lease = %Compact(*lease),
        poll_interval = %Compact(*poll_interval),
        retry = &*Waits(*retry).to_string(),
        undecodable = &*Undecodable(*undecodable).to_string(),
        handler_timeout = handler_timeout.map(|limit| display(Compact(limit))),
        listen,
        shutdown_deadline = %Compact(*shutdown_deadline),
        "consumer started",
    );
}

/// A consumer claims no more messages.
pub(crate) fn consumer_stopping(
    worker: WorkerId,
    queue: &QueueName,
    reason: &str,
    handlers: usize,
    deadline: Duration,
) {
    of_worker!(
        info,
        queue,
        worker,
        reason,
        "stopping: {} running, deadline {}",
        Handlers(handlers),
        Seconds(deadline),
    );
}

/// Handlers that had not returned by the deadline were aborted. Their messages are released, and the attempt counts.
pub(crate) fn handlers_aborted(worker: WorkerId, queue: &QueueName, handlers: usize) {
    of_worker!(
        info,
        queue,
        worker,
        handlers,
        "handlers aborted: their messages are released, and the attempts count",
    );
}

/// A consumer has ended, as it was asked to.
pub(crate) fn consumer_stopped(worker: WorkerId, queue: &QueueName, report: &Report) {
    let Report {
        done,
        archived,
        retried,
        snoozed,
        undecodable,
        dead,
        released,
        lost,
        cancelled,
        unknown,
    } = report;
    of_worker!(
        info,
        queue,
        worker,
        done,
        archived,
        retried,
        snoozed,
        undecodable,
        dead,
        released,
        lost,
        cancelled,
        unknown,
        "consumer stopped",
    );
}

/// A consumer has ended because of an error that no retry can fix.
pub(crate) fn consumer_failed(worker: WorkerId, queue: &QueueName, error: &Error, report: &Report) {
    let Report {
        done,
        archived,
        retried,
        snoozed,
        undecodable,
        dead,
        released,
        lost,
        cancelled,
        unknown,
    } = report;
    of_worker!(
        error,
        queue,
        worker,
        error = error_chain(error),
        "error.type" = error.kind(),
        done,
        archived,
        retried,
        snoozed,
        undecodable,
        dead,
        released,
        lost,
        cancelled,
        unknown,
        "consumer ended with an error",
    );
}

/// Somebody has suspended a consumer.
pub(crate) fn consumer_suspended(worker: WorkerId, queue: &QueueName) {
    of_worker!(
        info,
        queue,
        worker,
        "consumer suspended: it claims nothing until it is resumed",
    );
}

/// Somebody has resumed a consumer.
pub(crate) fn consumer_resumed(worker: WorkerId, queue: &QueueName) {
    of_worker!(info, queue, worker, "consumer resumed");
}

/// A consumer's queue was paused, or isn't any more.
pub(crate) fn queue_paused(worker: WorkerId, queue: &QueueName, is_paused: bool) {
    if is_paused {
        of_worker!(
            info,
            queue,
            worker,
            "queue paused: its consumers claim nothing until it is resumed",
        );
    } else {
        of_worker!(info, queue, worker, "queue resumed");
    }
}

/// A handler has slowed a consumer's queue down, for this time; `None` if it isn't slowed down any more.
pub(crate) fn queue_slowed(worker: WorkerId, queue: &QueueName, wait: Option<Duration>) {
    if let Some(wait) = wait {
        of_worker!(
            info,
            queue,
            worker,
            wait = %Compact(wait),
            "queue slowed down by a handler: its consumers claim nothing until the wait is over",
        );
    } else {
        of_worker!(info, queue, worker, "queue not slowed down any more");
    }
}

/// As many ready messages, or more, wait for the rate of a consumer's queue; or none any more.
pub(crate) fn waiting_for_rate(worker: WorkerId, queue: &QueueName, messages: u32) {
    if messages > 0 {
        of_worker!(
            info,
            queue,
            worker,
            at_least = messages,
            "ready messages wait for the rate of their queue",
        );
    } else {
        of_worker!(
            info,
            queue,
            worker,
            "no messages wait for the rate of their queue any more",
        );
    }
}

/// A statement of a consumer failed, and will be retried.
pub(crate) fn statement_failed(
    worker: WorkerId,
    queue: &QueueName,
    statement: &'static str,
    error: &Error,
) {
    if is_reported_by_store(error) {
        of_worker!(
            debug,
            queue,
            worker,
            statement,
            error = error_chain(error),
            "error.type" = error.kind(),
            "statement failed, and will be retried",
        );
    } else {
        of_worker!(
            warn,
            queue,
            worker,
            statement,
            error = &*bounded(&error_chain(error)),
            "error.type" = error.kind(),
            "statement failed, and will be retried",
        );
    }
}

/// Handlers that each use a connection of the store would use up its pool.
pub(crate) fn more_handlers_than_connections(
    worker: WorkerId,
    queue: &QueueName,
    concurrency: usize,
    max_connections: u32,
) {
    of_worker!(
        warn,
        queue,
        worker,
        concurrency,
        max_connections,
        "as many handlers as connections: if each has a transaction on `store.pool()`, claims and sends wait for a \
         connection; raise `max_connections` above `concurrency`, or use another pool in handlers",
    );
}

/// A dequeue returned fewer messages than it asked for, because of their size.
pub(crate) fn stopped_by_bytes(
    worker: Option<WorkerId>,
    queue: &QueueName,
    messages: usize,
    max_bytes: usize,
) {
    of_worker!(
        info,
        queue,
        worker,
        messages,
        max_bytes,
        "a dequeue stopped at its limit of bytes before that of messages: the next one returns the rest",
    );
}
