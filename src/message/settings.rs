//! What a queue's row says to its consumers.

use std::time::Duration;

use serde::Deserialize;

use crate::retry::RetryPolicy;

/// What a queue's row says to its consumers, as a claim returns it. What is set takes precedence over a consumer's own
/// settings.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
pub(crate) struct QueueSettings {
    /// In microseconds, as the others.
    lease: Option<u64>,
    retry_min: Option<u64>,
    retry_max: Option<u64>,
    /// Whether acknowledged messages are archived.
    pub(crate) archive_on_ack: bool,
    /// Whether its archived messages or its dead letters are deleted after some time.
    pub(crate) is_pruned: bool,
    /// Whether nothing can be claimed.
    pub(crate) is_paused: bool,
    /// Whether a handler has slowed it down, so that nothing can be claimed for now.
    pub(crate) is_slowed: bool,
    /// How long nothing can be claimed; of more than a day, a day.
    held_for: Option<u64>,
    /// Whether it limits how many of its messages run at a time.
    pub(crate) is_limited: bool,
    /// Whether it limits how many attempts start within a time.
    is_rated: bool,
    /// Whether a group of it has a rate.
    pub(crate) has_group_rates: bool,
}

impl QueueSettings {
    /// The lease of its messages.
    pub(crate) fn lease(&self, own: Duration) -> Duration {
        self.lease.map_or(own, Duration::from_micros)
    }

    /// How long nothing can be claimed, since it is paused or slowed down; `None` if it isn't.
    pub(crate) fn held_for(&self) -> Option<Duration> {
        self.held_for.map(Duration::from_micros)
    }

    /// Whether it limits how many of its messages can be claimed: those that run at a time, or start within a time.
    pub(crate) fn has_limits(&self) -> bool {
        self.is_limited || self.is_rated
    }

    /// How long its messages wait after a failed attempt.
    pub(crate) fn retry(&self, own: RetryPolicy) -> RetryPolicy {
        own.within(
            self.retry_min.map(Duration::from_micros),
            self.retry_max.map(Duration::from_micros),
        )
    }
}
