//! A handler: what it may return, and calling it once. For the loop of a consumer, to which an error, a panic and
//! a handler that takes too long are all failed attempts.

use std::{
    any::Any,
    fmt::Display,
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    task::Poll,
    time::Duration,
};

use tokio::time::timeout;

use crate::delivery::Delivery;

/// What a handler says of its message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is done: acknowledge it.
    Done,
    /// It is done: keep it in the archive.
    Archive,
    /// This attempt failed: again after the retry policy's wait.
    Retry,
    /// This attempt failed: again after this wait.
    RetryIn(Duration),
    /// It can't be handled, for this reason: to the dead letters, whatever attempts are left.
    DeadLetter(String),
}

/// What a handler may return: `Result<(), E>`, [`Outcome`], or `Result<Outcome, E>`. The error is kept
/// with the message, as text.
#[diagnostic::on_unimplemented(
    message = "a handler can't return `{Self}`",
    label = "expected `Result<(), E>`, an `Outcome`, or a `Result<Outcome, E>`, where `E` can be printed",
    note = "end the handler with `Ok(())`, or with an `Outcome` such as `Outcome::Done`"
)]
pub trait IntoOutcome: sealed::IntoVerdict {}

mod sealed {
    use super::Outcome;

    pub trait IntoVerdict {
        fn into_verdict(self) -> Result<Outcome, String>;
    }
}

impl sealed::IntoVerdict for Outcome {
    fn into_verdict(self) -> Result<Outcome, String> {
        Ok(self)
    }
}
#[diagnostic::do_not_recommend]
impl IntoOutcome for Outcome {}

impl<E: Display> sealed::IntoVerdict for Result<(), E> {
    fn into_verdict(self) -> Result<Outcome, String> {
        self.map(|()| Outcome::Done)
            .map_err(|error| error.to_string())
    }
}
#[diagnostic::do_not_recommend]
impl<E: Display> IntoOutcome for Result<(), E> {}

impl<E: Display> sealed::IntoVerdict for Result<Outcome, E> {
    fn into_verdict(self) -> Result<Outcome, String> {
        self.map_err(|error| error.to_string())
    }
}
#[diagnostic::do_not_recommend]
impl<E: Display> IntoOutcome for Result<Outcome, E> {}

/// What a handler gives when it is called: a future of what it returns. Each future is one.
#[diagnostic::on_unimplemented(
    message = "this handler is not `async`: it returns `{Self}` instead of a future",
    label = "expected a handler that can be awaited",
    note = "write `async move {{ … }}` as the closure's body, or `async fn` for a function"
)]
pub trait Handling<O>: Future<Output = O> {}

#[diagnostic::do_not_recommend]
impl<O, R: Future<Output = O>> Handling<O> for R {}

/// What is to be done with a message; or why this attempt failed.
pub(crate) type Verdict = Result<Outcome, String>;

/// What the handler says; or that it panicked, or took too long.
pub(crate) async fn handle<P, F, R>(
    handler: &F,
    delivery: Delivery<P>,
    limit: Option<Duration>,
) -> Verdict
where
    F: Fn(Delivery<P>) -> R,
    R: Future<Output: IntoOutcome>,
{
    let handling = async { sealed::IntoVerdict::into_verdict(handler(delivery).await) };
    let mut handling = pin!(handling);
    // Nothing of what the handler has left behind is looked at again, but for what it shares with others:
    // as with a thread that panics.
    let caught = poll_fn(|context| {
        match catch_unwind(AssertUnwindSafe(|| handling.as_mut().poll(context))) {
            Ok(poll) => poll,
            Err(panic) => Poll::Ready(Err(format!(
                "the handler panicked: {}",
                panic_text(&*panic)
            ))),
        }
    });
    match limit {
        None => caught.await,
        Some(limit) => timeout(limit, caught)
            .await
            .unwrap_or_else(|_| Err(format!("the handler was cut off after {limit:?}"))),
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (_, Some(text)) => text,
        (None, None) => "with something that is not text",
    }
}
