//! When a loop claims that is kept from it for a while.

use std::time::Duration;

use tokio::time::Instant;

use super::RunLoop;
use crate::{
    consume::{handlers::Work, held::LONGEST_HOLD},
    dequeue::Received,
};

impl<W: Work> RunLoop<W> {
    /// A message was sent to the queue, or the queue was resumed.
    pub(super) fn on_woken(&mut self) {
        self.claim_at = self.held.woken(self.claim_at);
    }

    /// A handler has slowed the queue down, for this time. The database says so once the message is settled, and until then
    /// this loop does.
    pub(super) fn on_slowed_down(&mut self, wait: Duration) {
        self.claim_at = self.held.hold(wait.min(LONGEST_HOLD), self.claim_at);
    }

    /// Sets when to claim next. `is_all`: the last claim has returned all messages that were ready.
    pub(super) fn schedule_claim(&mut self, received: &Received, is_all: bool) {
        let waiting = received.claimed.held_back;
        self.held.found_waiting(waiting, self.worker, &self.queue);
        let poll_interval = self.options.poll_interval;
        if let Some(wait) = received.claimed.token_in {
            let wait = wait.min(poll_interval.max(LONGEST_HOLD));
            self.claim_at = self.held.hold(wait, self.claim_at);
        } else if is_all && self.claim_at <= received.sent {
            // A wake-up may have arrived meanwhile, though.
            let waits = [self.origin.settings.held_for(), received.claimed.due_in];
            let wait = waits.into_iter().flatten().min();
            self.claim_at = Instant::now() + wait.unwrap_or(poll_interval).min(poll_interval);
        }
    }

    /// Applies what keeps consumers from claiming, as the last claim has found it.
    pub(super) fn apply_holds(&mut self) {
        let settings = self.origin.settings;
        self.held.found(settings, self.worker, &self.queue);
        if settings.is_slowed {
            // A handler of another consumer has slowed it down: what was claimed ahead isn't started.
            self.in_flight.put_aside();
        }
    }
}
