//! Events about a store: its server, its sends, and what it does in the background.

use std::{
    io,
    time::{Duration, Instant},
};

use tracing::{debug, info, warn};

use super::{
    fields::{Seconds, bounded, is_reported_by_store},
    names::TARGET,
};
use crate::{
    error::{Error, error_chain},
    queue::QueueName,
};

/// A connection broke, or a statement was not answered, while the server can be reached.
pub(crate) fn connection_lost(server: &str, error: &Error) {
    warn!(
        target: TARGET,
        server,
        error = &*bounded(&error_chain(error)),
        "error.type" = error.kind(),
        "connection lost: its statement is retried, or was reported as failed",
    );
}

/// The server of a store can't be reached.
pub(crate) fn server_away(server: &str, error: &Error) {
    warn!(
        target: TARGET,
        server,
        error = &*bounded(&error_chain(error)),
        "error.type" = error.kind(),
        "server away: all that needs it is retried until it is back",
    );
}

/// It still can't be reached.
pub(crate) fn server_still_away(server: &str, since: Instant, error: &Error) {
    warn!(
        target: TARGET,
        server,
        error = &*bounded(&error_chain(error)),
        "error.type" = error.kind(),
        "server away for {}",
        Seconds(since.elapsed()),
    );
}

/// It can be reached again.
pub(crate) fn server_back(server: &str, since: Instant) {
    info!(target: TARGET, server, "server is back after {}", Seconds(since.elapsed()));
}

/// A store whose URL names several hosts goes on with another one. `since` is when an outage of the other began.
pub(crate) fn server_changed(previous: &str, server: &str, since: Option<Instant>) {
    let away = since.map_or_else(Duration::default, |since| since.elapsed());
    info!(
        target: TARGET,
        server,
        previous,
        "server changed after {}",
        Seconds(away),
    );
}

/// Heartbeats could not be sent, and will be retried.
pub(crate) fn heartbeat_failed(workers: usize, error: &Error) {
    if is_reported_by_store(error) {
        debug!(target: TARGET, workers, error = error_chain(error), "heartbeats failed, and will be retried");
    } else {
        warn!(
            target: TARGET,
            workers,
            error = &*bounded(&error_chain(error)),
            "error.type" = error.kind(),
            "heartbeats failed, and will be retried",
        );
    }
}

/// A notification could not be sent or received. Polling goes on.
pub(crate) fn notification_failed(error: &Error) {
    debug!(target: TARGET, error = error_chain(error), "notification not sent or received");
}

/// A send failed, and is retried or resolved. `queue` is that of its first message.
pub(crate) fn send_failed(queue: Option<&QueueName>, error: &Error) {
    let queue = queue.map(QueueName::as_str);
    if is_reported_by_store(error) {
        debug!(target: TARGET, queue, error = error_chain(error), "send failed, and will be retried");
    } else {
        warn!(
            target: TARGET,
            queue,
            error = &*bounded(&error_chain(error)),
            "error.type" = error.kind(),
            "send failed, and will be retried",
        );
    }
}

/// Rows of writers or workers that ended long ago could not be deleted. The next one that starts retries it.
pub(crate) fn prune_failed(table: &'static str, error: &Error) {
    debug!(target: TARGET, table, error = error_chain(error), "old rows not deleted");
}

/// The operating system doesn't deliver a signal that stops consumers.
pub(crate) fn signal_failed(error: &io::Error) {
    warn!(
        target: TARGET,
        error = error_chain(error),
        "termination signal can't be received"
    );
}

/// A recorder of the application's has panicked. This is reported once.
#[cfg(any(feature = "metrics", feature = "opentelemetry"))]
pub(super) fn recorder_panicked() {
    tracing::error!(
        target: TARGET,
        "metrics recorder panicked: what it was passed is lost, and messages go on",
    );
}
