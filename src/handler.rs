//! A handler: what it may return, and calling it once. For the loop of a consumer, to which an error, a panic and
//! a handler that takes too long are all failed attempts.

use std::{
    any::Any,
    error::Error as _,
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
    /// This attempt failed: again after this wait. A wait beyond PostgreSQL's calendar is cut to the longest one.
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

/// What came of one delivery.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// What the handler returned.
    Returned(Outcome),
    /// It returned an error, panicked, or took too long.
    Failed(String),
    /// Its payload doesn't decode, so the handler wasn't called.
    Undecodable(String),
}

/// Decodes a delivery and calls the handler, whatever either does. The time limit is the handler's alone.
pub(crate) async fn handle<P, F, R>(
    handler: &F,
    deliver: impl FnOnce() -> Delivery<P>,
    limit: Option<Duration>,
) -> Verdict
where
    F: Fn(Delivery<P>) -> R,
    R: Future<Output: IntoOutcome>,
{
    let decoded = catch(|| {
        let delivery = deliver();
        match delivery.payload() {
            Ok(_) => Ok(delivery),
            Err(error) => Err(error.source().map(ToString::to_string).unwrap_or_default()),
        }
    });
    let delivery = match decoded {
        Ok(Ok(delivery)) => delivery,
        Ok(Err(error)) => return Verdict::Undecodable(error),
        Err(panic) => return Verdict::Undecodable(format!("decoding panicked: {panic}")),
    };
    let handling = async { sealed::IntoVerdict::into_verdict(handler(delivery).await) };
    let mut handling = pin!(handling);
    let handling = poll_fn(|context| match catch(|| handling.as_mut().poll(context)) {
        Ok(poll) => poll,
        Err(panic) => Poll::Ready(Err(format!("the handler panicked: {panic}"))),
    });
    let returned = match limit {
        None => handling.await,
        Some(limit) => timeout(limit, handling)
            .await
            .unwrap_or_else(|_| Err(format!("the handler was cut off after {limit:?}"))),
    };
    match returned {
        Ok(outcome) => Verdict::Returned(outcome),
        Err(error) => Verdict::Failed(error),
    }
}

/// Calls what users have written. Its panic is returned as a text.
fn catch<T>(call: impl FnOnce() -> T) -> Result<T, String> {
    // Nothing of what it leaves behind is looked at again, but for what it shares with others: as with a thread
    // that panics.
    catch_unwind(AssertUnwindSafe(call)).map_err(|panic| panic_text(&*panic).to_owned())
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (_, Some(text)) => text,
        (None, None) => "with something that is not text",
    }
}
