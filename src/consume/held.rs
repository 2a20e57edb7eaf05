//! What keeps a loop from claiming for a while: its queue is paused or slowed down, or the queue's rate has no token left.

use std::time::Duration;

use tokio::time::Instant;

use crate::{lifecycle::WorkerId, message::QueueSettings, queue::QueueName, telemetry};

/// How often a consumer of a paused queue is woken at most.
const PAUSED_INTERVAL: Duration = Duration::from_millis(100);
/// How long wake-ups are ignored at most: the queue's rate may have been changed, or the queue resumed.
pub(super) const LONGEST_HOLD: Duration = Duration::from_secs(1);

/// What keeps a loop from claiming.
#[derive(Debug)]
pub(super) struct Held {
    /// As the last claim has found the queue.
    is_paused: bool,
    is_slowed: bool,
    /// Until then nothing is claimed, whatever wakes the loop.
    until: Instant,
}

impl Held {
    pub(super) fn new() -> Self {
        Self {
            is_paused: false,
            is_slowed: false,
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
}
