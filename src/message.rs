//! A message on its way in and as it is stored: its key, its priority, when it becomes visible, and its
//! payload as JSON. For the statements and the builders alike. A payload is JSON *text* here: it is
//! written once, where the caller hands it over, and never parsed again on its way to the database.

use std::{fmt, io, ops::Deref, slice, sync::Arc, time::Duration, vec};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::ser::Formatter;
use typed_builder::TypedBuilder;

use crate::{
    error::{Error, Result},
    lifecycle::WorkerId,
    queue::QueueName,
};

/// The key of a message: positive, and growing with the order of enqueueing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MessageId(i64);

impl MessageId {
    /// The key as the database has it, in `pgqrs.messages.id`.
    pub const fn get(self) -> i64 {
        self.0
    }
}

impl From<i64> for MessageId {
    fn from(id: i64) -> Self {
        Self(id)
    }
}

impl From<MessageId> for i64 {
    fn from(id: MessageId) -> Self {
        id.0
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Which messages of a queue are delivered first.
///
/// A ready message of a higher priority is always delivered before one of a lower, so a queue that never
/// runs out of urgent messages never delivers a low one.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// Before all others.
    Urgent,
    /// Before normal ones.
    High,
    /// What a message has that says nothing else.
    #[default]
    Normal,
    /// When nothing else is ready.
    Low,
}

impl Priority {
    /// In the order of delivery.
    pub(crate) const ALL: [Self; 4] = [Self::Urgent, Self::High, Self::Normal, Self::Low];

    /// As the database has it: the smaller, the sooner.
    pub(crate) const fn rank(self) -> i16 {
        match self {
            Self::Urgent => 0,
            Self::High => 1,
            Self::Normal => 2,
            Self::Low => 3,
        }
    }

    /// The other way round. A number from beyond the four can't get in through this crate.
    pub(crate) const fn from_rank(rank: i16) -> Self {
        match rank {
            ..=0 => Self::Urgent,
            1 => Self::High,
            2 => Self::Normal,
            3.. => Self::Low,
        }
    }
}

/// What an enqueue gives back: the ids, in the order of the messages that went in.
///
/// It reads like a slice: `ids[0]`, `ids.len()`, `for id in ids`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enqueued(Vec<MessageId>);

impl Enqueued {
    pub(crate) fn new(ids: Vec<MessageId>) -> Self {
        Self(ids)
    }
}

impl Deref for Enqueued {
    type Target = [MessageId];

    fn deref(&self) -> &[MessageId] {
        &self.0
    }
}

impl IntoIterator for Enqueued {
    type Item = MessageId;
    type IntoIter = vec::IntoIter<MessageId>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a> IntoIterator for &'a Enqueued {
    type Item = &'a MessageId;
    type IntoIter = slice::Iter<'a, MessageId>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

/// Which part of a list to read: by keys, from the first on.
///
/// # Example
/// ```
/// use pgqrs::Page;
///
/// let first = Page::default();
/// let with_payloads = Page::builder().limit(10).payload(true).build();
/// ```
#[derive(Debug, Clone, Copy, TypedBuilder)]
pub struct Page {
    /// Only what comes after this key: the last one of the page before.
    #[builder(default, setter(strip_option))]
    after: Option<MessageId>,
    /// The most to read; 100 by default.
    #[builder(default = 100)]
    limit: u32,
    /// Whether to read payloads too; false by default.
    #[builder(default)]
    payload: bool,
}

impl Page {
    pub(crate) fn after(&self) -> i64 {
        self.after.map_or(i64::MIN, MessageId::get)
    }

    pub(crate) fn limit(&self) -> i64 {
        i64::from(self.limit)
    }

    pub(crate) fn with_payload(&self) -> bool {
        self.payload
    }
}

impl Default for Page {
    fn default() -> Self {
        Self::builder().build()
    }
}

/// What goes in with payloads, and is the same for all of a batch.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Envelope {
    pub(crate) queue: QueueName,
    pub(crate) producer: Option<WorkerId>,
    pub(crate) priority: Priority,
    pub(crate) visible: Visible,
}

/// What a delivery is settled with: the message, and the token of the lease that it was delivered under.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Receipt {
    pub(crate) queue_id: i32,
    pub(crate) id: MessageId,
    pub(crate) token: i64,
}

/// A message as a claim returns it.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) queue_id: i32,
    pub(crate) id: MessageId,
    pub(crate) priority: Priority,
    /// When it became visible; what its place in the queue was decided by.
    pub(crate) visible_at: DateTime<Utc>,
    pub(crate) enqueued_at: DateTime<Utc>,
    pub(crate) attempt: i32,
    pub(crate) lease_token: i64,
    pub(crate) lease_expires_at: DateTime<Utc>,
    pub(crate) headers: Option<String>,
    pub(crate) payload: String,
}

impl Message {
    pub(crate) fn receipt(&self) -> Receipt {
        Receipt {
            queue_id: self.queue_id,
            id: self.id,
            token: self.lease_token,
        }
    }
}

/// When a message can first be delivered, by the database's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) enum Visible {
    #[default]
    Now,
    In(Duration),
    At(DateTime<Utc>),
    /// A time that the database has given, and that isn't to be compared with its clock again.
    Exactly(DateTime<Utc>),
}

/// Well within what both `timestamptz` (294276 AD) and `chrono` (262142 AD) can hold.
pub(crate) const LONGEST_DELAY: Duration = Duration::from_secs(200_000 * 365 * 24 * 60 * 60);

impl Visible {
    pub(crate) fn after(delay: Duration) -> Result<Self> {
        if delay > LONGEST_DELAY {
            return Err(Error::DelayTooLong {
                delay,
                limit: LONGEST_DELAY,
            });
        }
        Ok(Self::In(delay))
    }

