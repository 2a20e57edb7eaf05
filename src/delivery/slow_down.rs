//! Slowing a queue down: what its messages need asks for a pause.

use std::time::Duration;

use super::{Delivery, Unsettled, settlement::Settlement};
#[cfg(doc)]
use crate::error::Error;
use crate::{
    error::Result,
    executor::{Execute, Executor},
};

impl<T, D> Delivery<T, D> {
    /// Puts the message off, and slows its queue down: see [`Outcome::SlowDown`](crate::Outcome::SlowDown). In a transaction
    /// that takes effect when it commits.
    ///
    /// # Errors
    /// Also [`Error::DelayTooLong`].
    ///
    /// # Source
    /// `update pgqrs.queues set slowed_until = …` and `update pgqrs.messages set visible_at = …, attempt = attempt - 1,
    /// snoozes = …` in one statement.
    pub fn slow_down<'c>(self, wait: Duration, on: impl Executor + 'c) -> Execute<'c, Result<()>>
    where
        T: Send + 'c,
        D: 'c,
    {
        self.settle(Settlement::slow_down(wait), on)
    }

    /// As [`slow_down`](Self::slow_down); an error hands the delivery back, for a retry.
    pub fn try_slow_down<'c>(
        self,
        wait: Duration,
        on: impl Executor + 'c,
    ) -> Execute<'c, Result<(), Unsettled<T, D>>>
    where
        T: Send + 'c,
        D: 'c,
    {
        self.settle(Settlement::slow_down(wait), on)
    }
}
