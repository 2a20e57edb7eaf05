//! How a store sends.

use std::time::Duration;

/// How a store sends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SendOptions {
    pub(crate) retry_for: Duration,
    pub(crate) coalesce: bool,
    /// Whether ids that one statement doesn't need are kept for the next.
    pub(crate) draw_ahead: bool,
}

impl SendOptions {
    /// Statement time-out of an attempt.
    pub(super) fn statement_timeout(&self) -> Duration {
        if self.retry_for.is_zero() {
            return Duration::from_secs(30);
        }
        (self.retry_for / 3).clamp(Duration::from_secs(1), Duration::from_secs(30))
    }
}