    /// For the statement: at exactly this time; or not before this one, and not before this many
    /// microseconds from now.
    pub(crate) fn bounds(self) -> (Option<DateTime<Utc>>, Option<DateTime<Utc>>, i64) {
        match self {
            Self::Now => (None, None, 0),
            Self::In(delay) => (None, None, microseconds(delay)),
            // The past is now; so it is of no interest how far back PostgreSQL's calendar goes.
            Self::At(time) => (None, Some(time.max(DateTime::UNIX_EPOCH)), 0),
            Self::Exactly(time) => (Some(time), None, 0),
        }
    }
}

/// As PostgreSQL counts time.
pub(crate) fn microseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// As PostgreSQL counts time, for an age: beyond a thousand years there is nothing, and `timestamptz` ends.
pub(crate) fn age(duration: Duration) -> i64 {
    microseconds(duration.min(Duration::from_secs(1_000 * 365 * 24 * 60 * 60)))
}

/// The deepest nesting that goes in. It is what `serde_json` reads back into a type or a `Value`, so
/// nothing is stored that a consumer then can't read.
const DEEPEST: usize = 127;

/// A payload as JSON text.
pub(crate) fn encode<P: Serialize + ?Sized>(index: usize, payload: &P) -> Result<String> {
    let mut json = Vec::with_capacity(256);
    let mut serializer = serde_json::Serializer::with_formatter(&mut json, Nesting { depth: 0 });
    match payload.serialize(&mut serializer) {
        Ok(()) => Ok(String::from_utf8(json).expect("serde_json writes UTF-8")),
        // A vector takes all that is written, so the only failure of "writing" is the one below.
        Err(error) if error.is_io() => Err(Error::PayloadTooDeep {
            index,
            limit: DEEPEST,
        }),
        Err(error) => Err(Error::Serialize {
            index,
            source: Arc::new(error),
        }),
    }
}

/// Compact JSON, no more than [`DEEPEST`] levels deep. Counting while writing costs nothing, and stops a
/// bottomless value before its recursion overflows the stack.
struct Nesting {
    depth: usize,
}

impl Nesting {
    fn enter(&mut self) -> io::Result<()> {
        if self.depth == DEEPEST {
            return Err(io::Error::other("nested too deeply"));
        }
        self.depth += 1;
        Ok(())
    }
}

impl Formatter for Nesting {
    fn begin_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.enter()?;
        writer.write_all(b"[")
    }

    fn end_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.depth -= 1;
        writer.write_all(b"]")
    }

    fn begin_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.enter()?;
        writer.write_all(b"{")
    }

    fn end_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.depth -= 1;
        writer.write_all(b"}")
    }

    /// A `RawValue`: JSON that somebody else wrote, and that `serde_json` has checked.
    fn write_raw_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let outside = self.depth;
        let (mut in_string, mut escaped) = (false, false);
        for byte in fragment.bytes() {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = in_string,
                b'"' => in_string = !in_string,
                b'[' | b'{' if !in_string => self.enter()?,
                b']' | b'}' if !in_string => self.depth -= 1,
                _ => {}
            }
        }
        self.depth = outside;
        writer.write_all(fragment.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json, value::RawValue};

    use super::*;

    fn nested(depth: usize) -> Value {
        (1..depth).fold(json!([]), |inner, _| json!([inner]))
    }

    fn raw(json: &str) -> Box<RawValue> {
        serde_json::from_str(json).expect("valid JSON")
    }

    #[test]
    fn what_is_accepted_can_be_read_back_and_one_level_more_can_not() {
        let json = encode(0, &nested(DEEPEST)).expect("accepted");
        serde_json::from_str::<Value>(&json).expect("read back");

        let too_deep = encode(7, &nested(DEEPEST + 1)).expect_err("refused");
        assert!(matches!(
            too_deep,
            Error::PayloadTooDeep {
                index: 7,
                limit: DEEPEST
            }
        ));
        let json = serde_json::to_string(&nested(DEEPEST + 1)).expect("plain serde_json writes it");
        serde_json::from_str::<Value>(&json).expect_err("but does not read it");
    }

    #[test]
    fn raw_json_is_counted_too_but_not_what_stands_in_its_strings() {
        let brackets = format!(r#"{{"\"[[": "{}", "a": [{{}}, []]}}"#, "[{".repeat(500));
        assert_eq!(encode(0, &raw(&brackets)).expect("shallow"), brackets);

        let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
        assert!(matches!(
            encode(0, &raw(&deep)),
            Err(Error::PayloadTooDeep { .. })
        ));

        let inner = format!("{}{}", "[".repeat(DEEPEST - 1), "]".repeat(DEEPEST - 1));
        encode(0, &[raw(&inner)]).expect("as deep as can be");
        assert!(matches!(
            encode(0, &[[raw(&inner)]]),
            Err(Error::PayloadTooDeep { .. })
        ));
        encode(0, &[[raw("[]")], [raw("[]")]]).expect("side by side is not deeper");
    }

    #[test]
    fn a_bottomless_value_is_refused_before_it_overflows_the_stack() {
        struct Bottomless;
        impl Serialize for Bottomless {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_seq([Bottomless])
            }
        }
        assert!(matches!(
            encode(0, &Bottomless),
            Err(Error::PayloadTooDeep { .. })
        ));
    }

    #[test]
    fn delays_keep_their_fraction_and_end_where_postgres_does() {
        assert_eq!(
            Visible::In(Duration::from_millis(250)).bounds(),
            (None, None, 250_000)
        );
        assert!(Visible::after(LONGEST_DELAY).is_ok());
        assert!(matches!(
            Visible::after(Duration::MAX),
            Err(Error::DelayTooLong { .. })
        ));
    }
}
