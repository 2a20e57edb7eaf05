//! The time that a schedule has sent a message for.

use chrono::{DateTime, Utc};

use super::Delivery;

impl<T, D> Delivery<T, D> {
    /// Returns the time that a [schedule](https://docs.rs/pgqrs/latest/pgqrs/guide/schedules/) has sent the
    /// message for, the same at each attempt; `None` if none has sent it. It may be some time before
    /// [`enqueued_at`](Self::enqueued_at): if no process was running at that time, the next one sends the message.
    pub fn scheduled_for(&self) -> Option<DateTime<Utc>> {
        self.message.headers.scheduled_for()
    }
}
