//! When a schedule is due: its times, and what to do about those that passed while no process ran. Decisions only: what
//! is read from the database comes in, and what is to be written goes out.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use serde::Serialize;

use crate::{
    cron::Cron,
    error::{Error, Result},
    times::Times,
};

/// The shortest interval of a schedule.
const SHORTEST: Duration = Duration::from_millis(100);
/// The longest one.
const LONGEST: Duration = Duration::from_secs(100 * 366 * 24 * 60 * 60);
/// How many messages a schedule sends at most for times that it missed.
const MOST_MESSAGES: u32 = 1_000;
/// Up to how many times of an expression that were missed are counted.
const MOST_COUNTED: usize = 1_000;

/// What a schedule does about times that it missed, because no process ran, or the server was away.
///
/// It is never unbounded: after a fortnight, a schedule of every five seconds sends one message, and not 240,000.
///
/// # Example
/// ```no_run
/// # async fn example(store: pgqrs::Store) -> pgqrs::Result<()> {
/// use std::time::Duration;
/// use pgqrs::Missed;
///
/// pgqrs::schedule("poll", "feeds")
///     .every(Duration::from_secs(30))
///     .message(&"all")
///     .missed(Missed::Skip { older_than: Duration::from_secs(60) })
///     .install(&store)
///     .await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Missed {
    /// One message, for the last of them: the default.
    #[default]
    Once,
    /// One message, for the last of them, unless that is older than this. Then there is none until the next time.
    Skip {
        /// From then on a time is too old.
        older_than: Duration,
    },
    /// A message for each of the last ones, up to this number.
    All {
        /// The number, from 1 to 1,000.
        at_most: u32,
    },
}

impl Missed {
    pub(crate) fn check(self) -> Result<Self> {
        match self {
            Self::All { at_most } if at_most == 0 || at_most > MOST_MESSAGES => {
                Err(Error::InvalidSetting {
                    setting: "at_most",
                    value: at_most.to_string(),
                    expected: "from 1 to 1,000",
                })
            }
            Self::Skip { older_than } if older_than > LONGEST => Err(Error::InvalidSetting {
                setting: "older_than",
                value: format!("{older_than:?}"),
                expected: "at most 100 years",
            }),
            missed => Ok(missed),
        }
    }
}

impl Cron {
    /// Returns the times after `after`, in this zone of the tz database.
    ///
    /// # Errors
    /// [`Error::InvalidSetting`] for an unknown zone.
    pub fn times(
        &self,
        after: DateTime<Utc>,
        zone: &str,
    ) -> Result<impl Iterator<Item = DateTime<Utc>> + use<>> {
        let times = Times::new(self, parse_zone(zone)?)?;
        let next = move |time: &DateTime<Utc>| times.next(*time);
        Ok(std::iter::successors(Some(after), next).skip(1))
    }
}

/// A zone by its name in the tz database.
fn parse_zone(name: &str) -> Result<Tz> {
    name.parse().map_err(|_| Error::InvalidSetting {
        setting: "zone",
        value: format!("{name:?}"),
        expected: "a name of the tz database, such as \"Europe/Berlin\"",
    })
}

/// When a schedule is due, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ScheduleTime {
    /// At the times of a cron expression, in a zone of the tz database.
    Cron(Cron),
    /// At an interval.
    Every(Duration),
}

impl ScheduleTime {
    /// An interval, in whole milliseconds.
    pub(crate) fn every(interval: Duration) -> Result<Self> {
        let is_whole = interval.subsec_nanos().is_multiple_of(1_000_000);
        if is_whole && (SHORTEST..=LONGEST).contains(&interval) {
            return Ok(Self::Every(interval));
        }
        Err(Error::InvalidSetting {
            setting: "every",
            value: format!("{interval:?}"),
            expected: "from 100 milliseconds to 100 years, in whole milliseconds",
        })
    }
}

/// The times of a schedule.
#[derive(Debug, Clone)]
pub(crate) enum Timing {
    Cron(Box<Times>),
    Every(TimeDelta),
}

impl Timing {
    pub(crate) fn new(time: &ScheduleTime, zone: &str) -> Result<Self> {
        let zone = parse_zone(zone)?;
        Ok(match time {
            ScheduleTime::Cron(cron) => Self::Cron(Box::new(Times::new(cron, zone)?)),
            ScheduleTime::Every(interval) => {
                Self::Every(TimeDelta::from_std(*interval).unwrap_or(TimeDelta::MAX))
            }
        })
    }

    /// The first time of a schedule that begins now.
    pub(crate) fn first(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        match self {
            Self::Cron(times) => times.next(now),
            Self::Every(interval) => now.checked_add_signed(*interval),
        }
    }

