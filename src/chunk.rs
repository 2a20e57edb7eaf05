//! A chunk: the deliveries of one call of a handler, of [`run_chunks`](crate::Consumer::run_chunks). They are settled
//! when the handler returns: each by a verdict of its own, if it has one, and otherwise by what the handler returns.

use std::{
    fmt,
    ops::Deref,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{
    delivery::Delivery,
    handler::{Failed, Outcome, Verdict, shared},
};

/// Messages that a handler takes at once.
///
/// It reads like a slice of deliveries: `chunk.len()`, `chunk[0].id()`, `for delivery in chunk.iter()`. It is never
/// empty.
///
/// What the handler returns is for all of its messages: `Ok(())` acknowledges them, in one statement; an error is a
/// failed attempt of each. A message that ends otherwise is settled by its index, with [`nack`](Self::nack) and the
/// methods beside it, which cost nothing more: they take effect when the handler returns, and also if it then returns
/// an error, panics, times out or is aborted. The last one of a message counts.
///
/// If a message is [cancelled](crate::Admin::cancel), its [`Delivery::cancelled`] is ready, and how it is settled has no
/// effect on it. The handler goes on for the others; it is dropped, after [`Run::cancel_grace`](crate::Run::cancel_grace),
/// only if all messages of the chunk are cancelled.
///
/// An index out of range is a mistake, and fails the attempts of all messages that aren't settled one by one.
///
/// # Example
/// ```
/// use pgqrs::Chunk;
///
/// async fn store(chunk: Chunk<i64>) -> Result<(), std::io::Error> {
///     for (index, number) in chunk.payloads().enumerate() {
///         if *number < 0 {
///             chunk.dead_letter(index, "a negative number");
///         }
///     }
///     // … one statement for the others …
///     Ok(())
/// }
/// ```
pub struct Chunk<T> {
    deliveries: Vec<Delivery<T>>,
    verdicts: Arc<Verdicts>,
}

impl<T> Chunk<T> {
    pub(crate) fn new(deliveries: Vec<Delivery<T>>, verdicts: Arc<Verdicts>) -> Self {
        Self {
            deliveries,
            verdicts,
        }
    }

    /// Returns the payloads, in the order of the deliveries.
    pub fn payloads(&self) -> impl ExactSizeIterator<Item = &T> {
        self.deliveries.iter().map(|delivery| delivery.payload())
    }

    /// Returns the deliveries by value, to settle them in a transaction:
    /// `pgqrs::ack_all(chunk.into_deliveries(), &mut tx)`.
    pub fn into_deliveries(self) -> Vec<Delivery<T>> {
        self.deliveries
    }

    /// Acknowledges this message, even if the handler returns an error.
    pub fn ack(&self, index: usize) {
        self.settle(index, Outcome::Done);
    }

    /// Acknowledges this message, and keeps it in `pgqrs.archive`.
    pub fn archive(&self, index: usize) {
        self.settle(index, Outcome::Archive);
    }

    /// Fails this attempt of this message, for a reason that is kept with it. It is delivered again after the wait of
    /// the run's [retry policy](crate::Run::retry), or becomes a dead letter if its attempts are used up.
    pub fn nack(&self, index: usize, reason: impl Into<String>) {
        let failed = Failed::Returned(shared(&reason.into()));
        self.verdicts.set(index, Verdict::Failed(failed));
    }

    /// Fails this attempt of this message, for a reason that is kept with it. It is delivered again after this wait.
    pub fn retry_in(&self, index: usize, wait: Duration, reason: impl Into<String>) {
        self.settle(index, Outcome::RetryIn(wait, reason.into()));
    }

    /// Puts this message off: it is delivered again after this wait, and no attempt is used.
    pub fn later(&self, index: usize, wait: Duration) {
        self.settle(index, Outcome::Later(wait));
    }

    /// Puts this message off, and slows its queue down: see [`Outcome::SlowDown`].
    pub fn slow_down(&self, index: usize, wait: Duration) {
        self.settle(index, Outcome::SlowDown(wait));
    }

    /// Moves this message to the dead letters for this reason, even if attempts are left.
    pub fn dead_letter(&self, index: usize, reason: impl Into<String>) {
        self.settle(index, Outcome::DeadLetter(reason.into()));
    }

    /// Settles this message as a handler of single messages does by returning this outcome.
    pub fn settle(&self, index: usize, outcome: Outcome) {
        self.verdicts.set(index, Verdict::Returned(outcome));
    }
}

impl<T> Deref for Chunk<T> {
    type Target = [Delivery<T>];

    fn deref(&self) -> &[Delivery<T>] {
        &self.deliveries
    }
}

impl<'a, T> IntoIterator for &'a Chunk<T> {
    type Item = &'a Delivery<T>;
    type IntoIter = std::slice::Iter<'a, Delivery<T>>;

    fn into_iter(self) -> Self::IntoIter {
        self.deliveries.iter()
    }
}

impl<T> fmt::Debug for Chunk<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Chunk").field(&self.deliveries).finish()
    }
}

/// How messages of a chunk are settled one by one, by their indices. Shared with the loop, which settles them even if
/// the handler is aborted.
pub(crate) struct Verdicts(Mutex<State>);

struct State {
    verdicts: Vec<Option<Verdict>>,
    /// The last index that was out of range.
    out_of_range: Option<usize>,
}

impl Verdicts {
    pub(crate) fn new(messages: usize) -> Self {
        Self(Mutex::new(State {
            verdicts: vec![None; messages],
            out_of_range: None,
        }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, index: usize, verdict: Verdict) {
        let mut state = self.lock();
        match state.verdicts.get_mut(index) {
            Some(own) => *own = Some(verdict),
            None => state.out_of_range = Some(index),
        }
    }

    /// What the handler has returned, unless it has made a mistake.
    pub(crate) fn checked(&self, returned: Verdict) -> Verdict {
        let state = self.lock();
        let Some(index) = state.out_of_range else {
            return returned;
        };
        let messages = state.verdicts.len();
        let mistake =
            format!("the handler settled index {index} of a chunk of {messages} messages");
        Verdict::Failed(Failed::Returned(mistake.into()))
    }

    pub(crate) fn take(&self) -> Vec<Option<Verdict>> {
        std::mem::take(&mut self.lock().verdicts)
    }
}
