//! Queues by name and by payload type. `.to(..)` and `.from(..)` accept anything that implements [`IntoQueue`]. A
//! [`Queue`] is only a name with a type: it need not exist in the database.

pub(crate) mod grouped;
mod key;
mod schedules;

use std::{borrow::Cow, fmt, marker::PhantomData, str::FromStr};

use serde::{Serialize, de::DeserializeOwned};

pub(crate) use self::key::{KeyOf, KeyOfJson};
use crate::error::Error;

/// A queue's name with the type of its payloads.
///
/// Declare one as a constant, and only that type can be enqueued and is dequeued:
///
/// ```
/// use pgqrs::Queue;
///
/// #[derive(serde::Serialize, serde::Deserialize)]
/// struct SendEmail {
///     to: String,
/// }
///
/// const EMAILS: Queue<SendEmail> = Queue::new("emails");
///
/// let enqueue = pgqrs::enqueue().message(&SendEmail { to: "ada@example.com".into() }).to(EMAILS);
/// ```
///
/// Another payload doesn't compile:
///
/// ```compile_fail,E0277
/// # use pgqrs::Queue;
/// # #[derive(serde::Serialize, serde::Deserialize)] struct SendEmail { to: String }
/// # const EMAILS: Queue<SendEmail> = Queue::new("emails");
/// let enqueue = pgqrs::enqueue().message(&42).to(EMAILS);
/// ```
///
/// Without a type, `Queue` takes whatever serialises and is read as [`serde_json::Value`], just like a
/// plain `"emails"`.
///
/// # When the payload's type changes
/// Messages wait in the queue while a service is deployed, and for a while its old and its new version run
/// side by side. The type ties together what one version of a program sends and reads; between versions,
/// serde's rules hold:
///
/// - a field that is added has a `#[serde(default)]`, for messages that were sent without it. Old consumers ignore
///   fields that they don't know, unless the type has `deny_unknown_fields`;
/// - a field that is removed had a default before, for consumers that still expect it;
/// - a new kind of message is a new variant of an enum with a `#[serde(tag = "kind")]`. It is an enum from
///   the start, or a queue of its own.
///
/// What an old consumer can't decode is not lost. [`payload`](crate::Delivery::payload) returns [`Error::Decode`] for
/// that message alone, and the delivery can be [put off](crate::Delivery::later).
/// [`Consumer::run`](crate::Consumer::run) puts it back without calling the handler, for an hour by default, and then
/// makes it a dead letter; see [the guide](crate::guide::rolling_deploys). `examples/payload_evolution.rs` and
/// `examples/rolling_deploy.rs` show all of it.
pub struct Queue<T = Untyped> {
    name: QueueName,
    key: Option<KeyOf<T>>,
    carries: PhantomData<fn() -> T>,
}

impl<T> Queue<T> {
    /// Returns a queue with that name, which is checked when the constant is evaluated: a bad name doesn't compile.
    ///
    /// ```compile_fail,E0080
    /// const EMAILS: pgqrs::Queue = pgqrs::Queue::new(" emails");
    /// ```
    ///
    /// # Panics
    /// If it is called at run time with a bad name. For a name from configuration, use
    /// [`named`](Self::named), which returns an error.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        match check(name) {
            None => Self::of(QueueName(Cow::Borrowed(name))),
            Some(Problem::Empty) => panic!("a queue's name must not be empty"),
            Some(Problem::TooLong) => panic!("a queue's name must not be longer than 128 bytes"),
            Some(Problem::Control) => panic!("a queue's name must not contain a control character"),
            Some(Problem::WhiteSpace) => {
                panic!("a queue's name must not begin or end with white space")
            }
        }
    }

    /// Returns a queue whose name is known only at run time, such as from configuration.
    ///
    /// # Errors
    /// [`InvalidQueueName`], which says what is wrong with it.
    ///
    /// # Example
    /// ```
    /// use pgqrs::Queue;
    ///
    /// #[derive(serde::Serialize, serde::Deserialize)]
    /// struct SendEmail {
    ///     to: String,
    /// }
    ///
    /// # fn main() -> Result<(), pgqrs::InvalidQueueName> {
    /// let name = std::env::var("EMAIL_QUEUE").unwrap_or("emails".into());
    /// let emails = Queue::<SendEmail>::named(name)?;
    /// let enqueue = pgqrs::enqueue().message(&SendEmail { to: "ada@example.com".into() }).to(&emails);
    /// # Ok(())
    /// # }
    /// ```
    pub fn named(name: impl Into<Cow<'static, str>>) -> Result<Self, InvalidQueueName> {
        Ok(Self::of(QueueName::new(name)?))
    }

    /// Returns the queue's name.
    pub fn name(&self) -> &QueueName {
        &self.name
    }

    pub(crate) const fn of(name: QueueName) -> Self {
        Self {
            name,
            key: None,
            carries: PhantomData,
        }
    }
}

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Self {
            key: self.key,
            ..Self::of(self.name.clone())
        }
    }
}

