//! When a loop does something next, if nothing happens before.

use tokio::time::Instant;

use super::{MAX_ACK_WAIT, RunLoop};
use crate::{consume::handlers::Work, pool::STATEMENT_TIMEOUT};

impl<W: Work> RunLoop<W> {
    pub(super) fn next_deadline(&self) -> Instant {
        let mut next = if self.is_extending {
            Instant::now() + STATEMENT_TIMEOUT
        } else if self.in_flight.has_expired() {
            self.extend_at.min(self.extend_not_before)
        } else {
            self.extend_at
        };
        if let Some(ending) = &self.ending {
            next = next.min(if ending.is_aborted {
                ending.settle_until
            } else {
                ending.abort_at
            });
            if self.claims > 0 && ending.release_at > Instant::now() {
                next = next.min(ending.release_at);
            }
        } else {
            if self.next_claim().is_some() {
                next = next.min(self.claim_at);
            }
            if let Some(at) = self.prune_at.filter(|_| !self.is_pruning) {
                next = next.min(at);
            }
        }
        if let Some(at) = self.next_settling() {
            next = next.min(at);
        }
        if self.unsettled.has_blocked() {
            next = next.min(self.unblock_at);
        }
        if self.idle_handlers() > 0
            && let Some(at) = self.in_flight.next_chunk_at(self.chunk)
        {
            next = next.min(at);
        }
        // While claims are under way, only few finished deliveries are reported.
        if self.claims > 0 && !self.in_flight.is_empty() {
            next = next.min(Instant::now() + MAX_ACK_WAIT);
        }
        next
    }
}
