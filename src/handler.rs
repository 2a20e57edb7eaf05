//! A handler: what it may return, and calling it once. An error, a panic and a handler that takes too long are all
//! failed attempts.

use std::{
    any::Any,
    error::Error as StdError,
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    task::Poll,
    time::Duration,
};

use tokio::time::timeout;

use crate::{
    delivery::{Delivery, Unchecked},
    error::error_chain,
};

/// What a handler returns for its message.
///
/// # Example
/// ```
/// use std::time::Duration;
///
/// use pgqrs::{Delivery, Outcome};
///
/// async fn send(delivery: Delivery<String>) -> Outcome {
///     match delivery.payload().as_str() {
///         "" => Outcome::DeadLetter("no address".into()),
///         "postmaster" => Outcome::RetryIn(Duration::from_secs(60)),
///         _ => Outcome::Done,
///     }
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is done: acknowledge it.
    Done,
    /// It is done: keep it in the archive.
    Archive,
    /// This attempt failed: deliver it again after the retry policy's wait.
    Retry,
    /// This attempt failed: deliver it again after this wait. A wait beyond PostgreSQL's calendar is shortened to the
    /// longest one.
    RetryIn(Duration),
    /// It can't be handled, for this reason: move it to the dead letters, even if attempts are left.
    DeadLetter(String),
    /// The handler didn't start on it: make it ready again at once, as if it had not been delivered. No attempt is
    /// used, so a message that is always released is delivered for ever.
    Release,
}

/// What a handler may return: `Result<(), E>`, [`Outcome`], or `Result<Outcome, E>`, where `E` is an error type, such
/// as [`Error`](crate::Error), `anyhow::Error` or `Box<dyn Error + Send + Sync>`, or a `String`. The error is kept with
/// the message, as text, together with its chain of [sources](std::error::Error::source).
#[diagnostic::on_unimplemented(
    message = "a handler can't return `{Self}`",
    label = "expected `Result<(), E>`, an `Outcome`, or a `Result<Outcome, E>`, where `E` is an error type",
    note = "`E` can be `pgqrs::Error`, `anyhow::Error`, `Box<dyn std::error::Error + Send + Sync>`, your own type that implements `std::error::Error`, or a `String`",
    note = "end the handler with `Ok(())`, or with an `Outcome` such as `Outcome::Done`"
)]
pub trait IntoOutcome: sealed::IntoVerdict {}

mod sealed {
    use super::Outcome;

    pub trait IntoVerdict {
        fn into_verdict(self) -> Result<Outcome, String>;
    }
}

/// Anything that `?` converts into a boxed error.
trait IntoError: Into<Box<dyn StdError + Send + Sync>> {}

impl<E: Into<Box<dyn StdError + Send + Sync>>> IntoError for E {}

fn text_of(error: impl IntoError) -> String {
    let error: Box<dyn StdError + Send + Sync> = error.into();
    error_chain(&*error)
}

impl sealed::IntoVerdict for Outcome {
    fn into_verdict(self) -> Result<Outcome, String> {
        Ok(self)
    }
}
#[diagnostic::do_not_recommend]
impl IntoOutcome for Outcome {}

impl<E: IntoError> sealed::IntoVerdict for Result<(), E> {
    fn into_verdict(self) -> Result<Outcome, String> {
        self.map(|()| Outcome::Done).map_err(text_of)
    }
}
#[diagnostic::do_not_recommend]
impl<E: IntoError> IntoOutcome for Result<(), E> {}

impl<E: IntoError> sealed::IntoVerdict for Result<Outcome, E> {
    fn into_verdict(self) -> Result<Outcome, String> {
        self.map_err(text_of)
    }
}
#[diagnostic::do_not_recommend]
impl<E: IntoError> IntoOutcome for Result<Outcome, E> {}

/// What calling a handler returns: a future of its result. Every future implements it.
#[diagnostic::on_unimplemented(
    message = "this handler is not `async`: it returns `{Self}` instead of a future",
    label = "expected a handler that can be awaited",
    note = "write `async move {{ … }}` as the closure's body, or `async fn` for a function"
)]
pub trait Handling<O>: Future<Output = O> {}

#[diagnostic::do_not_recommend]
impl<O, R: Future<Output = O>> Handling<O> for R {}

/// How one delivery ended.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// What the handler returned.
    Returned(Outcome),
    /// It returned an error, panicked, or took too long.
    Failed(String),
    /// Its payload doesn't decode, so the handler wasn't called.
    Undecodable(String),
}

/// Decodes a delivery and calls the handler, and catches a panic of either. The time limit is for the handler alone.
pub(crate) async fn handle<P, F, R>(
    handler: &F,
    deliver: impl FnOnce() -> Delivery<P, Unchecked>,
    limit: Option<Duration>,
) -> Verdict
where
    F: Fn(Delivery<P>) -> R,
    R: Future<Output: IntoOutcome>,
{
    let delivery = match catch(|| deliver().decoded()) {
        Ok(Ok(delivery)) => delivery,
        Ok(Err(undecoded)) => {
            let source = undecoded.error().source().map(ToString::to_string);
            return Verdict::Undecodable(source.unwrap_or_default());
        }
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
            .unwrap_or_else(|_| Err(format!("the handler timed out after {limit:?}"))),
    };
    match returned {
        Ok(outcome) => Verdict::Returned(outcome),
        Err(error) => Verdict::Failed(error),
    }
}

/// Calls the user's code. Returns its panic as text.
fn catch<T>(call: impl FnOnce() -> T) -> Result<T, String> {
    // Its state is not used again, except for what it shares with other code: as with a thread that panics.
    catch_unwind(AssertUnwindSafe(call)).map_err(|panic| panic_text(&*panic).to_owned())
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (_, Some(text)) => text,
        (None, None) => "a value that is not text",
    }
}
