//! A handler: what it may return, and calling it once. An error, a panic and a handler that takes too long are all
//! failed attempts.

use std::{
    any::Any,
    error::Error as StdError,
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use serde_json::error::Category;
use tokio::time::timeout;

use crate::{
    delivery::{Delivery, Unchecked},
    error::{Error, error_chain},
    message::LONGEST_DELAY,
    postgres::settle::failures::MAX_ERROR_TEXT,
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
///         "postmaster" => Outcome::RetryIn(Duration::from_secs(60), "the mailbox is full".into()),
///         "sleeper" => Outcome::Later(Duration::from_secs(8 * 60 * 60)),
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
    /// This attempt failed, for this reason: deliver it again after the retry policy's wait. The reason is kept as the
    /// message's last error, as that of an `Err` is.
    Retry(String),
    /// This attempt failed, for this reason: deliver it again after this wait. A wait beyond PostgreSQL's calendar is
    /// shortened to the longest one.
    RetryIn(Duration, String),
    /// Not now: deliver it again after this wait, which is limited as above. No attempt is used, so a message that is
    /// always put off is delivered for ever: [`Delivery::snoozes`] returns how often it was.
    Later(Duration),
    /// What the handler calls asks for a pause, as an HTTP server does that answers 429 with `Retry-After`: deliver the
    /// message again after this wait, which is limited as above, and until then claim no other message of its queue, in any
    /// process. No attempt is used; [`Delivery::snoozes`] counts it.
    ///
    /// The wait of the queue ends at a full tenth of a second. Of several waits the one that ends last counts;
    /// [`resume_queue`](crate::Admin::resume_queue) ends it early. What handlers have begun goes on. What was claimed ahead
    /// is made ready again: by this consumer at once, and by others with their next claim. A queue with a
    /// [`Rate`](crate::Rate) then goes on without a burst. If groups of the queue have a rate, a message with a group slows its
    /// group down, and not the queue.
    SlowDown(Duration),
    /// It can't be handled, for this reason: move it to the dead letters, even if attempts are left.
    DeadLetter(String),
    /// The handler didn't start on it: make it ready again at once, as if it had not been delivered. No attempt is
    /// used, so a message that is always released is delivered for ever.
    Release,
    /// This version doesn't know what to do with such a payload, for this reason: for handlers that decode it, or a part
    /// of it, themselves. It waits for a consumer of another version, as one that doesn't decode as the queue's type
    /// does; see [`UndecodablePolicy`](crate::UndecodablePolicy).
    Undecodable(String),
}

/// What a handler may return: `Result<(), E>`, [`Outcome`], or `Result<Outcome, E>`, where `E` is an error type, such
/// as [`Error`], `anyhow::Error` or `Box<dyn Error + Send + Sync>`, or a `String`. The error is kept with
/// the message, as text, together with its chain of [sources](std::error::Error::source).
#[diagnostic::on_unimplemented(
    message = "a handler can't return `{Self}`",
    label = "expected `Result<(), E>`, an `Outcome`, or a `Result<Outcome, E>`, where `E` is an error type",
    note = "`E` can be `pgqrs::Error`, `anyhow::Error`, `Box<dyn std::error::Error + Send + Sync>`, your own type that implements `std::error::Error`, or a `String`",
    note = "end the handler with `Ok(())`, or with an `Outcome` such as `Outcome::Done`"
)]
pub trait IntoOutcome: sealed::IntoVerdict {}

mod sealed {
    use super::{HandlerError, Outcome};

    pub trait IntoVerdict {
        fn into_verdict(self) -> Result<Outcome, HandlerError>;
    }
}

pub(crate) use sealed::IntoVerdict;

/// Anything that `?` converts into a boxed error.
trait IntoError: Into<Box<dyn StdError + Send + Sync>> {}

impl<E: Into<Box<dyn StdError + Send + Sync>>> IntoError for E {}

/// The error that a handler has returned, for what [`around`](crate::Run::around) it decides by it.
///
/// It reads as the handler's own error does, and has the same sources.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct HandlerError(Box<dyn StdError + Send + Sync>);

impl HandlerError {
    pub(crate) fn of(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        match error.into().downcast::<Self>() {
            // Passed on by what is around the handler.
            Ok(passed_on) => *passed_on,
            Err(error) => Self(error),
        }
    }

    /// Returns the handler's error if it is an `E`.
    pub fn downcast_ref<E: StdError + 'static>(&self) -> Option<&E> {
        self.0.downcast_ref()
    }
}

impl sealed::IntoVerdict for Outcome {
    fn into_verdict(self) -> Result<Outcome, HandlerError> {
        Ok(self)
    }
}
#[diagnostic::do_not_recommend]
impl IntoOutcome for Outcome {}

impl<E: IntoError> sealed::IntoVerdict for Result<(), E> {
    fn into_verdict(self) -> Result<Outcome, HandlerError> {
        self.map(|()| Outcome::Done).map_err(HandlerError::of)
    }
}
#[diagnostic::do_not_recommend]
impl<E: IntoError> IntoOutcome for Result<(), E> {}

