//! Assertions about what a queue has. What they print shows payloads, which are a test's own.

use std::fmt::Write;

use super::enqueued::EnqueuedMessage;

/// Asserts that a queue has a message, or one whose payload matches. If not, it panics, and prints what the queue has.
///
/// # Shape
/// `assert_enqueued!(tx, EMAILS)` or `assert_enqueued!(tx, EMAILS, |email| email.to == "ada")`, in an async function.
/// `tx` is a variable: a transaction of the test's own, borrowed mutably; or a reference to what runs statements, as in
/// `assert_enqueued!(&pool, EMAILS)`. The closure gets a reference to the payload, decoded as the queue's type. Returns
/// the first message that matches, as an [`EnqueuedMessage`](crate::testing::EnqueuedMessage).
///
/// # Example
/// ```no_run
/// # use pgqrs::{Queue, testing::assert_enqueued};
/// # const EMAILS: Queue<String> = Queue::new("emails");
/// # async fn example(mut tx: pgqrs::Transaction) {
/// let email = assert_enqueued!(tx, EMAILS, |email| email == "ada");
/// assert_eq!(email.headers.get("tenant"), Some("acme"));
/// # }
/// ```
/// If there is none, the test's output is:
/// ```text
/// no message of `EMAILS` matches |email| email == "ada"; it has 2:
///   message 7: "grace"
///   message 8: "bob", delayed by 60s, header tenant="acme"
/// ```
#[macro_export]
macro_rules! assert_enqueued {
    (&mut $tx:expr, $queue:expr $(, $matches:expr)? $(,)?) => {
        $crate::assert_enqueued!(@ &mut $tx, $queue $(, $matches)?)
    };
    (&$on:expr, $queue:expr $(, $matches:expr)? $(,)?) => {
        $crate::assert_enqueued!(@ &$on, $queue $(, $matches)?)
    };
    ($tx:expr, $queue:expr $(, $matches:expr)? $(,)?) => {
        $crate::assert_enqueued!(@ &mut $tx, $queue $(, $matches)?)
    };
    (@ $on:expr, $queue:expr) => {
        $crate::assert_enqueued!(@ $on, $queue, any = |_| true, "")
    };
    (@ $on:expr, $queue:expr, $matches:expr) => {
        $crate::assert_enqueued!(@ $on, $queue, any = $matches, stringify!($matches))
    };
    (@ $on:expr, $queue:expr, $check:ident = $matches:expr, $shown:expr) => {{
        match $crate::testing::enqueued($on, $queue).await {
            Ok(messages) => match $crate::testing::$check(messages, stringify!($queue), $matches, $shown) {
                Ok(found) => found,
                Err(message) => panic!("{message}"),
            },
            Err(error) => panic!("what {} has can't be read: {error:?}", stringify!($queue)),
        }
    }};
}

/// Asserts that a queue has no message, or none whose payload matches. If it has one, it panics, and prints what the
/// queue has.
///
/// # Shape
/// As that of [`assert_enqueued!`](crate::assert_enqueued), but that it returns nothing.
///
/// # Example
/// ```no_run
/// # use pgqrs::{Queue, testing::refute_enqueued};
/// # const EMAILS: Queue<String> = Queue::new("emails");
/// # async fn example(mut tx: pgqrs::Transaction) {
/// refute_enqueued!(tx, EMAILS, |email| email == "bob");
/// # }
/// ```
#[macro_export]
macro_rules! refute_enqueued {
    (&mut $tx:expr, $queue:expr $(, $matches:expr)? $(,)?) => {
        $crate::refute_enqueued!(@ &mut $tx, $queue $(, $matches)?)
    };
    (&$on:expr, $queue:expr $(, $matches:expr)? $(,)?) => {
        $crate::refute_enqueued!(@ &$on, $queue $(, $matches)?)
    };
    ($tx:expr, $queue:expr $(, $matches:expr)? $(,)?) => {
        $crate::refute_enqueued!(@ &mut $tx, $queue $(, $matches)?)
    };
    (@ $on:expr, $queue:expr) => {
        $crate::assert_enqueued!(@ $on, $queue, none = |_| true, "")
    };
    (@ $on:expr, $queue:expr, $matches:expr) => {
        $crate::assert_enqueued!(@ $on, $queue, none = $matches, stringify!($matches))
    };
}

pub use {assert_enqueued, refute_enqueued};

/// Returns the first message that matches, or what to say if none does.
#[doc(hidden)]
pub fn any<T>(
    messages: Vec<EnqueuedMessage<T>>,
    queue: &str,
    matches: impl Fn(&T) -> bool,
    shown: &str,
) -> Result<EnqueuedMessage<T>, String> {
    let place = messages.iter().position(|one| matches(&one.payload));
    match place {
        Some(place) => messages.into_iter().nth(place).ok_or_else(String::new),
        None if messages.is_empty() => Err(format!("`{queue}` has no message")),
        None => {
            let header = format!(
                "no message of `{queue}` matches {shown}; it has {}:",
                messages.len()
            );
            Err(listed(header, &messages))
        }
    }
}

/// Returns what to say if a message matches.
#[doc(hidden)]
pub fn none<T>(
    messages: Vec<EnqueuedMessage<T>>,
    queue: &str,
    matches: impl Fn(&T) -> bool,
    shown: &str,
) -> Result<(), String> {
    let Some(found) = messages.iter().find(|one| matches(&one.payload)) else {
        return Ok(());
    };
    let many = messages.len();
    let header = if shown.is_empty() {
        format!("`{queue}` has {many}:")
    } else {
        format!(
            "message {} of `{queue}` matches {shown}; it has {many}:",
            found.id
        )
    };
    Err(listed(header, &messages))
}

fn listed<T>(mut text: String, messages: &[EnqueuedMessage<T>]) -> String {
    for message in messages {
        let _ = write!(text, "\n  {message}");
    }
    text
}
