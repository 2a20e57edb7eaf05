//! Cron expressions: checked by the compiler if they are literals, and the times that they stand for in a zone.

mod check;
mod sentence;

use std::{borrow::Cow, fmt, str::FromStr};

use self::{
    check::{Kind, Mistake, check},
    sentence::Sentence,
};

/// A cron expression: when a [schedule](crate::schedule()) sends its messages.
///
/// A literal is checked by the compiler, by [`cron!`](crate::cron!); [`parse`](Self::parse) takes what comes from
/// configuration.
///
/// # Shape
/// Five fields, or six with seconds before them, with spaces in between:
///
/// | field | values | names |
/// |---|---|---|
/// | second, if there are six | 0-59 | |
/// | minute | 0-59 | |
/// | hour | 0-23 | |
/// | day of the month | 1-31, `L` for the last one | |
/// | month | 1-12 | `JAN`-`DEC` |
/// | day of the week | 0-7, Sunday is 0 and 7; `5L` for the last Friday of a month, `5#2` for its second one | `SUN`-`SAT` |
///
/// Each is `*`, a value, a range (`MON-FRI`), one of these with a step (`*/15`, `8-18/2`), or a list of such parts
/// (`0,15,30-40`). Names are the same in lower case. Without seconds, it is second 0. If neither the day of the month
/// nor the day of the week is `*`, a day that matches one of them is enough, as in every cron.
///
/// `@yearly`, `@annually`, `@monthly`, `@weekly` (on Sunday), `@daily` and `@hourly` are names of expressions.
///
/// # When clocks change
/// An expression that doesn't match each hour stands for times on the wall: one that is skipped, when clocks go
/// forward, counts at the end of the gap, and one that happens twice counts once, the first time. One that matches each
/// hour, such as `*/10 * * * *`, goes by elapsed time: it counts whenever clocks show a time that it matches.
///
/// # Source
/// The crate [croner](https://docs.rs/croner) parses expressions and finds their times. The zones' rules are those of
/// the tz database that the crate [chrono-tz](https://docs.rs/chrono-tz) was built with.
///
/// # Example
/// ```
/// use pgqrs::{Cron, cron};
///
/// const WORKDAYS: Cron = cron!("0 9 * * MON-FRI");
/// let from_configuration = Cron::parse("*/10 * * * *")?;
/// for time in WORKDAYS.times(chrono::Utc::now(), "Europe/Berlin")?.take(3) {
///     println!("{time}");
/// }
/// # Ok::<_, pgqrs::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Cron(Cow<'static, str>);

impl Cron {
    /// Returns the expression, which is checked when a constant is evaluated: [`cron!`](crate::cron!) is shorter.
    ///
    /// # Panics
    /// If it is called at run time with a bad expression. For one from configuration, use [`parse`](Self::parse), which
    /// returns an error.
    #[must_use]
    pub const fn new(expression: &'static str) -> Self {
        match check(expression) {
            Ok(_) => Self(Cow::Borrowed(expression)),
            Err(mistake) => panic!("{}", Sentence::of(expression, mistake).as_str()),
        }
    }

    /// Returns an expression that is known only at run time, such as from configuration.
    ///
    /// # Errors
    /// [`InvalidCron`], which says what is wrong with which field. An expression that never fires, such as 30 February, is
    /// invalid too.
    ///
    /// # Example
    /// ```
    /// let invalid = pgqrs::Cron::parse("0 25 * * *").unwrap_err();
    /// assert_eq!(invalid.to_string(), "the hour `25` is not in 0-23");
    /// ```
    pub fn parse(expression: impl Into<Cow<'static, str>>) -> Result<Self, InvalidCron> {
        let expression = expression.into();
        match check(&expression) {
            Ok(_) => Ok(Self(expression)),
            Err(mistake) => Err(InvalidCron {
                expression: expression.into_owned(),
                mistake,
            }),
        }
    }

    /// Returns the expression as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What is stored: whether this version of the crate can compute it turns out when it is needed.
    pub(crate) fn unchecked(expression: String) -> Self {
        Self(Cow::Owned(expression))
    }

    /// Whether it matches in each hour, so that it goes by elapsed time.
    pub(crate) fn is_every_hour(&self) -> bool {
        check(&self.0).is_ok_and(|fields| fields.is_every_hour())
    }

    /// As croner reads it.
    pub(crate) fn pattern(&self) -> Result<croner::Cron, InvalidCron> {
        let invalid = |mistake| InvalidCron {
            expression: self.0.clone().into_owned(),
            mistake,
        };
        check(&self.0).map_err(invalid)?;
        let unsupported = Mistake {
            kind: Kind::Unsupported,
            field: check::Field::Second,
            start: 0,
            end: self.0.len(),
        };
        self.0.parse().map_err(|_| invalid(unsupported))
    }
}

/// Returns a [`Cron`] of a literal that the compiler has checked.
///
/// What it can't be doesn't compile, and the compiler names the field:
///
/// ```compile_fail,E0080
/// let nightly = pgqrs::cron!("0 25 * * *"); // the hour `25` is not in 0-23
/// ```
/// ```compile_fail,E0080
/// let never = pgqrs::cron!("0 0 30 2 *"); // none of its months has the day of the month `30`
/// ```
///
/// # Example
/// ```
/// let workdays = pgqrs::cron!("0 9 * * MON-FRI");
/// assert_eq!(workdays.as_str(), "0 9 * * MON-FRI");
/// ```
#[macro_export]
macro_rules! cron {
    ($expression:literal) => {{
        // An item and not a `const` block: that is evaluated only if its function is used.
        const CRON: $crate::Cron = $crate::Cron::new($expression);
        CRON
    }};
    ($($other:tt)*) => {
        ::std::compile_error!("`cron!` takes a literal; `Cron::parse` takes any text")
    };
}

impl fmt::Debug for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Cron").field(&self.0).finish()
    }
}

impl fmt::Display for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Cron {
    type Err = InvalidCron;

    fn from_str(expression: &str) -> Result<Self, InvalidCron> {
        Self::parse(expression.to_owned())
    }
}

impl serde::Serialize for Cron {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// Why a text is no cron expression.
#[derive(Clone, PartialEq, Eq)]
pub struct InvalidCron {
    expression: String,
    mistake: Mistake,
}

impl InvalidCron {
    /// Returns the expression that was refused.
    pub fn expression(&self) -> &str {
        &self.expression
    }
}

impl fmt::Display for InvalidCron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Sentence::of(&self.expression, self.mistake).as_str())
    }
}

impl fmt::Debug for InvalidCron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InvalidCron")
            .field("expression", &self.expression)
            .field("problem", &self.to_string())
            .finish()
    }
}

impl std::error::Error for InvalidCron {}

#[cfg(test)]
mod tests;
