//! What an enqueue may set for its messages: priority, headers, how often they are delivered, and for how long they are of
//! use.

use std::time::Duration;

use super::Enqueue;
#[cfg(doc)]
use crate::error::Error;
use crate::message::Priority;

impl<M, T, W, K> Enqueue<M, T, W, K> {
    /// Sets the messages' priority: those of a higher one are delivered first; defaults to [`Priority::Normal`]. If it
    /// is called again, the last call counts.
    pub fn priority(mut self, priority: Priority) -> Self {
        self.options.priority = priority;
        self
    }

    /// Sets a header of the messages: a text that consumers read with [`Delivery::headers`](crate::Delivery::headers),
    /// without decoding the payload. If a name is set again, the last call counts.
    ///
    /// # Units
    /// A name has 1 to 64 bytes of `a` to `z`, `0` to `9`, `.`, `_` and `-`, and doesn't begin with `pgqrs-`. A value is
    /// any text without NUL characters. All names and values together have at most 8 KiB.
    ///
    /// # Errors
    /// [`Error::InvalidHeader`] from [`execute`](Self::execute), for the first header that breaks these rules.
    ///
    /// # Example
    /// ```
    /// let enqueue = pgqrs::enqueue().message(&1).to("tasks").header("tenant", "acme");
    /// ```
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.options.headers.set(name.into(), value.into());
        self
    }

    /// Sets several headers of the messages, as [`header`](Self::header) does each: of a map, or of a delivery; then
    /// without `traceparent` and `tracestate`, or the message continues the trace of the other one's sender.
    ///
    /// # Errors
    /// As for [`header`](Self::header).
    ///
    /// # Example
    /// ```
    /// # fn example(delivery: pgqrs::Delivery<u32>) {
    /// let kept = delivery.headers().iter().filter(|(name, _)| !name.starts_with("trace"));
    /// let next = pgqrs::enqueue().message(&2).to("tasks").headers(kept);
    /// # }
    /// ```
    pub fn headers<N, V>(mut self, headers: impl IntoIterator<Item = (N, V)>) -> Self
    where
        N: Into<String>,
        V: Into<String>,
    {
        for (name, value) in headers {
            self.options.headers.set(name.into(), value.into());
            // An iterator may be endless.
            if self.options.headers.is_invalid() {
                break;
            }
        }
        self
    }

    /// Sets after how many deliveries a message becomes a dead letter, if none of them has handled it. Takes precedence over
    /// the queue's own limit, which is the default. If it is called again, the last call counts.
    ///
    /// # Errors
    /// [`Error::InvalidSetting`] from [`execute`](Self::execute) for 0, and for more than 2,147,483,647.
    ///
    /// # Example
    /// ```
    /// let enqueue = pgqrs::enqueue().message(&1).to("tasks").max_attempts(3);
    /// ```
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.options.of_each.max_attempts = Some(attempts);
        self
    }

    /// Sets for how long the messages are of use, counted from the statement by the database's clock: one that isn't
    /// claimed by then is not delivered, and becomes a dead letter, or is deleted after
    /// [`drop_if_expired`](Self::drop_if_expired). One that was claimed in time is retried as any other. Defaults to for
    /// ever. If it is called again, the last call counts.
    ///
    /// # Errors
    /// [`Error::DelayTooLong`] from [`execute`](Self::execute) for more than 200,000 years.
    ///
    /// # Example
    /// ```
    /// use std::time::Duration;
    ///
    /// let enqueue = pgqrs::enqueue().message(&1).to("tasks").expires_in(Duration::from_secs(3600));
    /// ```
    pub fn expires_in(mut self, time: Duration) -> Self {
        self.options.of_each.expires_in = Some(time);
        self
    }

    /// Deletes the messages once they have [expired](Self::expires_in), instead of keeping them as dead letters.
    pub fn drop_if_expired(mut self) -> Self {
        self.options.of_each.drop_if_expired = true;
        self
    }
}
