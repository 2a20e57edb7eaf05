//! Deliveries whose messages were cancelled.

use std::collections::HashSet;

use super::{InFlight, Ready, Running};
use crate::{
    message::{Receipt, cancel_notice::CancelNotice},
    telemetry::Subject,
};

impl InFlight {
    /// Receipts of those among the messages of these notices that are here.
    pub(in crate::consume) fn noticed(&self, notices: &[CancelNotice]) -> Vec<Receipt> {
        let state = self.lock();
        let untouched = state.ready.iter().chain(&state.expired);
        let running = state.running.iter().map(|(_, running)| &running.lease);
        untouched
            .map(|ready| ready.message.receipt())
            .chain(running.map(|lease| lease.receipt()))
            .filter(|receipt| notices.contains(&CancelNotice::from(*receipt)))
            .collect()
    }

    /// The messages of these receipts are gone. They are not started any more, and handlers that run are notified,
    /// unless they have settled the messages themselves. Returns those that this concerns.
    pub(in crate::consume) fn cancel(&self, gone: &HashSet<Receipt>) -> Vec<Subject> {
        let mut cancelled = Vec::new();
        let mut state = self.lock();
        let state = &mut *state;
        let bytes = &mut state.bytes;
        let mut keep = |ready: &Ready| {
            let is_gone = gone.contains(&ready.message.receipt());
            if is_gone {
                *bytes = bytes.saturating_sub(ready.message.payload.len());
                cancelled.push(Subject::of(&ready.message));
            }
            !is_gone
        };
        state.ready.retain(&mut keep);
        state.expired.retain(&mut keep);
        for (_, Running { lease, .. }) in &state.running {
            if gone.contains(&lease.receipt()) && !lease.may_be_settled() && !lease.is_cancelled() {
                lease.cancel();
                cancelled.push(lease.subject().clone());
            }
        }
        cancelled
    }
}