    /// The time after `time`, which is one of its times.
    pub(crate) fn next(&self, time: DateTime<Utc>) -> Option<DateTime<Utc>> {
        // An interval is counted from the time before, and so they are the same.
        self.first(time)
    }

    /// The first one after now of a schedule whose next time is `next_at`: without those that have passed.
    pub(crate) fn skip_to(
        &self,
        next_at: DateTime<Utc>,
        now: DateTime<Utc>,
    ) -> Option<DateTime<Utc>> {
        if next_at > now {
            return Some(next_at);
        }
        match self {
            Self::Cron(times) => times.next(now),
            Self::Every(interval) => {
                let passed = intervals(next_at, now, *interval);
                at(next_at, *interval, passed + 1)
            }
        }
    }
}

/// How many whole intervals there are from `from` to `to`.
fn intervals(from: DateTime<Utc>, to: DateTime<Utc>, interval: TimeDelta) -> i64 {
    (to - from).num_milliseconds() / interval.num_milliseconds().max(1)
}

fn at(from: DateTime<Utc>, interval: TimeDelta, times: i64) -> Option<DateTime<Utc>> {
    let milliseconds = interval.num_milliseconds().checked_mul(times)?;
    from.checked_add_signed(TimeDelta::try_milliseconds(milliseconds)?)
}

/// What a schedule that is due does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    /// The times for which it sends a message, in their order.
    pub(crate) times: Vec<DateTime<Utc>>,
    /// How many times before the first of these have passed without a message; or before now, if there are none. At most
    /// 1,000 of a cron expression are counted.
    pub(crate) missed: u64,
    pub(crate) next_at: DateTime<Utc>,
}

/// Plans what to do for a schedule whose next time, `next_at`, isn't after `now`; `None` if there is no time after that.
pub(crate) fn plan(
    timing: &Timing,
    missed: Missed,
    next_at: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Option<Plan> {
    let wanted = match missed {
        Missed::Once | Missed::Skip { .. } => 1,
        Missed::All { at_most } => at_most as usize,
    };
    let following = timing.skip_to(next_at, now)?;
    let (mut times, mut passed) = match timing {
        Timing::Every(interval) => {
            let due = intervals(next_at, now, *interval) + 1;
            let first = (due - i64::try_from(wanted).unwrap_or(i64::MAX)).max(0);
            let times: Option<Vec<_>> = (first..due).map(|n| at(next_at, *interval, n)).collect();
            (times?, first.unsigned_abs())
        }
        Timing::Cron(cron) => last_times(cron, wanted, next_at, now),
    };
    if let Missed::Skip { older_than } = missed {
        let is_too_old =
            |time: &DateTime<Utc>| (now - *time).to_std().is_ok_and(|age| age > older_than);
        let before = times.len();
        times.retain(|time| !is_too_old(time));
        passed += (before - times.len()) as u64;
    }
    Some(Plan {
        times,
        missed: passed,
        next_at: following,
    })
}

/// The last ones of an expression's times from `next_at` to `now`, up to the number that is wanted, and how many were
/// before them.
fn last_times(
    cron: &Times,
    wanted: usize,
    next_at: DateTime<Utc>,
    now: DateTime<Utc>,
) -> (Vec<DateTime<Utc>>, u64) {
    let next = |time: &DateTime<Utc>| cron.next(*time).filter(|next| *next <= now);
    let mut due: Vec<_> = std::iter::successors(Some(next_at), next)
        .take(MOST_COUNTED + 1)
        .collect();
    if due.len() <= MOST_COUNTED {
        let missed = due.len().saturating_sub(wanted);
        return (due.split_off(missed), missed as u64);
    }
    // Too many to go through: those that are wanted are found from the end.
    let mut times = Vec::new();
    let mut end = now;
    while times.len() < wanted
        && let Some(last) = last_until(cron, next_at, end)
    {
        times.push(last);
        end = last - TimeDelta::milliseconds(1);
    }
    times.reverse();
    (times, MOST_COUNTED as u64)
}

/// The last time that is after `start` and not after `end`, by bisection: a search from before it finds one that isn't
/// after `end`, and a search from it doesn't.
fn last_until(cron: &Times, start: DateTime<Utc>, end: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let next = |from: DateTime<Utc>| cron.next(from).filter(|next| *next <= end);
    let mut found = next(start)?;
    let (mut low, mut high) = (start, end);
    while high - low > TimeDelta::milliseconds(1) {
        let middle = low + (high - low) / 2;
        match next(middle) {
            Some(later) => (low, found) = (middle.max(later), later),
            None => high = middle,
        }
    }
    Some(found)
}

#[cfg(test)]
mod tests;
