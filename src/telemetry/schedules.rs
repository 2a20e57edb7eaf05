//! Events about schedules.

use std::time::Duration;

use chrono::{DateTime, Utc};
use tracing::{debug, warn};

use super::{
    fields::{Seconds, bounded, is_reported_by_store},
    metrics,
    names::TARGET,
};
use crate::{
    error::{Error, error_chain},
    queue::QueueName,
};

/// A schedule's time has come: what it sent for which times, and when.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Firing<'a> {
    pub(crate) schedule: &'a str,
    pub(crate) queue: &'a QueueName,
    /// The last time that it has sent a message for; `None` if there was none, since all of them were too old.
    pub(crate) time: Option<DateTime<Utc>>,
    pub(crate) at: DateTime<Utc>,
    pub(crate) messages: u64,
    pub(crate) missed: u64,
}

impl Firing<'_> {
    fn late(&self) -> Option<Duration> {
        Some((self.at - self.time?).to_std().unwrap_or_default())
    }
}

/// A schedule was fired.
pub(crate) fn schedule_fired(firing: &Firing<'_>) {
    let queue = firing.queue.as_str();
    let late = firing.late().filter(|_| firing.messages > 0);
    metrics::scheduled(queue, firing.messages, firing.missed, late);
    if firing.missed > 0 {
        warn!(
            target: TARGET,
            queue,
            schedule = firing.schedule,
            missed = firing.missed,
            messages = firing.messages,
            "schedule has missed times: no process ran then, or the server was away",
        );
    }
    match (firing.time, firing.messages) {
        (Some(time), 1..) => debug!(
            target: TARGET,
            queue,
            schedule = firing.schedule,
            scheduled_for = %time,
            messages = firing.messages,
            "schedule fired {} after its time",
            Seconds(firing.late().unwrap_or_default()),
        ),
        (Some(time), 0) => debug!(
            target: TARGET,
            queue,
            schedule = firing.schedule,
            scheduled_for = %time,
            "schedule sent no message: the last one with its key is unfinished, or its queue is closed",
        ),
        (None, _) => {}
    }
}

/// A schedule's message was refused, since its queue is closed. Reported once, until it sends again.
pub(crate) fn schedule_refused(schedule: &str, queue: &QueueName) {
    warn!(
        target: TARGET,
        queue = queue.as_str(),
        schedule,
        "schedule sends nothing while its queue is closed: reopen the queue, or pause or delete the schedule",
    );
}

/// A schedule can't be computed, or its message is refused. It stays due, and is tried again.
pub(crate) fn schedule_deferred(schedule: &str, error: &Error, again_in: Duration) {
    warn!(
        target: TARGET,
        schedule,
        error = &*bounded(&error_chain(error)),
        "error.type" = error.kind(),
        "schedule can't be fired by this process, which tries it again in {}",
        Seconds(again_in),
    );
}

/// Schedules could not be looked at or fired. Only the first failure in a row is reported.
pub(crate) fn firing_failed(is_first: bool, error: &Error) {
    // Without the schema, consumers end with that error.
    if !is_first || is_reported_by_store(error) || matches!(error, Error::NotInstalled) {
        debug!(target: TARGET, error = error_chain(error), "schedules not fired, and this is retried");
    } else {
        warn!(
            target: TARGET,
            error = &*bounded(&error_chain(error)),
            "error.type" = error.kind(),
            "schedules can't be fired by this process, and this is retried",
        );
    }
}
