//! Keys of an enqueue: for how long no other message of the queue can have the same one.

use std::time::Duration;

use super::{
    Enqueue,
    states::{
        BeforeMessages, ChangesWaiting, KeyNotSet, Keyed, KeyedBy, KeyedUntilClaimed, TakesKeys,
    },
};
use crate::key::{Key, Lifetime, OnDuplicate};
#[cfg(doc)]
use crate::{error::Error, sent::Enqueued};

/// # Keys
///
/// A message with a key isn't stored if another message of the queue has the same key: it is a duplicate of that one, whose
/// id is returned, and [`Enqueued::outcomes`] says so. How long a message has its key depends on the method that set it:
///
/// | method | a second message with this key is a duplicate | |
/// |---|---|---|
/// | [`unique`](Self::unique), [`unique_by`](Self::unique_by) | while the first exists: it waits, runs, or is retried | each order has one message at a time |
/// | [`unique_until_claimed`](Self::unique_until_claimed) | until the first is claimed | many changes, one message; the last change is always seen |
/// | [`once_within`](Self::once_within) | for a time from when the first was sent, whatever became of it | requests that are repeated by their senders |
///
/// An enqueue has one of them. A key is any text of 1 byte or more without NUL characters, and belongs to the queue: the same
/// key in another queue is another key. One of more than 255 bytes is stored as its SHA-256 hash. If several messages of an
/// enqueue have the same key, the others are duplicates of the first.
///
/// While another transaction has stored a message with the key and is open, the outcome isn't known. So it is waited for, up
/// to two seconds, and then the enqueue returns [`Error::KeyHeld`].
impl<M, T, W, K> Enqueue<M, T, W, K> {
    /// Stores no second message with this key while the first one exists: while it waits, is delayed, runs, or is retried.
    /// Once the first was handled, was deleted, or is a dead letter, its key is free.
    ///
    /// Available until a key is set.
    ///
    /// # Errors
    /// From [`execute`](Self::execute): [`Error::InvalidKey`] for an empty key, and one with a NUL character;
    /// [`Error::KeyHeld`] if another transaction holds it.
    ///
    /// # Example
    /// ```no_run
    /// # async fn example(store: pgqrs::Store) -> pgqrs::Result<()> {
    /// let sent = pgqrs::enqueue().message(&7).to("invoices").unique("order-7").execute(&store).await?;
    /// println!("message {} makes the invoice", sent[0]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn unique(self, key: impl Into<String>) -> Enqueue<M, T, W, Keyed>
    where
        K: KeyNotSet,
        T: TakesKeys,
    {
        let key = Key::new(key.into(), Lifetime::Unfinished);
        self.with_key(Keyed(key))
    }

    /// As [`unique`](Self::unique), with a key for each message, computed from its payload.
    ///
    /// Available until a key is set, and before the messages are. To set it once for a queue, see
    /// [`Queue::unique_by`](crate::Queue::unique_by).
    ///
    /// # Example
    /// ```
    /// #[derive(serde::Serialize)]
    /// struct Invoice {
    ///     order: u64,
    /// }
    ///
    /// let enqueue = pgqrs::enqueue()
    ///     .to("invoices")
    ///     .unique_by(|invoice: &Invoice| format!("order-{}", invoice.order))
    ///     .messages(&[Invoice { order: 7 }, Invoice { order: 8 }]);
    /// ```
    pub fn unique_by<P, S>(
        self,
        key: impl Fn(&P) -> S + Send + 'static,
    ) -> Enqueue<M, T, W, KeyedBy<P>>
    where
        M: BeforeMessages,
        K: KeyNotSet,
        T: TakesKeys,
        P: ?Sized,
        S: Into<String>,
    {
        let key = move |payload: &P| Key::new(key(payload).into(), Lifetime::Unfinished);
        self.with_key(KeyedBy(Box::new(key)))
    }

