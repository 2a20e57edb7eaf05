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

use serde_json::error::Category;
use tokio::time::timeout;

use crate::{
    delivery::{Delivery, Unchecked},
    error::{Error, error_chain},
    message::LONGEST_DELAY,
    retry::RetryPolicy,
    telemetry::{self, Subject},
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
    /// The handler failed.
    Failed(Failed),
    /// The message was cancelled, and the handler dropped.
    Cancelled,
    /// Its payload doesn't decode, so the handler wasn't called.
    Undecodable {
        /// May quote the payload.
        error: String,
        /// Where in the payload, without a word of it.
        place: String,
    },
}

/// How a handler failed, with the text of its error.
#[derive(Debug)]
pub(crate) enum Failed {
    Returned(String),
    Panicked(String),
    TimedOut(String),
}

impl Failed {
    pub(crate) fn text(&self) -> &str {
        match self {
            Self::Returned(text) | Self::Panicked(text) | Self::TimedOut(text) => text,
        }
    }
}

impl Verdict {
    /// Why it failed, in one word, for `error.type`; `None` if it didn't.
    pub(crate) fn error_type(&self) -> Option<&'static str> {
        match self {
            Self::Returned(Outcome::Done | Outcome::Archive | Outcome::Release) => None,
            Self::Returned(Outcome::Retry | Outcome::RetryIn(_)) => Some("Retry"),
            Self::Returned(Outcome::DeadLetter(_)) => Some("DeadLetter"),
            Self::Failed(Failed::Returned(_)) => Some("HandlerError"),
            Self::Failed(Failed::Panicked(_)) => Some("HandlerPanic"),
            Self::Failed(Failed::TimedOut(_)) => Some("HandlerTimeout"),
            Self::Undecodable { .. } => Some("Decode"),
            Self::Cancelled => Some("Cancelled"),
        }
    }

    /// How long the message waits for its next attempt, if this one failed and wasn't the last.
    pub(crate) fn retry_in(&self, policy: &RetryPolicy, attempt: u32) -> Option<Duration> {
        match self {
            Self::Failed(_) | Self::Returned(Outcome::Retry) => {
                Some(policy.jittered(attempt, rand::random()))
            }
            Self::Returned(Outcome::RetryIn(wait)) => Some((*wait).min(LONGEST_DELAY)),
            Self::Returned(_) | Self::Undecodable { .. } | Self::Cancelled => None,
        }
    }

    /// Reports a failed attempt, which is tried again after this time unless it was the last.
    pub(crate) fn report(&self, subject: &Subject, retry_in: Option<Duration>) {
        let retry_in = retry_in.filter(|_| subject.attempt < subject.origin.max_attempts);
        match self {
            Self::Failed(failed) => telemetry::attempt_failed(subject, failed.text(), retry_in),
            Self::Returned(Outcome::Retry | Outcome::RetryIn(_)) => {
                telemetry::attempt_failed(
                    subject,
                    "the handler asked for another attempt",
                    retry_in,
                );
            }
            Self::Undecodable { place, .. } => telemetry::undecodable(subject, place),
            Self::Cancelled => telemetry::handler_dropped(subject),
            Self::Returned(_) => {}
        }
    }
}

/// Decodes a delivery and calls the handler, and catches a panic of either. The time limit is for the handler alone, which
/// is dropped once `cancelled` is ready.
pub(crate) async fn handle<P, F, R>(
    handler: &F,
    deliver: impl FnOnce() -> Delivery<P, Unchecked>,
    limit: Option<Duration>,
    cancelled: impl Future<Output = ()>,
) -> Verdict
where
    F: Fn(Delivery<P>) -> R,
    R: Future<Output: IntoOutcome>,
{
    let delivery = match catch(|| deliver().decoded()) {
        Ok(Ok(delivery)) => delivery,
        Ok(Err(undecoded)) => {
            let (error, place) = match undecoded.error() {
                Error::Decode { source, .. } => (source.to_string(), place_of(source)),
                error => (error.to_string(), String::new()),
            };
            return Verdict::Undecodable { error, place };
        }
        Err(panic) => {
            return Verdict::Undecodable {
                error: format!("decoding panicked: {panic}"),
                place: "decoding panicked".to_owned(),
            };
        }
    };
    let handling = async {
        sealed::IntoVerdict::into_verdict(handler(delivery).await).map_err(Failed::Returned)
    };
    let mut handling = pin!(handling);
    let handling = poll_fn(|context| match catch(|| handling.as_mut().poll(context)) {
        Ok(poll) => poll,
        Err(panic) => Poll::Ready(Err(Failed::Panicked(format!(
            "the handler panicked: {panic}"
        )))),
    });
    let limited = async {
        match limit {
            None => handling.await,
            Some(limit) => timeout(limit, handling).await.unwrap_or_else(|_| {
                let late = format!("the handler timed out after {limit:?}");
                Err(Failed::TimedOut(late))
            }),
        }
    };
    let returned = tokio::select! {
        biased;
        returned = limited => returned,
        () = cancelled => return Verdict::Cancelled,
    };
    match returned {
        Ok(outcome) => Verdict::Returned(outcome),
        Err(failed) => Verdict::Failed(failed),
    }
}

/// Where JSON doesn't decode.
fn place_of(error: &serde_json::Error) -> String {
    let problem = match error.classify() {
        Category::Data => "its data is not of the handler's type",
        Category::Syntax => "it is not JSON",
        Category::Eof => "it is cut off",
        Category::Io => "it can't be read",
    };
    format!(
        "{problem}, at line {} column {}",
        error.line(),
        error.column()
    )
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
