//! The times of an expression in a zone. croner finds them on the wall, and here they become instants: it treats an
//! expression with several times a day as one that goes by elapsed time, and would leave out what a gap skips.

use chrono::{DateTime, NaiveDateTime, TimeZone, Utc, offset::LocalResult};
use chrono_tz::{GapInfo, Tz};

use crate::cron::{Cron, InvalidCron};

/// The times of an expression in a zone.
#[derive(Debug, Clone)]
pub(crate) struct Times {
    pattern: croner::Cron,
    zone: Tz,
    is_every_hour: bool,
}

impl Times {
    pub(crate) fn new(cron: &Cron, zone: Tz) -> Result<Self, InvalidCron> {
        Ok(Self {
            pattern: cron.pattern()?,
            zone,
            is_every_hour: cron.is_every_hour(),
        })
    }

    /// The first time after this one; `None` if there is none before the end of the calendar.
    pub(crate) fn next(&self, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let local = after.with_timezone(&self.zone);
        if self.is_every_hour {
            let next = self.pattern.find_next_occurrence(&local, false).ok()?;
            return Some(next.to_utc());
        }
        let mut wall = local.naive_local();
        loop {
            wall = self.pattern.find_next_occurrence(&wall, false).ok()?;
            let next = self.instant(wall)?;
            // What clocks show for the second time has been, the first time.
            if next > after {
                return Some(next);
            }
        }
    }

    /// The first instant at which clocks show this time or a later one.
    fn instant(&self, wall: NaiveDateTime) -> Option<DateTime<Utc>> {
        match self.zone.from_local_datetime(&wall) {
            LocalResult::Single(instant) | LocalResult::Ambiguous(instant, _) => {
                Some(instant.to_utc())
            }
            LocalResult::None => Some(GapInfo::new(&wall, &self.zone)?.end?.to_utc()),
        }
    }
}

#[cfg(test)]
mod tests;
