//! What is printed: text for people, or JSON for programs. Results go to standard output, everything else to standard
//! error.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    exit::Exit,
    failure::{Failure, Result},
    redact::without_passwords,
};

/// Where results go, and in which form.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    json: bool,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        Self { json }
    }

    /// Prints a result: as one line of JSON, or the text.
    pub(crate) fn print(self, value: &impl Serialize, text: impl FnOnce() -> String) -> Result<()> {
        if self.json {
            self.lines(&as_json(value).to_string())
        } else {
            self.lines(&text())
        }
    }

    /// Prints what has the same form for everybody, such as SQL.
    pub(crate) fn lines(self, text: &str) -> Result<()> {
        let mut out = io::stdout().lock();
        writeln!(out, "{}", text.trim_end_matches('\n'))?;
        Ok(out.flush()?)
    }

    /// A remark beside the result.
    pub(crate) fn note(self, text: &str) {
        let text = without_passwords(text);
        if self.json {
            eprintln!("{}", json!({"note": text.trim()}));
        } else {
            eprintln!("{text}");
        }
    }

    pub(crate) fn failure(self, failure: &Failure) {
        if failure.exit() == Exit::Done {
            return;
        }
        let message = printable(&without_passwords(failure.message()));
        if self.json {
            eprintln!(
                "{}",
                json!({"error": message, "exit_code": failure.exit() as u8})
            );
        } else {
            eprintln!("error: {message}");
        }
    }
}

/// A value as JSON, with durations as a number of seconds.
pub(crate) fn as_json(value: &impl Serialize) -> Value {
    let value = serde_json::to_value(value).expect("our results have only texts as names");
    with_seconds(value)
}

/// serde writes a `Duration` as seconds and nanoseconds.
fn with_seconds(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            if let (2, Some(seconds), Some(nanos)) = (
                fields.len(),
                fields.get("secs").and_then(Value::as_u64),
                fields.get("nanos").and_then(Value::as_u64),
            ) {
                return match nanos {
                    0 => json!(seconds),
                    #[expect(clippy::cast_precision_loss, reason = "microseconds suffice")]
                    nanos => json!(seconds as f64 + nanos as f64 / 1e9),
                };
            }
            let fields = fields.into_iter();
            Value::Object(
                fields
                    .map(|(name, value)| (name, with_seconds(value)))
                    .collect(),
            )
        }
        Value::Array(items) => Value::Array(items.into_iter().map(with_seconds).collect()),
        other => other,
    }
}

/// A text that others chose, without what would move a terminal's cursor.
pub(crate) fn printable(text: &str) -> String {
    text.replace(|letter: char| letter.is_control(), " ")
}

/// A number with a comma between thousands.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 message`, `12 messages`.
pub(crate) fn counted(number: u64, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", grouped(number))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn durations_are_seconds_in_json_wherever_they_are() {
        let value =
            json!([{"a": Duration::from_millis(1500), "b": {"c": Duration::from_secs(60)}}]);
        assert_eq!(as_json(&value), json!([{"a": 1.5, "b": {"c": 60}}]));
    }

    #[test]
    fn thousands_are_grouped() {
        let all = [0, 999, 1_000, 1_234_567].map(grouped);
        assert_eq!(all, ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(counted(1, "message"), "1 message");
        assert_eq!(counted(2_000, "message"), "2,000 messages");
    }

    #[test]
    fn what_others_wrote_cannot_move_the_cursor() {
        assert_eq!(printable("a\u{1b}[2Jb\nc"), "a [2Jb c");
    }
}
