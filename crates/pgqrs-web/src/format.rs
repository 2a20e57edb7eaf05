//! Times, durations, JSON and texts as they are shown.

use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use maud::{Markup, html};

/// The longest payload that is shown, in bytes.
pub(crate) const SHOWN: usize = 64 * 1024;

/// A time: in full without JavaScript, which then shows how long ago it was.
pub(crate) fn time(time: DateTime<Utc>) -> Markup {
    let full = time.to_rfc3339_opts(SecondsFormat::Millis, true);
    html! { time datetime=(full) { (time.format("%Y-%m-%d %H:%M:%S")) " UTC" } }
}

/// A time in full, and beside it how long ago it was.
pub(crate) fn moment(time: DateTime<Utc>) -> Markup {
    let full = time.to_rfc3339_opts(SecondsFormat::Millis, true);
    html! {
        (time.format("%Y-%m-%d %H:%M:%S")) " UTC"
        // For the script.
        " " time.faint datetime=(full) {}
    }
}

/// A time, or a dash.
pub(crate) fn maybe_time(value: Option<DateTime<Utc>>) -> Markup {
    value.map_or_else(none, time)
}

pub(crate) fn none() -> Markup {
    html! { span.faint { "–" } }
}

pub(crate) fn maybe(value: Option<&str>) -> Markup {
    value.map_or_else(none, |value| html! { (value) })
}

/// A duration in its largest unit, and the next one if that is few.
pub(crate) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 => format!("{} ms", duration.as_millis()),
        1..=119 => format!("{seconds} s"),
        120..=7_199 => format!("{} min", seconds / 60),
        7_200..=172_799 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// A duration that changes with each look, as a limit: what is shown stays the same for a while.
pub(crate) fn about(value: Duration) -> String {
    match value.as_secs() {
        0..=9 => "under 10 s".to_owned(),
        seconds @ 10..=119 => format!("{} s", seconds / 10 * 10),
        _ => duration(value),
    }
}

/// A number with a comma between groups of three digits.
pub(crate) fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The first line of a text, and not much of it.
pub(crate) fn head(text: &str) -> String {
    const LONGEST: usize = 160;
    let line = text.lines().next().unwrap_or_default();
    let mut shown: String = line.chars().take(LONGEST).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}

/// The beginning of a text that may be large, and whether that is not all.
pub(crate) fn beginning(text: &str) -> (&str, bool) {
    if text.len() <= SHOWN {
        return (text, false);
    }
    let mut end = SHOWN;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    (&text[..end], true)
}

/// JSON with a line for each element. Numbers and strings stay as they were sent, digit by digit.
pub(crate) fn pretty(json: &str) -> String {
    let mut shown = String::with_capacity(json.len() * 2);
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    let mut letters = json.chars().peekable();
    let line = |shown: &mut String, depth: usize| {
        shown.push('\n');
        // Deep nesting would be mostly spaces.
        shown.extend(std::iter::repeat_n("  ", depth.min(40)));
    };
    while let Some(letter) = letters.next() {
        if in_string {
            shown.push(letter);
            in_string = escaped || letter != '"';
            escaped = !escaped && letter == '\\';
            continue;
        }
        match letter {
            '"' => {
                in_string = true;
                shown.push('"');
            }
            '{' | '[' => {
                shown.push(letter);
                while letters.next_if(|next| next.is_ascii_whitespace()).is_some() {}
                if let Some(end) = letters.next_if(|next| matches!(next, '}' | ']')) {
                    shown.push(end);
                } else {
                    depth += 1;
                    line(&mut shown, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                line(&mut shown, depth);
                shown.push(letter);
            }
            ',' => {
                shown.push(',');
                line(&mut shown, depth);
            }
            ':' => shown.push_str(": "),
            letter if letter.is_ascii_whitespace() => {}
            letter => shown.push(letter),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_indented_and_keeps_digits_escapes_and_empty_lists() {
        let json =
            r#"{"id":12345678901234567890.10,"a":[],"b":{ },"s":"{\"x\":[1,2]}\\","n":[1, [2]]}"#;
        let expected = "{\n  \"id\": 12345678901234567890.10,\n  \"a\": [],\n  \"b\": {},\n  \"s\": \
                        \"{\\\"x\\\":[1,2]}\\\\\",\n  \"n\": [\n    1,\n    [\n      2\n    ]\n  ]\n}";
        assert_eq!(pretty(json), expected);
        assert_eq!(pretty("12"), "12");
        assert_eq!(pretty("]]{\""), "\n]\n]{\n  \"");
    }

    #[test]
    fn durations_are_short() {
        let shown =
            [0, 90, 3_600, 100_000, 999_999].map(|seconds| duration(Duration::from_secs(seconds)));
        assert_eq!(shown, ["0 ms", "90 s", "60 min", "27 h", "11 days"]);
        let about = [3, 57, 300].map(|seconds| about(Duration::from_secs(seconds)));
        assert_eq!(about, ["under 10 s", "50 s", "5 min"]);
    }

    #[test]
    fn a_long_text_is_cut_between_letters() {
        let text = "é".repeat(SHOWN);
        let (shown, is_cut) = beginning(&text);
        assert!(is_cut && shown.len() <= SHOWN);
        assert_eq!(head("one\ntwo"), "one…");
        assert_eq!(head("one"), "one");
        assert_eq!(number(1_234_567), "1,234,567");
    }
}