    /// Stores no second message with this key while the first one waits to be claimed for the first time. From then on the
    /// key is free, so a message that is sent while the first one runs is stored.
    ///
    /// In a transaction of the caller's, the message that is waiting isn't claimed before the transaction ends: its handler
    /// sees what the transaction has changed.
    ///
    /// Available until a key is set. After it, [`or_replace`](Self::or_replace), [`or_postpone`](Self::or_postpone) or
    /// [`or_append`](Self::or_append) say what a duplicate does to the one that waits; by default nothing.
    ///
    /// # Errors
    /// As for [`unique`](Self::unique).
    ///
    /// # Example
    /// ```
    /// let enqueue = pgqrs::enqueue().message(&7).to("reindex").unique_until_claimed("user-7");
    /// ```
    pub fn unique_until_claimed(self, key: impl Into<String>) -> Enqueue<M, T, W, KeyedUntilClaimed>
    where
        K: KeyNotSet,
        T: TakesKeys,
    {
        let key = Key::new(key.into(), Lifetime::UntilClaimed(OnDuplicate::Keep));
        self.with_key(KeyedUntilClaimed(key))
    }

    /// Stores no second message with this key within `window` of the first, by the database's clock, whatever became of it:
    /// for keys of requests that their senders may repeat.
    ///
    /// Available until a key is set.
    ///
    /// # Errors
    /// As for [`unique`](Self::unique), and [`Error::DelayTooLong`] for more than 200,000 years.
    ///
    /// # Example
    /// ```
    /// use std::time::Duration;
    ///
    /// let day = Duration::from_secs(24 * 60 * 60);
    /// let enqueue = pgqrs::enqueue().message(&7).to("payments").once_within("request-4711", day);
    /// ```
    pub fn once_within(self, key: impl Into<String>, window: Duration) -> Enqueue<M, T, W, Keyed>
    where
        K: KeyNotSet,
        T: TakesKeys,
    {
        let key = Key::new(key.into(), Lifetime::Within(window));
        self.with_key(Keyed(key))
    }

    /// A duplicate replaces the one that waits: its payload, headers, priority, time and limits. The id stays.
    ///
    /// Available after [`unique_until_claimed`](Self::unique_until_claimed).
    ///
    /// # Example
    /// ```
    /// let enqueue = pgqrs::enqueue().message(&22.5).to("display").unique_until_claimed("kitchen").or_replace();
    /// ```
    pub fn or_replace(self) -> Enqueue<M, T, W, Keyed>
    where
        K: ChangesWaiting,
    {
        self.on_duplicate(OnDuplicate::Replace)
    }

    /// A duplicate postpones the one that waits to its own time, as set by [`delay`](Self::delay), but to no later than
    /// `max_wait` after it was sent: so a steady stream of duplicates can't keep it from being delivered. It is never
    /// moved to an earlier time.
    ///
    /// Available after [`unique_until_claimed`](Self::unique_until_claimed).
    ///
    /// # Example
    /// Half a minute after the last change, and at least every ten minutes:
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let enqueue = pgqrs::enqueue()
    ///     .message(&7)
    ///     .to("reindex")
    ///     .unique_until_claimed("user-7")
    ///     .or_postpone(Duration::from_secs(600))
    ///     .delay(30);
    /// ```
    pub fn or_postpone(self, max_wait: Duration) -> Enqueue<M, T, W, Keyed>
    where
        K: ChangesWaiting,
    {
        self.on_duplicate(OnDuplicate::Postpone(max_wait))
    }

    /// A duplicate is appended to the one that waits: both payloads are JSON arrays, and joined into one of at most 64 MiB.
    ///
    /// Available after [`unique_until_claimed`](Self::unique_until_claimed).
    ///
    /// # Errors
    /// From [`execute`](Self::execute) [`Error::InvalidKey`] if a payload isn't a JSON array, and [`Error::Database`] if the
    /// joined one is too large. Nothing is appended then, and the next message is new once the one that waits was claimed.
    ///
    /// # Example
    /// ```
    /// let enqueue = pgqrs::enqueue().message(&["a", "b"]).to("pages").unique_until_claimed("site").or_append();
    /// ```
    pub fn or_append(self) -> Enqueue<M, T, W, Keyed>
    where
        K: ChangesWaiting,
    {
        self.on_duplicate(OnDuplicate::Append)
    }

    fn on_duplicate(self, on_duplicate: OnDuplicate) -> Enqueue<M, T, W, Keyed>
    where
        K: ChangesWaiting,
    {
        let key = self.key.into_waiting().changed_to(on_duplicate);
        Enqueue::new(self.messages, self.target, Keyed(key), self.options)
    }

    pub(super) fn with_key<N>(self, key: N) -> Enqueue<M, T, W, N> {
        Enqueue::new(self.messages, self.target, key, self.options)
    }
}
