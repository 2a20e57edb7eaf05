//! A count of rows that stops at a limit, since counting millions of messages means reading them.

use std::{fmt, iter::Sum, ops::Add};

use serde::Serialize;

/// How many there are: exactly, or at least.
///
/// It prints as `1,204`, or as `10,000+` if there may be more.
///
/// # Example
/// ```no_run
/// # async fn example(store: pgqrs::Store) -> pgqrs::Result<()> {
/// let stats = pgqrs::admin(&store).queue_stats("tasks").await?;
/// println!("{} ready", stats.ready);
/// if stats.ready.value > 1_000 {
///     println!("a backlog");
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize)]
pub struct Count {
    /// How many were counted.
    pub value: u64,
    /// Whether counting stopped at its limit, so that there may be more.
    pub at_least: bool,
}

impl Count {
    pub(crate) fn new(value: i64, at_least: bool) -> Self {
        Self {
            value: u64::try_from(value).unwrap_or_default(),
            at_least,
        }
    }

    /// Whether there is none.
    pub fn is_zero(self) -> bool {
        self == 0
    }
}

/// Whether it is certain that there are just as many: `10,000+` equals no number.
impl PartialEq<u64> for Count {
    fn eq(&self, other: &u64) -> bool {
        !self.at_least && self.value == *other
    }
}

impl Add for Count {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            value: self.value.saturating_add(other.value),
            at_least: self.at_least || other.at_least,
        }
    }
}

impl Sum for Count {
    fn sum<I: Iterator<Item = Self>>(counts: I) -> Self {
        counts.fold(Self::default(), Add::add)
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plus = if self.at_least { "+" } else { "" };
        f.pad(&format!("{}{plus}", grouped(self.value)))
    }
}

/// A number with a comma between groups of three digits.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_that_stopped_at_its_limit_says_so_and_equals_no_number() {
        let (exact, more) = (Count::new(999, false), Count::new(10_000, true));
        assert_eq!(exact.to_string(), "999");
        assert_eq!(more.to_string(), "10,000+");
        assert_eq!((exact + more).to_string(), "10,999+");
        assert_eq!(format!("{more:>9}"), "  10,000+");
        assert_eq!(exact, 999);
        assert_ne!(more, 10_000);
        assert!(!Count::new(0, true).is_zero());
        assert!(Count::default().is_zero());
    }

    #[test]
    fn digits_are_grouped_by_three() {
        let grouped = [0, 12, 123, 1_234, 123_456, 1_234_567].map(grouped);
        assert_eq!(grouped, ["0", "12", "123", "1,234", "123,456", "1,234,567"]);
    }
}
