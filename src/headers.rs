//! Headers: what travels with a message besides its payload, such as a tenant or the trace that it belongs to. They are
//! checked while an enqueue is built, and travel as one JSON object of texts.

use std::{collections::BTreeMap, fmt, sync::Arc};

#[cfg(feature = "schedules")]
use chrono::SecondsFormat;
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::value::RawValue;

/// Maximum length of a name, in bytes.
const LONGEST_NAME: usize = 64;
/// Maximum size of all names and values that an enqueue sets, in bytes.
const MOST_BYTES: usize = 8 << 10;
/// Names that begin so are for this crate.
const RESERVED: &str = "pgqrs-";
/// The schedule that has sent a message.
#[cfg(feature = "schedules")]
const SCHEDULE: &str = "pgqrs-schedule";
/// The time that a schedule has sent a message for, as RFC 3339 has it.
const SCHEDULED_FOR: &str = "pgqrs-scheduled-for";
/// How many of its times before that one have passed without a message.
#[cfg(feature = "schedules")]
const MISSED: &str = "pgqrs-missed";
/// How much of a name an error shows.
const SHOWN: usize = 80;

/// The headers of a message: texts by name.
///
/// They are set by [`Enqueue::header`](crate::Enqueue::header) and kept with the message through retries, in the archive
/// and in the dead letters. [`Delivery::headers`](crate::Delivery::headers) returns them.
///
/// # Shape
/// Names are unique, and sorted. Values that another program has stored as JSON other than text, such as a number, are
/// returned as that JSON.
///
/// `Debug` prints names only, since a value may be a token or a person's address. Headers are no place for secrets all
/// the same: an operator reads them in the listings of [`admin()`](crate::admin()), and in the tables.
///
/// # Example
/// ```no_run
/// # async fn example(store: pgqrs::Store) -> pgqrs::Result<()> {
/// pgqrs::enqueue()
///     .message(&"hello")
///     .to("tasks")
///     .header("tenant", "acme")
///     .execute(&store)
///     .await?;
/// for delivery in pgqrs::dequeue().from("tasks").execute(&store).await? {
///     assert_eq!(delivery.headers().get("tenant"), Some("acme"));
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Default, Serialize)]
#[serde(transparent)]
pub struct Headers(BTreeMap<String, String>);

impl Headers {
    /// Returns the value of a header, if the message has it.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Returns the names and values, by name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Returns how many headers there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a header of this crate's own, unless the caller has set it.
    #[cfg(feature = "opentelemetry")]
    pub(crate) fn add(&mut self, name: &str, value: impl FnOnce() -> String) {
        if !self.0.contains_key(name) {
            self.0.insert(name.to_owned(), value());
        }
    }

    /// JSON with the schedule of a message, the time that it is for, and how many before it were missed.
    #[cfg(feature = "schedules")]
    pub(crate) fn scheduled(&self, schedule: &str, time: DateTime<Utc>, missed: u64) -> Arc<str> {
        let mut headers = self.clone();
        let time = time.to_rfc3339_opts(SecondsFormat::AutoSi, true);
        headers.0.insert(SCHEDULE.to_owned(), schedule.to_owned());
        headers.0.insert(SCHEDULED_FOR.to_owned(), time);
        headers.0.insert(MISSED.to_owned(), missed.to_string());
        headers.to_json().unwrap_or_default()
    }

    /// The time that a schedule has sent the message for.
    pub(crate) fn scheduled_for(&self) -> Option<DateTime<Utc>> {
        let time = DateTime::parse_from_rfc3339(self.get(SCHEDULED_FOR)?);
        Some(time.ok()?.to_utc())
    }

    /// These, and others that take precedence.
    pub(crate) fn with(&self, others: &Self) -> Self {
        let mut both = self.clone();
        both.0.extend(others.0.clone());
        both
    }

    /// JSON, or `None` if there are no headers. All of it is ASCII, so that a database of any encoding stores it.
    pub(crate) fn to_json(&self) -> Option<Arc<str>> {
        let size = |text: &String| text.len() + 6;
        let mut json = String::with_capacity(
            2 + self
                .0
                .values()
                .chain(self.0.keys())
                .map(size)
                .sum::<usize>(),
        );
        for (name, value) in &self.0 {
            json.push(if json.is_empty() { '{' } else { ',' });
            write_text(&mut json, name);
            json.push(':');
            write_text(&mut json, value);
        }
        if json.is_empty() {
            return None;
        }
        json.push('}');
        Some(json.into())
    }

