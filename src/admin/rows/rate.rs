//! How many attempts start within a time.

use std::time::Duration;

use serde::Serialize;

use crate::error::{Error, Result};

const SHORTEST: Duration = Duration::from_millis(1);
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);
const SECOND: Duration = Duration::from_secs(1);

/// How many attempts start within a time, on average, and how many [at once](Self::burst).
///
/// What isn't used is saved up to one burst: what comes in a second, or in the rate's own time if that is shorter, and at
/// least one. So within its time a rate lets at most `messages + burst - 1` attempts start, wherever that time begins: 100
/// in each minute for a hundred a minute, and up to 199 in a second for a hundred a second. For an even pace, write the
/// rate with one message: `Rate::new(1, Duration::from_millis(10))`.
///
/// An attempt starts when its message is claimed, by the database's clock.
///
/// # Example
/// ```no_run
/// # async fn example(store: pgqrs::Store) -> pgqrs::Result<()> {
/// use std::time::Duration;
///
/// use pgqrs::{QueueOptions, Rate};
///
/// let a_hundred_a_minute = Rate::new(100, Duration::from_secs(60));
/// let options = QueueOptions::builder().rate(a_hundred_a_minute).build();
/// pgqrs::admin(&store).configure_queue("emails", options).await?;
///
/// let options = QueueOptions::builder().rate(None).build();
/// pgqrs::admin(&store).configure_queue("emails", options).await?; // no limit any more
/// # Ok(())
/// # }
/// ```
///
/// # Source
/// The generic cell rate algorithm of [ITU-T I.371](https://www.itu.int/rec/T-REC-I.371), whose state is one time for each
/// queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub struct Rate {
    messages: u32,
    per: Duration,
}

impl Rate {
    /// Lets `messages` attempts start within `per`: from 1 to 2,147,483,647, and from a millisecond to 365 days. Other values
    /// are refused when the rate is set, with [`Error::InvalidSetting`].
    pub const fn new(messages: u32, per: Duration) -> Self {
        Self { messages, per }
    }

    /// Returns the number of messages.
    pub const fn messages(&self) -> u32 {
        self.messages
    }

    /// Returns the time.
    pub const fn per(&self) -> Duration {
        self.per
    }

    /// Returns how many attempts can start at once, after a time in which none did: what comes in a second, or in the rate's
    /// own time if that is shorter, and at least one.
    pub fn burst(&self) -> u32 {
        let microseconds = self.per.as_micros().max(1);
        let burst = u128::from(self.messages) * microseconds.min(SECOND.as_micros()) / microseconds;
        u32::try_from(burst).unwrap_or(u32::MAX).max(1)
    }

    pub(crate) fn check(&self) -> Result<()> {
        let is_countable = self.messages > 0 && i32::try_from(self.messages).is_ok();
        if is_countable && (SHORTEST..=LONGEST).contains(&self.per) {
            return Ok(());
        }
        Err(Error::InvalidSetting {
            setting: "rate",
            value: format!("{} per {:?}", self.messages, self.per),
            expected: "from 1 to 2147483647 messages, per a millisecond to 365 days",
        })
    }

    /// As the database has it, in microseconds.
    pub(crate) fn of_columns(messages: Option<i32>, per: Option<i64>) -> Option<Self> {
        Some(Self {
            messages: messages?.unsigned_abs(),
            per: Duration::from_micros(per?.unsigned_abs()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_what_comes_in_a_second_and_at_least_one() {
        let minute = Duration::from_secs(60);
        for (messages, per, burst) in [
            (100, minute, 1),
            (119, minute, 1),
            (120, minute, 2),
            (100, SECOND, 100),
            (1, Duration::from_secs(3_600), 1),
            (5, Duration::from_millis(100), 5),
            (1, Duration::from_millis(10), 1),
            (u32::MAX, SHORTEST, u32::MAX),
            (7, Duration::ZERO, 7),
        ] {
            assert_eq!(
                Rate::new(messages, per).burst(),
                burst,
                "{messages} per {per:?}"
            );
        }
    }

    #[test]
    fn rates_that_the_database_can_t_count_are_refused() {
        assert!(Rate::new(1, SHORTEST).check().is_ok());
        assert!(Rate::new(i32::MAX.unsigned_abs(), LONGEST).check().is_ok());
        for rate in [
            Rate::new(0, SECOND),
            Rate::new(1 << 31, SECOND),
            Rate::new(1, Duration::from_micros(999)),
            Rate::new(1, LONGEST + SHORTEST),
        ] {
            assert!(rate.check().is_err(), "{rate:?}");
        }
    }
}
