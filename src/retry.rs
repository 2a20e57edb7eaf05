//! How long a message waits after a failed attempt, for consumers and for `nack`; and if its payload doesn't decode. Pure
//! arithmetic: the caller passes the random number for the jitter.

use std::time::Duration;

use typed_builder::TypedBuilder;

/// How long a message waits after a failed attempt: longer each time, up to a cap, and a little apart from
/// others that failed at the same time.
///
/// # Units
/// The wait after attempt `n` is `first * factor^(n - 1)`, at most `cap`, and then shortened at random by
/// up to the fraction `jitter` of itself.
///
/// # Example
/// ```
/// use std::time::Duration;
///
/// use pgqrs::RetryPolicy;
///
/// let policy = RetryPolicy::builder().first(Duration::from_secs(2)).factor(3.0).build();
/// assert_eq!(policy.delay(1), Duration::from_secs(2));
/// assert_eq!(policy.delay(3), Duration::from_secs(18));
///
/// assert_eq!(RetryPolicy::fixed(Duration::from_secs(5)).delay(7), Duration::from_secs(5));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, TypedBuilder)]
#[builder(builder_type(
    doc = "Settings of [`RetryPolicy`], each with its default; made by [`RetryPolicy::builder`]."
))]
pub struct RetryPolicy {
    #[builder(default = Duration::from_secs(1), setter(doc = "The wait after the first attempt; defaults to one second."))]
    first: Duration,
    #[builder(
        default = 2.0,
        setter(
            doc = "Factor by which each further wait is longer; defaults to 2. Values below 1 count as 1."
        )
    )]
    factor: f64,
    #[builder(default = Duration::from_secs(60 * 60), setter(doc = "Maximum wait; defaults to an hour, and is at most a year."))]
    cap: Duration,
    #[builder(
        default = 0.25,
        setter(
            doc = "By how much a wait can be shortened at random, as a fraction from 0 to 1; defaults to 0.25."
        )
    )]
    jitter: f64,
}

const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

impl RetryPolicy {
    /// Returns a policy with the same wait after each attempt, without jitter.
    pub fn fixed(wait: Duration) -> Self {
        Self {
            first: wait,
            factor: 1.0,
            cap: wait,
            jitter: 0.0,
        }
    }

    /// Returns the wait after an attempt, counted from 1, before jitter.
    pub fn delay(&self, attempt: u32) -> Duration {
        let exponent = i32::try_from(attempt.saturating_sub(1)).unwrap_or(i32::MAX);
        // Infinity if it overflows, which is then limited to the cap.
        let seconds = self.first.as_secs_f64() * self.factor.max(1.0).powi(exponent);
        let cap = self.cap.min(LONGEST);
        Duration::try_from_secs_f64(seconds).map_or(cap, |wait| wait.min(cap))
    }

    /// The policy with another wait after the first attempt, and another cap, as far as a queue has its own.
    pub(crate) fn within(mut self, first: Option<Duration>, cap: Option<Duration>) -> Self {
        if let Some(first) = first {
            self.first = first;
            self.cap = self.cap.max(first);
        }
        if let Some(cap) = cap {
            self.cap = cap;
        }
        self
    }

    /// Returns the wait with jitter, for a random number from 0 to 1.
    pub(crate) fn jittered(&self, attempt: u32, random: f64) -> Duration {
        let jitter = if self.jitter.is_finite() {
            self.jitter.clamp(0.0, 1.0)
        } else {
            0.0
        };
        self.delay(attempt)
            .mul_f64(1.0 - jitter * random.clamp(0.0, 1.0))
    }
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self::builder().build()
    }
}

/// What happens to a message whose payload doesn't decode: it waits for a consumer of another version, without using an
/// attempt, and becomes a dead letter if none has come in time. So a message of a new kind survives a rolling deploy;
/// see [the guide](crate::guide::rolling_deploys).
///
/// # Example
/// ```
/// use std::time::Duration;
///
/// use pgqrs::UndecodablePolicy;
///
/// let policy = UndecodablePolicy::builder().wait(Duration::from_secs(10)).build();
/// // For a consumer that no other version runs beside: at once.
/// let at_once = UndecodablePolicy::dead_letter();
/// assert_ne!(policy, at_once);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, TypedBuilder)]
#[builder(builder_type(
    doc = "Settings of [`UndecodablePolicy`], each with its default; made by [`UndecodablePolicy::builder`]."
))]
pub struct UndecodablePolicy {
    #[builder(default = Duration::from_secs(60), setter(
        transform = |wait: Duration| wait.min(LONGEST),
        doc = "How long the message waits until it is delivered again; defaults to a minute, and is at most a year. With zero it is delivered again at once, until `dead_letter_after` has passed."
    ))]
    pub(crate) wait: Duration,
    #[builder(default = Duration::from_secs(60 * 60), setter(
        doc = "How long after it was first found not to decode it becomes a dead letter; defaults to an hour. Zero: at once."
    ))]
    pub(crate) dead_letter_after: Duration,
}

impl UndecodablePolicy {
    /// Returns a policy by which it becomes a dead letter at once.
    pub fn dead_letter() -> Self {
        Self::builder().dead_letter_after(Duration::ZERO).build()
    }
}

impl Default for UndecodablePolicy {
    fn default() -> Self {
        Self::builder().build()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_up_to_the_cap_and_never_overflow() {
        let policy = RetryPolicy::default();
        let seconds: Vec<_> = (1..=5)
            .map(|attempt| policy.delay(attempt).as_secs())
            .collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16]);
        for attempt in [13, 100, u32::MAX] {
            assert_eq!(policy.delay(attempt), Duration::from_secs(3_600));
        }
        assert_eq!(policy.delay(0), policy.delay(1));
        let endless = RetryPolicy::builder()
            .first(Duration::MAX)
            .cap(Duration::MAX)
            .build();
        assert_eq!(endless.delay(u32::MAX), LONGEST);
    }

    #[test]
    fn nonsense_in_a_factor_or_a_jitter_still_gives_a_wait() {
        for nonsense in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0, 0.0] {
            let policy = RetryPolicy::builder()
                .factor(nonsense)
                .jitter(nonsense)
                .build();
            for attempt in [1, 2, 1_000] {
                let wait = policy.jittered(attempt, 0.5);
                assert!(
                    wait <= Duration::from_secs(3_600),
                    "{nonsense} {attempt}: {wait:?}"
                );
            }
        }
    }

    #[test]
    fn what_a_queue_sets_takes_precedence_over_a_policy() {
        let seconds = Duration::from_secs;
        let policy = RetryPolicy::fixed(seconds(5));
        assert_eq!(policy.within(None, None), policy);
        assert_eq!(policy.within(Some(seconds(9)), None).delay(3), seconds(9));
        assert_eq!(policy.within(None, Some(seconds(2))).delay(3), seconds(2));
        let both = RetryPolicy::default().within(Some(seconds(10)), Some(seconds(30)));
        let waits = [1, 2, 3].map(|attempt| both.delay(attempt).as_secs());
        assert_eq!(waits, [10, 20, 30]);
    }

    #[test]
    fn jitter_only_shortens() {
        let policy = RetryPolicy::builder().jitter(0.5).build();
        assert_eq!(policy.jittered(1, 0.0), Duration::from_secs(1));
        assert_eq!(policy.jittered(1, 1.0), Duration::from_millis(500));
        assert_eq!(policy.jittered(1, 7.0), Duration::from_millis(500));
    }
}
