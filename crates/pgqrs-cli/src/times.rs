//! Durations and times: as they are written on the command line, and as they are printed.

use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};

/// `90s`, `15m`, `2h 30m`, `7d`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|_| "write a duration such as 90s, 15m, 2h, or 7d".to_owned())
}

/// A duration, or none.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limit(pub(crate) Option<Duration>);

/// A duration, or `none`.
pub(crate) fn limit(text: &str) -> Result<Limit, String> {
    if text == "none" {
        return Ok(Limit(None));
    }
    humantime::parse_duration(text)
        .map(|duration| Limit(Some(duration)))
        .map_err(|_| "write a duration such as 90s, 15m, 2h, or 7d, or `none`".to_owned())
}

/// `2026-01-31T09:00:00Z`, or with another offset.
pub(crate) fn time(text: &str) -> Result<DateTime<Utc>, String> {
    DateTime::parse_from_rfc3339(text)
        .map(|time| time.to_utc())
        .map_err(|_| {
            "write a time with its zone, such as 2026-01-31T09:00:00Z or 2026-01-31T10:00:00+01:00"
                .to_owned()
        })
}

/// A time as it can be passed back to an option: `2026-01-31T09:00:00Z`.
pub(crate) fn shown(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Secs, true)
}

pub(crate) fn shown_if(time: Option<DateTime<Utc>>) -> String {
    time.map_or("-".to_owned(), shown)
}

/// A duration in its two largest units, without those that are zero: `2h 14m`, `45s`.
pub(crate) fn spoken(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if seconds == 0 {
        return if duration.is_zero() {
            "0s".to_owned()
        } else {
            format!("{}ms", duration.as_millis().max(1))
        };
    }
    let units = [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];
    let mut left = seconds;
    let parts = units.map(|(unit, size)| {
        let count = left / size;
        left %= size;
        (count, unit)
    });
    let first = parts.iter().position(|(count, _)| *count > 0).unwrap_or(3);
    let shown = parts[first..]
        .iter()
        .take(2)
        .filter(|(count, _)| *count > 0);
    let shown: Vec<String> = shown
        .map(|(count, unit)| format!("{count}{unit}"))
        .collect();
    shown.join(" ")
}

pub(crate) fn spoken_if(duration: Option<Duration>, otherwise: &str) -> String {
    duration.map_or(otherwise.to_owned(), spoken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_at_most_two_units_and_can_be_passed_back() {
        for (seconds, text) in [
            (0, "0s"),
            (45, "45s"),
            (60, "1m"),
            (3_599, "59m 59s"),
            (8_040, "2h 14m"),
            (86_400, "1d"),
            (100_000_000, "1157d 9h"),
        ] {
            assert_eq!(spoken(Duration::from_secs(seconds)), text);
            assert!(duration(text).is_ok(), "{text}");
        }
        assert_eq!(spoken(Duration::from_millis(250)), "250ms");
    }

    #[test]
    fn times_need_a_zone() {
        let time = |text| time(text).map(shown);
        assert_eq!(
            time("2026-01-31T10:00:00+01:00").as_deref(),
            Ok("2026-01-31T09:00:00Z")
        );
        assert!(time("2026-01-31 10:00").is_err());
    }
}
