//! What a consumer has done, counted in deliveries.

use serde::Serialize;

/// What a consumer has done from its start to its end, counted in deliveries: a message that was retried counts each
/// time.
///
/// Each delivery that was passed to a handler is counted under one of these names. `undecodable` and `dead` also count
/// payloads that didn't decode, and `released` messages that were not passed to a handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// Handled and acknowledged, by the loop or by the handler itself. Also if the handler has settled the message in a
    /// transaction that it committed, and then returned an error: the message is not delivered again.
    pub done: u64,
    /// Handled and archived.
    pub archived: u64,
    /// Failed, and put back for another attempt.
    pub retried: u64,
    /// Put off by their handlers, with [`Outcome::Later`](crate::Outcome::Later) or
    /// [`Outcome::SlowDown`](crate::Outcome::SlowDown): no attempt was used.
    pub snoozed: u64,
    /// Whose payload didn't decode, and that were put back for a consumer of another version: no attempt was used.
    pub undecodable: u64,
    /// Moved to the dead letters.
    pub dead: u64,
    /// Released: at the end, not started or not finished by the deadline, or by a handler with
    /// [`Outcome::Release`](crate::Outcome::Release).
    pub released: u64,
    /// Whose lease was lost before they could be settled: they were, or will be, delivered again.
    pub lost: u64,
    /// Whose messages were cancelled while their handlers ran, or were deleted otherwise.
    pub cancelled: u64,
    /// Whose settlement is uncertain: its answer was lost, or the server could not be reached by the deadline, or
    /// refused it. They are settled, or will be delivered again.
    pub unknown: u64,
}

impl Report {
    /// Messages that are out of their queue.
    pub(crate) fn out(&self) -> u64 {
        self.done + self.archived + self.dead
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.done += other.done;
        self.archived += other.archived;
        self.retried += other.retried;
        self.snoozed += other.snoozed;
        self.undecodable += other.undecodable;
        self.dead += other.dead;
        self.released += other.released;
        self.lost += other.lost;
        self.cancelled += other.cancelled;
        self.unknown += other.unknown;
    }
}
