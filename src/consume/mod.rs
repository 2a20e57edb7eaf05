//! The machinery behind [`Consumer::run`](crate::Consumer::run): claims ahead, runs handlers, extends leases, settles
//! in batches. [`start`] is the only entry point.

mod claims;
mod in_flight;
mod run_loop;
mod settle;
mod turns;

use std::time::Duration;

pub(crate) use run_loop::{Ended, Job, Stop, start};

use crate::retry::RetryPolicy;

/// Options of a run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Options {
    pub(crate) concurrency: usize,
    pub(crate) prefetch: usize,
    pub(crate) max_bytes: usize,
    pub(crate) lease: Duration,
    pub(crate) poll_interval: Duration,
    pub(crate) retry: RetryPolicy,
    pub(crate) handler_timeout: Option<Duration>,
    pub(crate) listen: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            concurrency: 8,
            prefetch: 512,
            max_bytes: 64 << 20,
            lease: Duration::from_secs(30),
            poll_interval: Duration::from_millis(250),
            retry: RetryPolicy::default(),
            handler_timeout: None,
            listen: true,
        }
    }
}