impl<T> fmt::Debug for Queue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Queue").field(&self.name.as_str()).finish()
    }
}

impl<T> fmt::Display for Queue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name.fmt(f)
    }
}

/// The queue computes the group of each message.
#[derive(Debug)]
pub struct Grouped(());

/// Each enqueue says whether its messages have a group.
#[derive(Debug)]
pub struct Ungrouped(());

/// What a queue carries that is named by a plain string: it takes any payload, and is read as [`serde_json::Value`].
#[derive(Debug)]
pub struct Untyped(());

/// A queue's name, checked: 1 to 128 bytes, no control characters, no white space at either end.
///
/// Names compare byte by byte, so `"Tasks"` and `"tasks"` are two queues.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct QueueName(Cow<'static, str>);

impl QueueName {
    /// Returns a checked name from a string that is known only at run time.
    ///
    /// # Errors
    /// [`InvalidQueueName`], which says what is wrong with it.
    pub fn new(name: impl Into<Cow<'static, str>>) -> Result<Self, InvalidQueueName> {
        let name = name.into();
        match check(&name) {
            None => Ok(Self(name)),
            Some(problem) => Err(InvalidQueueName {
                name: name.into_owned(),
                problem,
            }),
        }
    }

    /// Returns the name as a string.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for QueueName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for QueueName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for QueueName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl FromStr for QueueName {
    type Err = InvalidQueueName;

    fn from_str(name: &str) -> Result<Self, InvalidQueueName> {
        Self::new(name.to_owned())
    }
}

/// Why a string can't be a queue's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} can't be a queue's name: it {problem}")]
pub struct InvalidQueueName {
    name: String,
    problem: Problem,
}

impl InvalidQueueName {
    /// Returns the string that was refused.
    pub fn name(&self) -> &str {
        &self.name
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Problem {
    Empty,
    TooLong,
    Control,
    WhiteSpace,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "is empty",
            Self::TooLong => "is longer than 128 bytes",
            Self::Control => "contains a control character",
            Self::WhiteSpace => "begins or ends with white space",
        })
    }
}

const LONGEST: usize = 128;

/// The one place where names are checked, at compile time and at run time alike, so it uses only what a `const fn` may
/// call.
const fn check(name: &str) -> Option<Problem> {
    let bytes = name.as_bytes();
    if bytes.is_empty() {
        return Some(Problem::Empty);
    }
    if bytes.len() > LONGEST {
        return Some(Problem::TooLong);
    }
    let (mut at, mut last) = (0, 0);
    while at < bytes.len() {
        // U+0080 to U+009F are control characters too: C2 80 to C2 9F in UTF-8.
        let second_half = bytes[at] == 0xc2 && bytes[at + 1] < 0xa0;
        if bytes[at].is_ascii_control() || second_half {
            return Some(Problem::Control);
        }
        if is_boundary(bytes[at]) {
            last = at;
        }
        at += 1;
    }
    if decode(bytes, 0).is_whitespace() || decode(bytes, last).is_whitespace() {
        return Some(Problem::WhiteSpace);
    }
    None
}

const fn is_boundary(byte: u8) -> bool {
    byte & 0b1100_0000 != 0b1000_0000
}

/// The character that starts at a boundary of well-formed UTF-8.
const fn decode(bytes: &[u8], start: usize) -> char {
    let lead = bytes[start];
    let mut code = match lead {
        0..0x80 => lead as u32,
        0x80..0xe0 => (lead & 0x1f) as u32,
        0xe0..0xf0 => (lead & 0x0f) as u32,
        0xf0.. => (lead & 0x07) as u32,
    };
    let mut at = start + 1;
    while at < bytes.len() && !is_boundary(bytes[at]) {
        code = code << 6 | (bytes[at] & 0x3f) as u32;
        at += 1;
    }
    match char::from_u32(code) {
        Some(character) => character,
        None => char::REPLACEMENT_CHARACTER,
    }
}

mod sealed {
    use super::{Error, KeyOf, QueueName};

    pub trait IntoName {
        type Of;

        fn key(&self) -> Option<KeyOf<Self::Of>> {
            None
        }

        fn into_name(self) -> Result<QueueName, Error>;
    }
}

/// What names a queue: a string, a [`QueueName`], or a [`Queue`] by value or by reference.
///
/// A string that can't be a queue's name is reported by `.execute(..)`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not name a queue",
    label = "expected a name such as `\"tasks\"`, or a `Queue`",
    note = "declare a queue with its payload: `const TASKS: Queue<Task> = Queue::new(\"tasks\");`"
)]
pub trait IntoQueue: sealed::IntoName<Of = Self::Carries> {
    /// What the queue carries: a payload type, or [`Untyped`].
    type Carries;
    /// Whether the queue computes the group of each message: [`Grouped`], or [`Ungrouped`].
    type Grouping;
}

