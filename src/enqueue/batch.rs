//! `message(..)` and `.batch(..)`: messages that each ask for something else, stored together.

use std::{fmt, marker::PhantomData, time::Duration};

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::{
    Enqueue,
    states::{IntoDelay, MessageNotSet, Messages, Takes, WithoutKey},
};
use crate::{
    error::{Error, Result},
    headers::NewHeaders,
    key::{Key, Lifetime, OnDuplicate},
    message::{MessageOptions, NewMessage, Priority, Visible, When},
    payload::encode,
};

/// Starts a message with options of its own, for [`Enqueue::batch`].
///
/// # Example
/// ```no_run
/// # async fn example(store: pgqrs::Store) -> pgqrs::Result<()> {
/// use pgqrs::Priority;
///
/// let sent = pgqrs::enqueue()
///     .to("emails")
///     .batch([
///         pgqrs::message(&"the invoice").unique("invoice-7").priority(Priority::High),
///         pgqrs::message(&"a reminder").delay(24 * 60 * 60).max_attempts(3),
///     ])
///     .execute(&store)
///     .await?;
/// # Ok(())
/// # }
/// ```
pub fn message<P: Serialize + ?Sized>(payload: &P) -> MessageBuilder<P> {
    MessageBuilder {
        payload: encode(0, payload),
        headers: NewHeaders::default(),
        options: MessageOptions::default(),
        when: None,
        has_both: false,
        of: PhantomData,
    }
}

/// A message with options of its own; made by [`message()`].
///
/// What it doesn't set, it has from its enqueue: time, priority and limits. Headers of both are stored. If a method is called
/// again, the last call counts.
#[must_use = "a message is sent by `pgqrs::enqueue().to(..).batch([..]).execute(..)`"]
pub struct MessageBuilder<P: ?Sized, G = NoGroup> {
    payload: Result<String>,
    headers: NewHeaders,
    options: MessageOptions,
    when: Option<When>,
    /// A key, and then a group.
    has_both: bool,
    of: PhantomData<fn(&P, G)>,
}

/// The message has no group.
#[derive(Debug)]
pub struct NoGroup(());

/// The message has a group.
#[derive(Debug)]
pub struct InGroup(());

impl<P: ?Sized, G> MessageBuilder<P, G> {
    /// As [`Enqueue::header`], for this message.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.set(name.into(), value.into());
        self
    }

    /// As [`Enqueue::delay`], for this message.
    pub fn delay(self, delay: impl IntoDelay) -> Self {
        self.when(When::After(delay.into_duration()))
    }

    /// As [`Enqueue::at`], for this message.
    pub fn at(self, time: DateTime<Utc>) -> Self {
        self.when(When::At(time))
    }

    /// As [`Enqueue::when`], for this message.
    pub fn when(mut self, when: When) -> Self {
        self.when = Some(when);
        self
    }

    /// As [`Enqueue::priority`], for this message.
    pub fn priority(mut self, priority: Priority) -> Self {
        self.options.priority = Some(priority);
        self
    }

    /// As [`Enqueue::max_attempts`], for this message.
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.options.max_attempts = Some(attempts);
        self
    }

    /// As [`Enqueue::expires_in`], for this message.
    pub fn expires_in(mut self, time: Duration) -> Self {
        self.options.expires_in = Some(time);
        self
    }

    /// As [`Enqueue::drop_if_expired`], for this message.
    pub fn drop_if_expired(mut self) -> Self {
        self.options.drop_if_expired = true;
        self
    }

    /// As [`Enqueue::group`], for this message. Available once, and not with a key.
    ///
    /// # Example
    /// ```
    /// let enqueue = pgqrs::enqueue().to("orders").batch([
    ///     pgqrs::message(&1).group("customer-1"),
    ///     pgqrs::message(&2).group("customer-2"),
    /// ]);
    /// ```
    /// ```compile_fail,E0277
    /// pgqrs::message(&1).group("customer-1").group("customer-2"); // two groups
    /// ```
    pub fn group(mut self, group: impl Into<String>) -> MessageBuilder<P, InGroup>
    where
        G: GroupNotSet,
    {
        self.has_both = self.options.key.is_some();
        self.options.key = Some(Key::new(group.into(), Lifetime::Group));
        self.with_state()
    }

    fn with_state<N>(self) -> MessageBuilder<P, N> {
        MessageBuilder {
            payload: self.payload,
            headers: self.headers,
            options: self.options,
            when: self.when,
            has_both: self.has_both,
            of: PhantomData,
        }
    }
}

/// The message has no group yet.
#[diagnostic::on_unimplemented(
    message = "this message already has its group",
    label = "a second `.group(..)`",
    note = "a message belongs to one group: remove one of the two calls"
)]
pub trait GroupNotSet {}

#[diagnostic::do_not_recommend]
impl GroupNotSet for NoGroup {}