impl<E: IntoError> sealed::IntoVerdict for Result<Outcome, E> {
    fn into_verdict(self) -> Result<Outcome, HandlerError> {
        self.map_err(HandlerError::of)
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
#[derive(Debug, Clone)]
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

/// How a handler failed, with the text of its error, which all messages of a chunk share.
#[derive(Debug, Clone)]
pub(crate) enum Failed {
    Returned(Arc<str>),
    Panicked(Arc<str>),
    TimedOut(Arc<str>),
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
            Self::Returned(
                Outcome::Done
                | Outcome::Archive
                | Outcome::Later(_)
                | Outcome::SlowDown(_)
                | Outcome::Release,
            ) => None,
            Self::Returned(Outcome::Retry(_) | Outcome::RetryIn(..)) => Some("Retry"),
            Self::Returned(Outcome::DeadLetter(_)) => Some("DeadLetter"),
            Self::Returned(Outcome::Undecodable(_)) => Some("Decode"),
            Self::Failed(Failed::Returned(_)) => Some("HandlerError"),
            Self::Failed(Failed::Panicked(_)) => Some("HandlerPanic"),
            Self::Failed(Failed::TimedOut(_)) => Some("HandlerTimeout"),
            Self::Undecodable { .. } => Some("Decode"),
            Self::Cancelled => Some("Cancelled"),
        }
    }

    /// How long its queue, or its group, is slowed down, if it is.
    pub(crate) fn slows_down(&self) -> Option<Duration> {
        match self {
            Self::Returned(Outcome::SlowDown(wait)) => Some(*wait),
            _ => None,
        }
    }

    /// How long the message waits for its next attempt, if this one failed and wasn't the last.
    pub(crate) fn retry_in(&self, policy: &RetryPolicy, attempt: u32) -> Option<Duration> {
        match self {
            Self::Failed(_) | Self::Returned(Outcome::Retry(_)) => {
                Some(policy.jittered(attempt, rand::random()))
            }
            Self::Returned(
                Outcome::RetryIn(wait, _) | Outcome::Later(wait) | Outcome::SlowDown(wait),
            ) => Some((*wait).min(LONGEST_DELAY)),
            Self::Returned(_) | Self::Undecodable { .. } | Self::Cancelled => None,
        }
    }

    /// Reports a failed attempt, which is tried again after this time unless it was the last; or a delivery that was put
    /// off.
    pub(crate) fn report(&self, subject: &Subject, retry_in: Option<Duration>) {
        let retry_in = retry_in.filter(|_| subject.attempt < subject.max_attempts);
        match self {
            Self::Failed(failed) => telemetry::attempt_failed(subject, failed.text(), retry_in),
            Self::Returned(Outcome::Retry(reason) | Outcome::RetryIn(_, reason)) => {
                let reason = match &**reason {
                    "" => "the handler asked for another attempt",
                    reason => reason,
                };
                telemetry::attempt_failed(subject, reason, retry_in);
            }
            Self::Returned(Outcome::Later(_) | Outcome::SlowDown(_)) => telemetry::snoozed(subject),
            // Its reason may quote the payload.
            Self::Returned(Outcome::Undecodable(_)) => {
                telemetry::undecodable(subject, "the handler doesn't know such a payload");
            }
            Self::Undecodable { place, .. } => telemetry::undecodable(subject, place),
            Self::Cancelled => telemetry::handler_dropped(subject),
            Self::Returned(_) => {}
        }
    }
}

/// Decodes a delivery, and catches a panic of that.
pub(crate) fn decode<P>(
    deliver: impl FnOnce() -> Delivery<P, Unchecked>,
) -> Result<Delivery<P>, Verdict> {
    match catch(|| deliver().decoded()) {
        Ok(Ok(delivery)) => Ok(delivery),
        Ok(Err(undecoded)) => {
            let (error, place) = match undecoded.error() {
                Error::Decode { source, .. } => (source.to_string(), place_of(source)),
                error => (error.to_string(), String::new()),
            };
            Err(Verdict::Undecodable { error, place })
        }
        Err(panic) => Err(Verdict::Undecodable {
            error: format!("decoding panicked: {panic}"),
            place: "decoding panicked".to_owned(),
        }),
    }
}

/// Runs the future of a handler, and catches its panic. It is dropped after this time, or once `cancelled` is ready.
pub(crate) async fn handle(
    handling: impl Future<Output = Result<Outcome, HandlerError>>,
    limit: Option<Duration>,
    cancelled: impl Future<Output = ()>,
) -> Verdict {
    let handling =
        async { (handling.await).map_err(|error| Failed::Returned(shared(&error_chain(&error)))) };
    let mut handling = pin!(handling);
    let handling = poll_fn(|context| match catch(|| handling.as_mut().poll(context)) {
        Ok(poll) => poll,
        Err(panic) => {
            let panicked = format!("the handler panicked: {panic}");
            Poll::Ready(Err(Failed::Panicked(shared(&panicked))))
        }
    });
    let limited = async {
        match limit {
            None => handling.await,
            Some(limit) => timeout(limit, handling).await.unwrap_or_else(|_| {
                let late = format!("the handler timed out after {limit:?}");
                Err(Failed::TimedOut(late.into()))
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

/// As much of an error's text as is stored.
pub(crate) fn shared(text: &str) -> Arc<str> {
    let end = text.floor_char_boundary(MAX_ERROR_TEXT);
    text.get(..end).unwrap_or_default().into()
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
