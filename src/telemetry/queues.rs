//! What an observer has read of the queues: as gauges, and as events.

#[cfg(any(feature = "metrics", feature = "opentelemetry"))]
mod gauges;
#[cfg(not(any(feature = "metrics", feature = "opentelemetry")))]
mod gauges {
    //! Nobody asks for them.

    use std::sync::Arc;

    use crate::{admin::rows::QueueStats, health::Horizon};

    pub(crate) struct Gauges(());

    impl Gauges {
        pub(crate) fn watched(_: String) -> Arc<Self> {
            Arc::new(Self(()))
        }

        pub(super) fn set(&self, _: &[QueueStats], _: Option<&Horizon>) {}
    }
}

use tracing::{debug, info, warn};

pub(crate) use self::gauges::Gauges;
use super::{
    fields::{bounded, is_reported_by_store},
    metrics,
    names::TARGET,
};
use crate::{
    admin::rows::QueueStats,
    error::{Error, error_chain},
    health::Horizon,
    queue::QueueName,
};

/// The queues were read, and what holds back vacuum.
pub(crate) fn observed(gauges: &Gauges, queues: &[QueueStats], horizon: Option<&Horizon>) {
    gauges.set(queues, horizon);
    for stats in queues {
        debug!(
            target: TARGET,
            queue = stats.queue.as_str(),
            ready = stats.ready.value,
            delayed = stats.delayed.value,
            parked = stats.parked.value,
            leased = stats.leased.value,
            dead = stats.dead.value,
            stopped_groups = stats.stopped_groups.value,
            oldest_ready = stats.oldest_ready.unwrap_or_default().as_secs_f64(),
            "queue observed"
        );
    }
    if let Some(horizon) = horizon {
        debug!(
            target: TARGET,
            transactions = horizon.transactions(),
            held_for = horizon.held_for().as_secs_f64(),
            "horizon observed"
        );
    }
}

/// Between two observations, groups were stopped.
pub(crate) fn groups_stopped(before: &[QueueStats], queues: &[QueueStats]) {
    let stopped = queues.iter().filter(|now| now.stopped_groups.value > 0);
    for now in stopped {
        let before = before.iter().find(|before| before.queue == now.queue);
        if before.is_none_or(|before| before.stopped_groups.value < now.stopped_groups.value) {
            warn!(
                target: TARGET,
                queue = now.queue.as_str(),
                groups = now.stopped_groups.value,
                "groups are stopped: what they have parked waits for an operator"
            );
        }
    }
}

/// A consumer has deleted archived messages and dead letters that were older than the queue keeps them.
pub(crate) fn pruned(queue: &QueueName, archived: u64, dead: u64) {
    metrics::deleted(queue.as_str(), archived + dead);
    info!(
        target: TARGET,
        queue = queue.as_str(),
        archived,
        dead,
        "old messages deleted from the archive and the dead letters"
    );
}

/// A consumer could not delete them.
pub(crate) fn retention_failed(queue: &QueueName, error: &Error) {
    warn!(
        target: TARGET,
        queue = queue.as_str(),
        error = &*bounded(&error_chain(error)),
        "error.type" = error.kind(),
        "old messages not deleted from the archive and the dead letters; this is retried"
    );
}

/// The queues can't be observed. `before` is the error of the last attempt; only the first one in a row is reported. If
/// the server can't be reached, the store has reported it already.
pub(crate) fn observation_failed(before: Option<&Error>, error: &Error) {
    if before.is_some_and(|before| !is_reported_by_store(before)) {
        return;
    }
    if is_reported_by_store(error) {
        debug!(target: TARGET, error = error_chain(error), "queues can't be observed, and this is retried");
    } else {
        warn!(
            target: TARGET,
            error = &*bounded(&error_chain(error)),
            "error.type" = error.kind(),
            "queues can't be observed, and this is retried: their gauges stay as they are",
        );
    }
}

/// The queues can be observed again, after this error.
pub(crate) fn observation_succeeded(after: &Error) {
    if !is_reported_by_store(after) {
        info!(target: TARGET, "queues are observed again");
    }
}
