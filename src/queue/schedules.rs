//! The name by which processes are woken about schedules.
#![cfg(feature = "schedules")]

use std::borrow::Cow;

use super::QueueName;

impl QueueName {
    /// For wake-ups about schedules: a name that no queue can have.
    pub(crate) const SCHEDULES: Self = Self(Cow::Borrowed(" schedules"));
}