    /// Reads the headers of a stored message. Whatever another program has stored, this is no error: a message must be
    /// delivered.
    pub(crate) fn from_json(json: &str) -> Self {
        serde_json::from_str(json).map_or_else(|_| Self::of_other_values(json), Self)
    }

    fn of_other_values(json: &str) -> Self {
        let values: BTreeMap<String, Box<RawValue>> =
            serde_json::from_str(json).unwrap_or_default();
        let texts = values.into_iter().map(|(name, value)| {
            let text = serde_json::from_str(value.get());
            (name, text.unwrap_or_else(|_| value.get().to_owned()))
        });
        Self(texts.collect())
    }
}

/// Without the values.
impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Headers ")?;
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// Headers of an enqueue that is being built: all of them are valid, or the first invalid one is kept.
#[derive(Debug, Clone, Default)]
pub(crate) struct NewHeaders {
    headers: Headers,
    /// Of all names and values.
    bytes: usize,
    invalid: Option<InvalidHeader>,
}

impl NewHeaders {
    /// Sets a header, and replaces one of that name. After an invalid one it does nothing.
    pub(crate) fn set(&mut self, name: String, value: String) {
        if self.invalid.is_some() {
            return;
        }
        let replaced = self
            .headers
            .get(&name)
            .map_or(0, |value| name.len() + value.len());
        let bytes = self.bytes - replaced + name.len() + value.len();
        let problem = check_name(&name).or_else(|| check_value(&value));
        let problem = problem.or((bytes > MOST_BYTES).then_some(Problem::TooLarge));
        if let Some(problem) = problem {
            self.invalid = Some(InvalidHeader { name, problem });
            return;
        }
        self.bytes = bytes;
        self.headers.0.insert(name, value);
    }

    /// Whether more headers are of no use, since one of them was invalid.
    pub(crate) fn is_invalid(&self) -> bool {
        self.invalid.is_some()
    }

    pub(crate) fn finish(self) -> Result<Headers, InvalidHeader> {
        match self.invalid {
            Some(invalid) => Err(invalid),
            None => Ok(self.headers),
        }
    }
}

fn check_name(name: &str) -> Option<Problem> {
    let is_allowed = |letter: &char| matches!(letter, 'a'..='z' | '0'..='9' | '.' | '_' | '-');
    if name.is_empty() {
        Some(Problem::Empty)
    } else if name.len() > LONGEST_NAME {
        Some(Problem::TooLong)
    } else if let Some(other) = name.chars().find(|letter| !is_allowed(letter)) {
        Some(Problem::Character(other))
    } else if name.starts_with(RESERVED) {
        Some(Problem::Reserved)
    } else {
        None
    }
}

fn check_value(value: &str) -> Option<Problem> {
    value.contains('\0').then_some(Problem::Nul)
}

/// Why a header can't be sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("header {} can't be sent: {problem}", shown(.name))]
pub struct InvalidHeader {
    name: String,
    problem: Problem,
}

impl InvalidHeader {
    /// Returns the name of the header that was refused.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// A name in an error: its beginning, if it is very long.
fn shown(name: &str) -> String {
    match name.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{:?}…", &name[..end]),
        None => format!("{name:?}"),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Problem {
    Empty,
    TooLong,
    Character(char),
    Reserved,
    Nul,
    TooLarge,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("its name is empty"),
            Self::TooLong => write!(f, "its name is longer than {LONGEST_NAME} bytes"),
            Self::Character(other) => write!(
                f,
                "its name contains {other:?}, and names consist of `a` to `z`, `0` to `9`, `.`, `_` and `-`"
            ),
            Self::Reserved => write!(f, "names that begin with `{RESERVED}` are reserved"),
            Self::Nul => {
                f.write_str("its value contains a NUL character, which PostgreSQL can't store")
            }
            Self::TooLarge => write!(
                f,
                "with it, the names and values have more than {MOST_BYTES} bytes; send large data in the payload"
            ),
        }
    }
}

