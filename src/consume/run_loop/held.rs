//! What keeps a loop from claiming for a while: its queue is paused or slowed down, or the queue's rate has no token left.

use std::time::Duration;

use tokio::time::Instant;

use super::RunLoop;
use crate::{consume::handlers::Work, dequeue::Received, telemetry};

/// How often a consumer of a paused queue is woken at most.
const PAUSED_INTERVAL: Duration = Duration::from_millis(100);
/// How long wake-ups are ignored at most: the queue's rate may have been changed, or the queue resumed.
const LONGEST_HOLD: Duration = Duration::from_secs(1);

/// What is known of it.
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
}

impl<W: Work> RunLoop<W> {
    /// A message was sent to the queue, or the queue was resumed.
    pub(super) fn on_woken(&mut self) {
        let now = Instant::now();
        // Sends to a paused queue don't have it claimed from each time.
        let wanted = if !self.held.is_paused && !self.held.is_slowed {
            now
        } else if self.claim_at <= now {
            now + PAUSED_INTERVAL
        } else {
            self.claim_at.min(now + PAUSED_INTERVAL)
        };
        self.claim_at = wanted.max(self.held.until);
    }

    /// A handler has slowed the queue down, for this time. The database says so once the message is settled, and until then
    /// this loop does.
    pub(super) fn on_slowed_down(&mut self, wait: Duration) {
        self.hold(Instant::now() + wait.min(LONGEST_HOLD));
    }

    /// Sets when to claim next. `is_all`: the last claim has returned all messages that were ready.
    pub(super) fn schedule_claim(&mut self, received: &Received, is_all: bool) {
        let (now, poll_interval) = (Instant::now(), self.options.poll_interval);
        if let Some(wait) = received.claimed.token_in {
            self.hold(now + wait.min(poll_interval.max(LONGEST_HOLD)));
        } else if is_all && self.claim_at <= received.sent {
            // A wake-up may have arrived meanwhile, though.
            let waits = [self.origin.settings.held_for(), received.claimed.due_in];
            let wait = waits.into_iter().flatten().min();
            self.claim_at = now + wait.unwrap_or(poll_interval).min(poll_interval);
        }
    }

    fn hold(&mut self, until: Instant) {
        self.held.until = self.held.until.max(until);
        self.claim_at = self.claim_at.max(self.held.until);
    }

    /// Reports what has changed, as the last claim has found the queue.
    pub(super) fn report_holds(&mut self) {
        let settings = self.origin.settings;
        if self.held.is_paused != settings.is_paused {
            self.held.is_paused = settings.is_paused;
            telemetry::queue_paused(self.worker, &self.queue, settings.is_paused);
        }
        if self.held.is_slowed != settings.is_slowed {
            self.held.is_slowed = settings.is_slowed;
            let held_for = settings.held_for().filter(|_| settings.is_slowed);
            telemetry::queue_slowed(self.worker, &self.queue, held_for);
        }
        if settings.is_slowed {
            // A handler of another consumer has slowed it down: what was claimed ahead isn't started.
            self.in_flight.put_aside();
        }
    }
}
