//! The options of a run, as Python passes them.

use std::time::Duration;

use pgqrs::{RetryPolicy, UndecodablePolicy};

/// Options of a run.
pub(crate) struct Settings {
    pub(super) concurrency: usize,
    pub(super) prefetch: usize,
    pub(super) prefetch_bytes: usize,
    pub(super) lease: Duration,
    pub(super) poll_interval: Duration,
    /// First delay, factor, maximum delay, jitter.
    pub(super) retry: (Duration, f64, Duration, f64),
    /// The wait, and after how long it becomes a dead letter.
    pub(super) undecodable: (Duration, Duration),
    pub(super) handler_timeout: Option<Duration>,
    pub(super) cancel_grace: Duration,
    pub(super) listen: bool,
    pub(super) shutdown_deadline: Duration,
    /// Size and wait; one by one without them.
    pub(super) chunk: Option<(usize, Duration)>,
}

impl Settings {
    pub(super) fn apply<I: 'static>(&self, run: pgqrs::Run<I>) -> pgqrs::Run<I> {
        let (first, factor, cap, jitter) = self.retry;
        let retry = RetryPolicy::builder()
            .first(first)
            .factor(factor)
            .cap(cap)
            .jitter(jitter)
            .build();
        let (wait, dead_letter_after) = self.undecodable;
        let undecodable = UndecodablePolicy::builder()
            .wait(wait)
            .dead_letter_after(dead_letter_after)
            .build();
        run.concurrency(self.concurrency)
            .prefetch(self.prefetch)
            .prefetch_bytes(self.prefetch_bytes)
            .lease(self.lease)
            .poll_interval(self.poll_interval)
            .retry(retry)
            .cancel_grace(self.cancel_grace)
            .undecodable(undecodable)
            .listen(self.listen)
            .shutdown_deadline(self.shutdown_deadline)
    }

    /// How long after the stop request deliveries whose handlers have not started are released: a little before the
    /// loop aborts all of them, which would use their attempts.
    pub(super) fn release_after(&self) -> Duration {
        let deadline = self.shutdown_deadline;
        let final_part = (deadline / 2).min(Duration::from_secs(5));
        let margin = (deadline / 20).min(Duration::from_millis(250));
        // Far beyond any use, but within the range of an instant.
        (deadline - final_part - margin).min(Duration::from_secs(365 * 24 * 60 * 60))
    }
}
