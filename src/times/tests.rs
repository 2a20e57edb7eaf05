//! Times in zones, against a definition that looks at each minute: a time on the wall counts at the first instant at
//! which clocks show it or a later one.

use chrono::{Datelike, NaiveDate, NaiveTime, Offset, TimeDelta, Timelike};
use chrono_tz::TZ_VARIANTS;

use super::*;

fn times(expression: &str, zone: Tz) -> Times {
    let cron = Cron::parse(expression.to_owned()).expect("valid");
    Times::new(&cron, zone).expect("known to croner")
}

fn utc(text: &str) -> DateTime<Utc> {
    text.parse().expect("a time")
}

/// What clocks show.
fn wall(zone: Tz, at: DateTime<Utc>) -> NaiveDateTime {
    let offset = zone.offset_from_utc_datetime(&at.naive_utc()).fix();
    at.naive_utc() + TimeDelta::seconds(i64::from(offset.local_minus_utc()))
}

/// Each change of a zone's clocks from 2020 to 2040, to the minute: the first one at the new offset.
fn transitions(zone: Tz) -> Vec<DateTime<Utc>> {
    let offset = |at: DateTime<Utc>| wall(zone, at) - at.naive_utc();
    let (mut at, end) = (utc("2020-01-01T00:00:00Z"), utc("2041-01-01T00:00:00Z"));
    let mut found = Vec::new();
    let mut before = offset(at);
    while at < end {
        // No zone changes twice within that time: Palestine does within six days, in 2040.
        let next = at + TimeDelta::days(5);
        let after = offset(next);
        if before != after {
            let (mut low, mut high) = (at, next);
            while high - low > TimeDelta::minutes(1) {
                let middle = low + TimeDelta::minutes((high - low).num_minutes() / 2);
                if offset(middle) == before {
                    low = middle;
                } else {
                    high = middle;
                }
            }
            found.push(high);
        }
        (at, before) = (next, after);
    }
    found
}

