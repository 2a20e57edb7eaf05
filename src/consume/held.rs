//! What keeps a loop from claiming for a while: its queue is paused or slowed down, or the queue's rate has no token left.

use std::time::Duration;

use tokio::time::Instant;

use crate::{lifecycle::WorkerId, message::QueueSettings, queue::QueueName, telemetry};

/// How often a consumer of a paused queue is woken at most.
const PAUSED_INTERVAL: Duration = Duration::from_millis(100);
/// How long wake-ups are ignored at most: the queue's rate may have been changed, or the queue resumed.
pub(super) const LONGEST_HOLD: Duration = Duration::from_secs(1);
/// The log says at most this often that messages begin to wait for the queue's rate.
const RATE_REPORT_INTERVAL: Duration = Duration::from_secs(60);

/// What keeps a loop from claiming.
#[derive(Debug)]
pub(super) struct Held {
    /// As the last claim has found the queue.
    is_paused: bool,
    is_slowed: bool,
    by_rate: HeldByRate,
    /// Until then nothing is claimed, whatever wakes the loop.
    until: Instant,
}

impl Held {
    pub(super) fn new() -> Self {
        Self {
            is_paused: false,
            is_slowed: false,
            by_rate: HeldByRate::default(),
            until: Instant::now(),
        }
    }

    /// When to claim after a wake-up, if it were at this time otherwise.
    pub(super) fn woken(&self, claim_at: Instant) -> Instant {
        let now = Instant::now();
        // Sends to a paused queue don't have it claimed from each time.
        let wanted = if !self.is_paused && !self.is_slowed {
            now
        } else if claim_at <= now {
            now + PAUSED_INTERVAL
        } else {
            claim_at.min(now + PAUSED_INTERVAL)
        };
        wanted.max(self.until)
    }

    /// Nothing is claimed for this time. Returns when to claim, if it were at this time otherwise.
    pub(super) fn hold(&mut self, wait: Duration, claim_at: Instant) -> Instant {
        self.until = self.until.max(Instant::now() + wait);
        claim_at.max(self.until)
    }

    /// Reports what has changed, as a claim has found the queue.
    pub(super) fn found(&mut self, settings: QueueSettings, worker: WorkerId, queue: &QueueName) {
        if self.is_paused != settings.is_paused {
            self.is_paused = settings.is_paused;
            telemetry::queue_paused(worker, queue, settings.is_paused);
        }
        if self.is_slowed != settings.is_slowed {
            self.is_slowed = settings.is_slowed;
            let held_for = settings.held_for().filter(|_| settings.is_slowed);
            telemetry::queue_slowed(worker, queue, held_for);
        }
    }

    /// Reports whether messages wait for the queue's rate, as a claim has found it: `None` if it could not.
    pub(super) fn found_waiting(
        &mut self,
        waiting: Option<u32>,
        worker: WorkerId,
        queue: &QueueName,
    ) {
        let waiting = waiting.and_then(|waiting| self.by_rate.found(waiting, Instant::now()));
        if let Some(waiting) = waiting {
            telemetry::waiting_for_rate(worker, queue, waiting);
        }
    }
}

/// Whether the log has said that messages wait for the queue's rate.
#[derive(Debug, Default)]
struct HeldByRate {
    is_reported: bool,
    /// When it last said so.
    reported_at: Option<Instant>,
}

impl HeldByRate {
    /// Returns how many messages wait, if that is to be reported: when some begin to, unless that was reported a short time
    /// ago, and when none do any more.
    fn found(&mut self, waiting: u32, now: Instant) -> Option<u32> {
        let is_change = self.is_reported != (waiting > 0);
        let is_recent = (self.reported_at).is_some_and(|at| now < at + RATE_REPORT_INTERVAL);
        if !is_change || waiting > 0 && is_recent {
            return None;
        }
        self.is_reported = waiting > 0;
        if self.is_reported {
            self.reported_at = Some(now);
        }
        Some(waiting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_that_wait_for_a_rate_are_reported_once_until_none_does_and_not_too_often() {
        let (mut held, start) = (HeldByRate::default(), Instant::now());
        let mut found =
            |seconds, waiting| held.found(waiting, start + Duration::from_secs(seconds));
        assert_eq!(found(0, 0), None);
        assert_eq!(found(1, 7), Some(7));
        assert_eq!(found(2, 9), None);
        assert_eq!(found(90, 9), None, "that they still wait is no news");
        assert_eq!(found(91, 0), Some(0));
        assert_eq!(found(92, 0), None);
        assert_eq!(found(93, 3), Some(3), "long after the last time");
        assert_eq!(found(94, 0), Some(0));
        // Up and down with each claim.
        for second in 95..153 {
            assert_eq!(found(second, u32::from(second % 2 == 0)), None);
        }
        assert_eq!(found(153, 4), Some(4));
    }
}