macro_rules! into_queue {
    ($([$($generics:tt)*] $named:ty, $carries:ty, $grouping:ty, |$queue:ident| $name:expr $(, $key:expr)?;)*) => {$(
        #[diagnostic::do_not_recommend]
        impl<$($generics)*> sealed::IntoName for $named {
            type Of = $carries;

            $(fn key(&self) -> Option<KeyOf<Self::Of>> {
                let key: fn(&Self) -> Option<KeyOf<Self::Of>> = $key;
                key(self)
            })?

            fn into_name(self) -> Result<QueueName, Error> {
                let $queue = self;
                $name
            }
        }
        #[diagnostic::do_not_recommend]
        impl<$($generics)*> IntoQueue for $named {
            type Carries = $carries;
            type Grouping = $grouping;
        }
    )*};
}

into_queue! {
    [] &str, Untyped, Ungrouped, |name| Ok(QueueName::new(name.to_owned())?);
    [] String, Untyped, Ungrouped, |name| Ok(QueueName::new(name)?);
    [] &String, Untyped, Ungrouped, |name| Ok(QueueName::new(name.clone())?);
    [] QueueName, Untyped, Ungrouped, |name| Ok(name);
    [] &QueueName, Untyped, Ungrouped, |name| Ok(name.clone());
    [T] Queue<T>, T, Ungrouped, |queue| Ok(queue.name), |queue| queue.key;
    [T] &Queue<T>, T, Ungrouped, |queue| Ok(queue.name.clone()), |queue| queue.key;
}

/// Which payloads a queue takes: its own type, or anything if it has none.
#[diagnostic::on_unimplemented(
    message = "queue `{Self}` does not carry `{P}`",
    label = "this payload isn't of the queue's type",
    note = "send the payload that the queue was declared with, or declare another queue for this one"
)]
pub trait Carries<P: ?Sized> {}

#[diagnostic::do_not_recommend]
impl<P: ?Sized> Carries<P> for Queue<Untyped> {}

#[diagnostic::do_not_recommend]
impl<P: Serialize> Carries<P> for Queue<P> {}

// With only one implementation, the compiler would infer the payload's type from the queue's, and then report
// "mismatched types" for a payload of another type.
#[diagnostic::do_not_recommend]
impl<T: Serialize> Carries<NoPayload> for Queue<T> {}

/// Nothing that can be sent.
#[derive(Debug)]
pub struct NoPayload(());

/// What a queue's payloads are read as: its own type, or [`serde_json::Value`] if it has none.
#[diagnostic::on_unimplemented(
    message = "a queue of `{Self}` can't be read: `{Self}` can't be deserialised",
    label = "this queue's payload type doesn't implement `serde::Deserialize`",
    note = "add `#[derive(serde::Deserialize)]` to `{Self}`"
)]
pub trait Readable {
    /// The type of [`Delivery::payload`](crate::Delivery::payload).
    type Payload: DeserializeOwned + Send + Sync + 'static;
}

#[diagnostic::do_not_recommend]
impl<T: DeserializeOwned + Send + Sync + 'static> Readable for T {
    type Payload = T;
}

#[diagnostic::do_not_recommend]
impl Readable for Untyped {
    type Payload = serde_json::Value;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(name: &str) -> Option<Problem> {
        QueueName::new(name.to_owned())
            .err()
            .map(|invalid| invalid.problem)
    }

    #[test]
    fn names_of_1_to_128_bytes_are_accepted() {
        let longest = "q".repeat(128);
        for name in [
            "q",
            "emails",
            "billing/eu-west.1",
            "two words",
            "Größe",
            "キュー",
            "📮",
            &longest,
        ] {
            assert_eq!(problem(name), None, "{name}");
        }
    }

    #[test]
    fn each_problem_has_a_name() {
        assert_eq!(problem(""), Some(Problem::Empty));
        assert_eq!(problem(&"q".repeat(129)), Some(Problem::TooLong));
        assert_eq!(problem(&"é".repeat(65)), Some(Problem::TooLong));
    }

    /// The standard library's classes of these characters, which a `const fn` can't call in full.
    #[test]
    fn every_character_is_judged_as_the_standard_library_does() {
        for character in (0..=0x10_ffff).filter_map(char::from_u32) {
            let expected = if character.is_control() {
                Some(Problem::Control)
            } else if character.is_whitespace() {
                Some(Problem::WhiteSpace)
            } else {
                None
            };
            assert_eq!(problem(&character.to_string()), expected, "{character:?}");
            assert_eq!(
                problem(&format!("q{character}")),
                expected,
                "{character:?} at the end"
            );
            assert_eq!(
                problem(&format!("{character}q")),
                expected,
                "{character:?} at the start"
            );
            let inside = expected.filter(|problem| *problem == Problem::Control);
            assert_eq!(
                problem(&format!("q{character}q")),
                inside,
                "{character:?} inside"
            );
        }
    }

    #[test]
    fn the_message_shows_the_name_and_what_is_wrong() {
        let invalid = QueueName::new("tasks\n").expect_err("a control character");
        assert_eq!(
            invalid.to_string(),
            r#""tasks\n" can't be a queue's name: it contains a control character"#
        );
    }
}