/// An expression, and the same written in Rust.
type Example = (&'static str, Matches);

const ON_THE_WALL: [Example; 9] = [
    ("30 2 * * *", |at| (at.hour(), at.minute()) == (2, 30)),
    ("0 0 * * *", |at| (at.hour(), at.minute()) == (0, 0)),
    ("0 3 * * *", |at| (at.hour(), at.minute()) == (3, 0)),
    ("*/20 0-3 * * *", |at| {
        at.minute() % 20 == 0 && at.hour() <= 3
    }),
    ("15,45 1-23/2 * * *", |at| {
        matches!(at.minute(), 15 | 45) && at.hour() % 2 == 1
    }),
    ("59 23 * * SAT", |at| {
        (at.hour(), at.minute()) == (23, 59) && at.weekday() == chrono::Weekday::Sat
    }),
    ("30 0,23 * * SUN", |at| {
        at.minute() == 30 && matches!(at.hour(), 0 | 23) && at.weekday() == chrono::Weekday::Sun
    }),
    ("10 2 L * *", |at| {
        (at.hour(), at.minute()) == (2, 10) && (at.date() + TimeDelta::days(1)).day() == 1
    }),
    ("45 1 * MAR,OCT,NOV SUN", |at| {
        (at.hour(), at.minute()) == (1, 45)
            && matches!(at.month(), 3 | 10 | 11)
            && at.weekday() == chrono::Weekday::Sun
    }),
];

const BY_ELAPSED_TIME: [Example; 4] = [
    ("*/5 * * * *", |at| at.minute() % 5 == 0),
    ("*/15 * * * *", |at| at.minute() % 15 == 0),
    ("7 * * * *", |at| at.minute() == 7),
    ("30 */1 * * SUN", |at| {
        at.minute() == 30 && at.weekday() == chrono::Weekday::Sun
    }),
];

/// What clocks show in each minute around a change.
struct Around {
    start: DateTime<Utc>,
    end: DateTime<Utc>,
    /// Each minute, from the start, with what clocks show.
    shown: Vec<(DateTime<Utc>, NaiveDateTime)>,
    /// Each time on the wall, with the minute at which clocks first show it or a later one.
    passed: Vec<(DateTime<Utc>, NaiveDateTime)>,
}

impl Around {
    /// A day has each of the times on the wall.
    fn new(zone: Tz, change: DateTime<Utc>) -> Self {
        let (minute, half) = (TimeDelta::minutes(1), TimeDelta::hours(13));
        let (start, end) = (change - half, change + half);
        let (mut shown, mut passed) = (Vec::new(), Vec::new());
        let mut at = start;
        // The latest that clocks have shown: those of before the change are the same for hours.
        let mut latest = wall(zone, at);
        while at < end {
            at += minute;
            let now = wall(zone, at);
            shown.push((at, now));
            while latest < now {
                latest += minute;
                passed.push((at, latest));
            }
        }
        Self {
            start,
            end,
            shown,
            passed,
        }
    }

    /// Without what is further away from the change: an hour has each of the times that go by elapsed time, and no clock
    /// changes by more than two.
    fn narrow(mut self) -> Self {
        let by = TimeDelta::hours(10);
        (self.start, self.end) = (self.start + by, self.end - by);
        self.shown
            .retain(|(at, _)| self.start < *at && *at <= self.end);
        self
    }

    /// Compares the times of an expression with the definition, and returns how many there are.
    fn compare(&self, expression: &str, times: &Times, minutes: &Minutes, is: Matches) -> usize {
        let mut expected: Vec<_> = minutes.iter().filter(|(_, wall)| is(*wall)).collect();
        expected.dedup_by_key(|(at, _)| *at);
        let mut expected = expected.into_iter().map(|(at, _)| *at);
        let mut at = self.start;
        let mut compared = 0;
        loop {
            let found = times.next(at).filter(|found| *found <= self.end);
            let expected = expected.next();
            assert_eq!(found, expected, "{expression} in {} after {at}", times.zone);
            match found {
                Some(found) => at = found,
                None => return compared,
            }
            compared += 1;
        }
    }
}

type Minutes = [(DateTime<Utc>, NaiveDateTime)];
type Matches = fn(NaiveDateTime) -> bool;

#[test]
fn around_each_change_of_clocks_in_every_zone_times_are_as_defined() {
    let (mut changes, mut compared) = (0, 0);
    let mut seen = std::collections::HashSet::new();
    // Parsed once: a zone is only set.
    let parsed = |(expression, matches): Example| (expression, times(expression, Tz::UTC), matches);
    let mut on_the_wall = ON_THE_WALL.map(parsed);
    let mut by_elapsed_time = BY_ELAPSED_TIME.map(parsed);
    for zone in TZ_VARIANTS {
        for change in transitions(zone) {
            changes += 1;
            // Zones that show the same around a change are computed alike.
            let before = wall(zone, change - TimeDelta::minutes(1));
            if !seen.insert((change, before, wall(zone, change))) {
                continue;
            }
            let around = Around::new(zone, change);
            for (expression, times, matches) in &mut on_the_wall {
                times.zone = zone;
                compared += around.compare(expression, times, &around.passed, *matches);
            }
            let around = around.narrow();
            for (expression, times, matches) in &mut by_elapsed_time {
                times.zone = zone;
                compared += around.compare(expression, times, &around.shown, *matches);
            }
        }
    }
    assert!(changes > 8_000, "only {changes} changes");
    assert!(compared > 100_000, "only {compared} times");
}

/// Examples that can be checked by hand.
#[test]
fn a_time_in_a_gap_is_at_its_end_and_a_repeated_one_comes_once() {
    let berlin = chrono_tz::Europe::Berlin;
    let first = |expression, after| times(expression, berlin).next(utc(after));
    // 2 o'clock becomes 3 o'clock at 01:00 UTC.
    let gap = "2026-03-28T12:00:00Z";
    assert_eq!(first("30 2 * * *", gap), Some(utc("2026-03-29T01:00:00Z")));
    let after_gap = "2026-03-29T01:00:00Z";
    assert_eq!(
        first("30 2 * * *", after_gap),
        Some(utc("2026-03-30T00:30:00Z"))
    );
    // 3 o'clock becomes 2 o'clock at 01:00 UTC.
    let twice = "2026-10-24T12:00:00Z";
    assert_eq!(
        first("30 2 * * *", twice),
        Some(utc("2026-10-25T00:30:00Z"))
    );
    let once = "2026-10-25T00:30:00Z";
    assert_eq!(first("30 2 * * *", once), Some(utc("2026-10-26T01:30:00Z")));
    let in_the_second = "2026-10-25T01:10:00Z";
    assert_eq!(
        first("30 2 * * *", in_the_second),
        Some(utc("2026-10-26T01:30:00Z"))
    );
    assert_eq!(first("30 * * * *", once), Some(utc("2026-10-25T01:30:00Z")));
}

#[test]
fn each_second_of_a_repeated_hour_counts_once() {
    let times = times("*/10 * 2 * * *", chrono_tz::Europe::Berlin);
    let start = utc("2026-10-24T23:59:59Z");
    let all: Vec<_> = std::iter::successors(times.next(start), |at| times.next(*at))
        .take_while(|at| *at < utc("2026-10-25T12:00:00Z"))
        .collect();
    assert_eq!(all.len(), 360);
    assert_eq!(all[359], utc("2026-10-25T00:59:50Z"));
    // From within the hour that comes again.
    assert_eq!(
        times.next(utc("2026-10-25T01:30:00.5Z")),
        Some(utc("2026-10-26T01:00:00Z"))
    );
}

#[test]
fn the_last_days_and_nth_weekdays_of_months_are_found() {
    let days = |expression: &str, count: usize| {
        let times = times(expression, Tz::UTC);
        std::iter::successors(times.next(utc("2027-12-31T23:59:00Z")), |at| {
            times.next(*at)
        })
        .take(count)
        .map(|at| (at.month(), at.day()))
        .collect::<Vec<_>>()
    };
    assert_eq!(days("0 0 L * *", 3), [(1, 31), (2, 29), (3, 31)]);
    assert_eq!(days("0 0 * * 5L", 2), [(1, 28), (2, 25)]);
    assert_eq!(days("0 0 * * FRI#2", 2), [(1, 14), (2, 11)]);
    assert_eq!(days("0 0 29 2 *", 2), [(2, 29), (2, 29)]);
    // Either of the two.
    assert_eq!(days("0 0 13 * FRI", 3), [(1, 7), (1, 13), (1, 14)]);
    assert_eq!(days("@yearly", 1), [(1, 1)]);
    assert_eq!(days("@weekly", 2), [(1, 2), (1, 9)]);
    let noon = NaiveDate::from_ymd_opt(2028, 1, 3)
        .expect("a day")
        .and_time(NaiveTime::from_hms_opt(12, 0, 5).expect("a time"));
    let with_seconds = times("5 0 12 * * MON-FRI", Tz::UTC);
    assert_eq!(
        with_seconds.next(utc("2027-12-31T12:00:05Z")),
        Some(noon.and_utc())
    );
}
