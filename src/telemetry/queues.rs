//! What an observer has read of the queues: for gauges, and as events.

use tracing::{debug, info, warn};

use super::{fields::bounded, metrics, names::TARGET};
use crate::{
    admin::rows::QueueStats,
    error::{Error, error_chain},
    health::Horizon,
    queue::QueueName,
};

/// The messages of a queue: `pgqrs.queue.messages` with the states `ready`, `delayed`, `leased` and `dead`, and
/// `pgqrs.queue.oldest_ready.age`.
pub(crate) fn queue_observed(stats: &QueueStats) {
    debug!(
        target: TARGET,
        queue = stats.queue.as_str(),
        ready = stats.ready.value,
        delayed = stats.delayed.value,
        leased = stats.leased.value,
        dead = stats.dead.value,
        oldest_ready = stats.oldest_ready.unwrap_or_default().as_secs_f64(),
        "queue observed"
    );
}

/// What holds back vacuum: `pgqrs.horizon.age`.
pub(crate) fn horizon_observed(horizon: &Horizon) {
    debug!(
        target: TARGET,
        transactions = horizon.transactions(),
        held_for = horizon.held_for().as_secs_f64(),
        "horizon observed"
    );
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

/// The queues can't be observed, since this attempt.
pub(crate) fn observation_failed(error: &Error) {
    warn!(
        target: TARGET,
        error = &*bounded(&error_chain(error)),
        "error.type" = error.kind(),
        "the queues can't be observed, and their gauges stay as they are; this is retried"
    );
}

/// The queues can be observed again.
pub(crate) fn observation_succeeded() {
    info!(target: TARGET, "the queues are observed again");
}