/// For a batch in which only some messages have a group.
impl<P: ?Sized> From<MessageBuilder<P, InGroup>> for MessageBuilder<P> {
    fn from(message: MessageBuilder<P, InGroup>) -> Self {
        message.with_state()
    }
}

impl<P: ?Sized> MessageBuilder<P> {
    /// As [`Enqueue::unique`], for this message.
    pub fn unique(self, key: impl Into<String>) -> Self {
        self.key(Key::new(key.into(), Lifetime::Unfinished))
    }

    /// As [`Enqueue::once_within`], for this message.
    pub fn once_within(self, key: impl Into<String>, window: Duration) -> Self {
        self.key(Key::new(key.into(), Lifetime::Within(window)))
    }

    /// As [`Enqueue::unique_until_claimed`], for this message. The next call says what a duplicate does:
    /// [`or_keep`](WaitingMessageBuilder::or_keep) is the default.
    pub fn unique_until_claimed(self, key: impl Into<String>) -> WaitingMessageBuilder<P> {
        let lifetime = Lifetime::UntilClaimed(OnDuplicate::Keep);
        WaitingMessageBuilder {
            key: Key::new(key.into(), lifetime),
            message: self,
        }
    }

    fn key(mut self, key: Key) -> Self {
        self.options.key = Some(key);
        self
    }

    /// As message `index` of its enqueue.
    fn into_message(self, index: usize) -> Result<NewMessage> {
        if self.has_both {
            return Err(Error::InvalidKey {
                index,
                problem: "is set besides a group; a message has one of them",
            });
        }
        let payload = self.payload.map_err(|error| match error {
            Error::Serialize { source, .. } => Error::Serialize { index, source },
            Error::PayloadTooDeep { limit, .. } => Error::PayloadTooDeep { index, limit },
            other => other,
        })?;
        let mut options = self.options;
        options.headers = self.headers.finish()?;
        options.visible = self.when.map(Visible::new).transpose()?;
        let mut message = NewMessage::new(payload);
        message.set_options(options);
        Ok(message)
    }
}

/// A message with a key until it is claimed; made by [`MessageBuilder::unique_until_claimed`].
#[must_use = "a message is sent by `pgqrs::enqueue().to(..).batch([..]).execute(..)`"]
pub struct WaitingMessageBuilder<P: ?Sized> {
    message: MessageBuilder<P>,
    key: Key,
}

impl<P: ?Sized> WaitingMessageBuilder<P> {
    /// A duplicate leaves the message that waits as it is, which is the default.
    pub fn or_keep(self) -> MessageBuilder<P> {
        self.message.key(self.key)
    }

    /// As [`Enqueue::or_replace`], for this message.
    pub fn or_replace(self) -> MessageBuilder<P> {
        self.or(OnDuplicate::Replace)
    }

    /// As [`Enqueue::or_postpone`], for this message.
    pub fn or_postpone(self, max_wait: Duration) -> MessageBuilder<P> {
        self.or(OnDuplicate::Postpone(max_wait))
    }

    /// As [`Enqueue::or_append`], for this message.
    pub fn or_append(self) -> MessageBuilder<P> {
        self.or(OnDuplicate::Append)
    }

    fn or(self, on_duplicate: OnDuplicate) -> MessageBuilder<P> {
        self.message.key(self.key.changed_to(on_duplicate))
    }
}

impl<P: ?Sized> From<WaitingMessageBuilder<P>> for MessageBuilder<P> {
    fn from(message: WaitingMessageBuilder<P>) -> Self {
        message.or_keep()
    }
}

/// Without the payload.
impl<P: ?Sized, G> fmt::Debug for MessageBuilder<P, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageBuilder")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl<P: ?Sized> fmt::Debug for WaitingMessageBuilder<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaitingMessageBuilder")
            .field("message", &self.message)
            .field("key", &self.key)
            .finish()
    }
}

impl<M, T, W, K> Enqueue<M, T, W, K> {
    /// Sets a batch of messages with options of their own, made by [`message()`]: all of them are stored, in this order, or
    /// none is. They are stored by one statement, as those of [`messages`](Self::messages) are.
    ///
    /// Available until messages are set, and without a key of the enqueue. If a target is set, the payloads must be of a type
    /// that it carries.
    ///
    /// # Errors
    /// From [`execute`](Self::execute), with the message's index.
    ///
    /// # Example
    /// See [`message()`].
    pub fn batch<P, I>(self, messages: I) -> Enqueue<Messages<P>, T, W, K>
    where
        M: MessageNotSet,
        T: Takes<P>,
        K: WithoutKey,
        I: IntoIterator<Item: Into<MessageBuilder<P>>>,
        P: ?Sized,
    {
        let messages = messages.into_iter().enumerate();
        let messages = messages
            .map(|(index, message)| message.into().into_message(index))
            .collect();
        let messages = Messages {
            messages,
            of: PhantomData,
        };
        Enqueue::new(messages, self.target, self.key, self.options)
    }
}
