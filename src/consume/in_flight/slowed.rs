//! Deliveries that aren't started since a handler has slowed their queue down.

use std::time::Duration;

use tokio::time::Instant;

use super::{InFlight, State};
use crate::{consume::held::LONGEST_HOLD, message::Message};

impl State {
    /// A handler has slowed the queue down: what none has started isn't started, nor what claims return that the loop starts
    /// before it knows, and the database.
    pub(super) fn slow_down(&mut self, wait: Duration) {
        let until = Instant::now() + wait.min(LONGEST_HOLD);
        self.slowed_until = self.slowed_until.max(Some(until));
        self.put_aside();
    }

    /// Whether nothing is started of a claim that was sent at this time.
    pub(super) fn is_slowed_at(&self, sent: Instant) -> bool {
        self.slowed_until.is_some_and(|until| sent < until)
    }

    pub(super) fn put_aside_claimed(&mut self, messages: &[Message]) {
        let receipts = messages.iter().map(Message::receipt);
        self.put_aside.extend(receipts);
    }

    fn put_aside(&mut self) {
        for ready in self.ready.drain(..) {
            self.bytes = self.bytes.saturating_sub(ready.message.payload.len());
            self.put_aside.push(ready.message.receipt());
        }
    }
}

impl InFlight {
    /// Keeps what no handler has started from being started.
    pub(in crate::consume) fn put_aside(&self) {
        self.lock().put_aside();
    }
}
