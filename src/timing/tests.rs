//! What is planned for times that have passed.

use super::*;

fn utc(text: &str) -> DateTime<Utc> {
    text.parse().expect("a time")
}

fn cron(expression: &str) -> Timing {
    let cron = Cron::parse(expression.to_owned()).expect("valid");
    Timing::new(&ScheduleTime::Cron(cron), "UTC").expect("known")
}

fn every(interval: Duration) -> Timing {
    let time = ScheduleTime::every(interval).expect("valid");
    Timing::new(&time, "UTC").expect("known")
}

fn seconds(seconds: i64) -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::seconds(seconds)
}

#[test]
fn what_is_due_in_time_misses_nothing() {
    for (timing, next) in [
        (every(Duration::from_secs(30)), 30),
        (cron("*/30 * * * * *"), 30),
    ] {
        for missed in [
            Missed::Once,
            Missed::Skip {
                older_than: Duration::from_secs(1),
            },
            Missed::All { at_most: 10 },
        ] {
            let now = DateTime::UNIX_EPOCH + TimeDelta::milliseconds(20);
            let plan = plan(&timing, missed, seconds(0), now).expect("a plan");
            let expected = Plan {
                times: vec![seconds(0)],
                missed: 0,
                next_at: seconds(next),
            };
            assert_eq!(plan, expected, "{missed:?}");
        }
    }
}

#[test]
fn of_many_that_were_missed_the_last_ones_are_sent_as_the_policy_has_it() {
    let now = DateTime::UNIX_EPOCH + TimeDelta::milliseconds(95_500);
    for timing in [every(Duration::from_secs(10)), cron("*/10 * * * * *")] {
        let plan = |missed| plan(&timing, missed, seconds(0), now).expect("a plan");
        let once = plan(Missed::Once);
        assert_eq!((once.times, once.missed), (vec![seconds(90)], 9));
        assert_eq!(once.next_at, seconds(100));
        let skip = |older_than| plan(Missed::Skip { older_than });
        let young = skip(Duration::from_secs(6));
        assert_eq!((young.times, young.missed), (vec![seconds(90)], 9));
        let old = skip(Duration::from_secs(5));
        assert_eq!(
            (old.times, old.missed, old.next_at),
            (vec![], 10, seconds(100))
        );
        let three = plan(Missed::All { at_most: 3 });
        assert_eq!(three.times, [70, 80, 90].map(seconds));
        assert_eq!((three.missed, three.next_at), (7, seconds(100)));
        let all = plan(Missed::All { at_most: 1_000 });
        assert_eq!((all.times.len(), all.missed), (10, 0));
    }
}

/// A process was away for years: nothing goes through all of the times.
#[test]
fn years_of_missed_seconds_are_planned_at_once() {
    let (start, now) = (utc("2020-01-01T00:00:00Z"), utc("2026-11-26T18:00:00.250Z"));
    let last = utc("2026-11-26T18:00:00Z");
    for (timing, counted) in [
        (cron("* * * * * *"), 1_000),
        (
            every(Duration::from_secs(1)),
            (last - start).num_seconds().unsigned_abs(),
        ),
    ] {
        let once = plan(&timing, Missed::Once, start, now).expect("a plan");
        assert_eq!((once.times, once.missed), (vec![last], counted));
        assert_eq!(once.next_at, last + TimeDelta::seconds(1));
        let all = plan(&timing, Missed::All { at_most: 5 }, start, now).expect("a plan");
        let expected: Vec<_> = (0..5).map(|n| last - TimeDelta::seconds(4 - n)).collect();
        assert_eq!(all.times, expected);
    }
    let few = plan(&cron("0 3 29 2 *"), Missed::Once, start, now).expect("a plan");
    assert_eq!(
        (few.times, few.missed),
        (vec![utc("2024-02-29T03:00:00Z")], 2)
    );
}

/// One that another process has moved, or that the tz database has changed: the stored time counts, and then its own.
#[test]
fn a_stored_time_that_is_none_of_the_expressions_counts_once() {
    let plan = plan(
        &cron("0 9 * * *"),
        Missed::Once,
        utc("2026-05-01T08:00:00Z"),
        utc("2026-05-01T08:00:01Z"),
    );
    let plan = plan.expect("a plan");
    assert_eq!(plan.times, [utc("2026-05-01T08:00:00Z")]);
    assert_eq!(plan.next_at, utc("2026-05-01T09:00:00Z"));
}

#[test]
fn intervals_and_policies_have_limits() {
    for bad in [
        Duration::ZERO,
        Duration::from_millis(99),
        Duration::from_micros(100_500),
        Duration::MAX,
    ] {
        assert!(ScheduleTime::every(bad).is_err(), "{bad:?}");
    }
    assert!(ScheduleTime::every(Duration::from_millis(100)).is_ok());
    for bad in [
        Missed::All { at_most: 0 },
        Missed::All { at_most: 1_001 },
        Missed::Skip {
            older_than: Duration::MAX,
        },
    ] {
        assert!(bad.check().is_err(), "{bad:?}");
    }
    assert!(parse_zone("Europe/Atlantis").is_err());
    assert!(parse_zone("Europe/Berlin").is_ok());
}

#[test]
fn resumed_after_a_pause_an_interval_keeps_its_phase() {
    let timing = every(Duration::from_secs(60));
    assert_eq!(
        timing.skip_to(seconds(30), seconds(500)),
        Some(seconds(510))
    );
    assert_eq!(
        timing.skip_to(seconds(510), seconds(500)),
        Some(seconds(510))
    );
    assert_eq!(timing.skip_to(seconds(30), seconds(90)), Some(seconds(150)));
}
