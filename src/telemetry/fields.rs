//! What the fields of events have in common.

use std::{borrow::Cow, fmt, time::Duration};

use crate::{
    error::Error,
    retry::{RetryPolicy, UndecodablePolicy},
};

/// Maximum bytes of an error's text in an event. It comes from a handler, and can have any length.
const MAX_TEXT: usize = 2 << 10;

/// The text of an error, shortened.
pub(super) fn bounded(text: &str) -> Cow<'_, str> {
    if text.len() <= MAX_TEXT {
        return Cow::Borrowed(text);
    }
    let end = text.floor_char_boundary(MAX_TEXT);
    Cow::Owned(format!("{}…", text.get(..end).unwrap_or_default()))
}

/// A duration in a sentence: `0.25 s`, `12 s`.
pub(super) struct Seconds(pub(super) Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs_f64();
        if seconds >= 10.0 {
            write!(f, "{seconds:.0} s")
        } else {
            let rounded = (seconds * 100.0).round() / 100.0;
            write!(f, "{rounded} s")
        }
    }
}

/// A duration as a value, without a space, so that logs stay easy to parse: `4ms`, `12s`.
pub(super) struct Compact(pub(super) Duration);

impl fmt::Display for Compact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milliseconds = self.0.as_millis();
        if (1..1_000).contains(&milliseconds) {
            return write!(f, "{milliseconds}ms");
        }
        let seconds = self.0.as_secs_f64();
        if seconds >= 10.0 {
            write!(f, "{seconds:.0}s")
        } else {
            write!(f, "{}s", (seconds * 100.0).round() / 100.0)
        }
    }
}

/// The waits of a retry policy before jitter, as an operator reads them: `1s, 2s, 4s, … 3600s`.
pub(super) struct Waits(pub(super) RetryPolicy);

impl fmt::Display for Waits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(policy) = self;
        let longest = policy.delay(u32::MAX);
        for attempt in 1..=3 {
            let wait = policy.delay(attempt);
            if wait >= longest {
                break;
            }
            write!(f, "{}, ", Compact(wait))?;
        }
        if policy.delay(4) < longest {
            f.write_str("… ")?;
        }
        write!(f, "{}", Compact(longest))
    }
}

/// What happens to a payload that doesn't decode: `60s, until 3600s`.
pub(super) struct Undecodable(pub(super) UndecodablePolicy);

impl fmt::Display for Undecodable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let UndecodablePolicy {
            wait,
            dead_letter_after,
        } = self.0;
        if dead_letter_after.is_zero() {
            return f.write_str("dead letter at once");
        }
        write!(f, "{}, until {}", Compact(wait), Compact(dead_letter_after))
    }
}

/// `1 handler`, `2 handlers`.
pub(super) struct Handlers(pub(super) usize);

impl fmt::Display for Handlers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.0 == 1 { "" } else { "s" };
        write!(f, "{} handler{plural}", self.0)
    }
}

/// Whether an error is one of the connection, which the store reports once for all calls.
pub(super) fn is_reported_by_store(error: &Error) -> bool {
    matches!(error, Error::Connect(_) | Error::ConnectionLost(_))
}

/// An event about a delivery.
macro_rules! of_message {
    ($level:ident, $subject:expr, $($rest:tt)+) => {{
        let subject: &$crate::telemetry::subject::Subject = $subject;
        tracing::$level!(
            target: $crate::telemetry::names::TARGET,
            queue = subject.origin.queue.as_str(),
            worker_id = subject.origin.worker.map($crate::lifecycle::WorkerId::get),
            message_id = subject.message.get(),
            attempt = subject.attempt,
            max_attempts = subject.max_attempts,
            $($rest)+
        )
    }};
}

/// An event about a consumer, or a dequeue without one.
macro_rules! of_worker {
    ($level:ident, $queue:expr, $worker:expr, $($rest:tt)+) => {{
        let worker: Option<$crate::lifecycle::WorkerId> = $worker.into();
        tracing::$level!(
            target: $crate::telemetry::names::TARGET,
            queue = $queue.as_str(),
            worker_id = worker.map($crate::lifecycle::WorkerId::get),
            $($rest)+
        )
    }};
}

pub(super) use {of_message, of_worker};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_short_and_texts_bounded() {
        let seconds = [0, 4, 250, 1_000, 9_994, 12_345, 3_600_000]
            .map(|milliseconds| Seconds(Duration::from_millis(milliseconds)).to_string());
        assert_eq!(
            seconds,
            ["0 s", "0 s", "0.25 s", "1 s", "9.99 s", "12 s", "3600 s"]
        );
        let compact = [0, 4, 250, 1_000, 9_994, 12_345]
            .map(|milliseconds| Compact(Duration::from_millis(milliseconds)).to_string());
        assert_eq!(compact, ["0s", "4ms", "250ms", "1s", "9.99s", "12s"]);
        let waits = |policy| Waits(policy).to_string();
        assert_eq!(waits(RetryPolicy::default()), "1s, 2s, 4s, … 3600s");
        assert_eq!(waits(RetryPolicy::fixed(Duration::from_secs(5))), "5s");
        let short = RetryPolicy::builder().cap(Duration::from_secs(3)).build();
        assert_eq!(waits(short), "1s, 2s, 3s");
        assert_eq!(
            [0, 1, 2].map(|handlers| Handlers(handlers).to_string()),
            ["0 handlers", "1 handler", "2 handlers"]
        );
        assert_eq!(bounded("short"), "short");
        let long = "ä".repeat(MAX_TEXT);
        assert!(bounded(&long).ends_with("ä…"));
        assert!(bounded(&long).len() <= MAX_TEXT + 3);
    }
}
