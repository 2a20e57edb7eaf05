//! The options of a run, with their defaults.

use std::time::Duration;

use crate::{
    pool::STATEMENT_TIMEOUT,
    retry::{RetryPolicy, UndecodablePolicy},
    telemetry::Settings,
};

/// Lower bound of the time-out of a claim, whose answer may take long to arrive over a slow link.
const MIN_CLAIM_TIMEOUT: Duration = Duration::from_secs(10);

/// Options of a run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Options {
    pub(crate) concurrency: usize,
    pub(crate) prefetch: usize,
    pub(crate) max_bytes: usize,
    pub(crate) lease: Duration,
    pub(crate) poll_interval: Duration,
    pub(crate) retry: RetryPolicy,
    pub(crate) undecodable: UndecodablePolicy,
    pub(crate) handler_timeout: Option<Duration>,
    pub(crate) listen: bool,
    pub(crate) cancel_grace: Duration,
}

impl Options {
    /// For the event of the start.
    pub(crate) fn settings(&self, shutdown_deadline: Duration) -> Settings {
        Settings {
            concurrency: self.concurrency,
            prefetch: self.prefetch,
            prefetch_bytes: self.max_bytes,
            lease: self.lease,
            poll_interval: self.poll_interval,
            handler_timeout: self.handler_timeout,
            listen: self.listen,
            shutdown_deadline,
            retry: self.retry,
            undecodable: self.undecodable,
        }
    }

    /// Time-out of a claim, unless the link has turned out to be slow.
    pub(super) fn claim_timeout(&self) -> Duration {
        (self.lease / 3).clamp(MIN_CLAIM_TIMEOUT, STATEMENT_TIMEOUT)
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            concurrency: 8,
            prefetch: 2_048,
            max_bytes: 64 << 20,
            lease: Duration::from_secs(30),
            poll_interval: Duration::from_millis(250),
            retry: RetryPolicy::default(),
            undecodable: UndecodablePolicy::default(),
            handler_timeout: None,
            listen: true,
            cancel_grace: Duration::from_secs(5),
        }
    }
}