/// Writes a text as JSON, with escapes for all that isn't printable ASCII.
fn write_text(json: &mut String, text: &str) {
    json.push('"');
    for letter in text.chars() {
        match letter {
            '"' => json.push_str("\\\""),
            '\\' => json.push_str("\\\\"),
            ' '..='~' => json.push(letter),
            _ => {
                for unit in letter.encode_utf16(&mut [0; 2]) {
                    json.push_str("\\u");
                    let digit = |shift: u16| char::from_digit(u32::from(*unit >> shift & 0xf), 16);
                    json.extend([12, 8, 4, 0].into_iter().filter_map(digit));
                }
            }
        }
    }
    json.push('"');
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn new(headers: &[(&str, &str)]) -> Result<Headers, InvalidHeader> {
        let mut new = NewHeaders::default();
        for (name, value) in headers {
            new.set((*name).to_owned(), (*value).to_owned());
        }
        new.finish()
    }

    fn problem(name: &str, value: &str) -> Option<Problem> {
        new(&[(name, value)]).err().map(|invalid| invalid.problem)
    }

    #[test]
    fn names_are_checked_and_each_problem_is_named() {
        for name in ["a", "x.y_z-0", "pgqrs", &"n".repeat(64)] {
            assert_eq!(problem(name, ""), None, "{name}");
        }
        assert_eq!(problem("", ""), Some(Problem::Empty));
        assert_eq!(problem(&"n".repeat(65), ""), Some(Problem::TooLong));
        for other in ['A', ' ', '\n', '\0', ':', '/', 'ä', '\u{7f}', '🦀'] {
            let name = format!("a{other}");
            assert_eq!(
                problem(&name, ""),
                Some(Problem::Character(other)),
                "{name:?}"
            );
        }
        assert_eq!(problem("pgqrs-group", ""), Some(Problem::Reserved));
        assert_eq!(problem("a", "b\0"), Some(Problem::Nul));
    }

    #[test]
    fn all_together_have_a_limit_which_a_replaced_one_does_not_count_for() {
        let half = "v".repeat(MOST_BYTES / 2 - 1);
        let full = new(&[("a", &half), ("b", &half)]).expect("just within the limit");
        assert_eq!(full.len(), 2);
        let over = new(&[("a", &half), ("b", &half), ("c", "")]).expect_err("one byte more");
        assert_eq!((over.name(), over.problem), ("c", Problem::TooLarge));
        let replaced = new(&[("a", &half), ("b", &half), ("a", ""), ("c", "1")]);
        assert_eq!(replaced.expect("there is room again").get("a"), Some(""));
    }

    #[test]
    fn the_first_problem_is_reported_with_the_beginning_of_a_long_name() {
        let invalid = new(&[("A", ""), ("", "")]).expect_err("refused");
        assert_eq!(
            invalid.to_string(),
            "header \"A\" can't be sent: its name contains 'A', and names consist of `a` to `z`, `0` to `9`, `.`, `_` \
             and `-`"
        );
        let invalid = new(&[(&"ä".repeat(9 << 10), "")]).expect_err("refused");
        assert_eq!(invalid.name().len(), 18 << 10);
        assert!(invalid.to_string().len() < 300, "{invalid}");
    }

    #[test]
    fn every_text_is_ascii_as_json_and_read_back() {
        let everything: String = (1..0x1_0000_u32)
            .chain([0x1_f980, 0x10_ffff])
            .filter_map(char::from_u32)
            .collect();
        let headers = Headers(BTreeMap::from([
            ("all".to_owned(), everything),
            ("none".to_owned(), String::new()),
        ]));
        let json = headers.to_json().expect("some");
        assert!(json.bytes().all(|byte| matches!(byte, b' '..=b'~')));
        assert_eq!(Headers::from_json(&json), headers);
        assert_eq!(Headers::default().to_json(), None);
    }

    #[test]
    fn what_others_have_stored_is_read_as_text() {
        let headers = Headers::from_json(r#"{"n": 1.0, "t": "x", "o": {"a": [ ]}, "z": null}"#);
        let all: Vec<_> = headers.iter().collect();
        let expected = [
            ("n", "1.0"),
            ("o", r#"{"a": [ ]}"#),
            ("t", "x"),
            ("z", "null"),
        ];
        assert_eq!(all, expected);
        for other in ["[]", "1", "null", "\"{}\""] {
            assert!(Headers::from_json(other).is_empty(), "{other}");
        }
    }

    #[test]
    fn debug_prints_names_and_never_values() {
        let headers = new(&[("b", "secret"), ("a", "secret")]).expect("valid");
        assert_eq!(format!("{headers:?}"), r#"Headers {"a", "b"}"#);
        assert_eq!(json!(headers), json!({"a": "secret", "b": "secret"}));
    }
}
