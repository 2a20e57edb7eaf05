//! Deliveries that aren't started since a handler has slowed their queue down.

use super::{InFlight, State};
use crate::message::Receipt;

impl State {
    pub(super) fn put_aside(&mut self) {
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

    /// Removes what was put aside, to be released.
    pub(in crate::consume) fn take_put_aside(&self) -> Vec<Receipt> {
        std::mem::take(&mut self.lock().put_aside)
    }
}
