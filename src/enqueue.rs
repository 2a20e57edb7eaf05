//! `enqueue()`: stores messages in a queue. The builder's type tracks what is set, so an enqueue that is incomplete, or
//! that contradicts itself, doesn't compile.

pub(crate) mod batch;
mod groups;
mod keys;
pub(crate) mod of_each;
mod options;
pub(crate) mod states;

use std::marker::PhantomData;

use chrono::{DateTime, Utc};
use serde::Serialize;
use tracing::{Instrument, Span};

use self::{
    of_each::{check_sizes, set_options},
    states::{
        AtOnce, ByWorker, FitsGrouping, FitsInto, IntoDelay, Keys, KeysOf, Later, MessageIsSet,
        MessageNotSet, Messages, NoKey, NoMessage, NoTarget, Takes, TargetIsSet, TargetNotSet,
        TimeNotSet, ToQueue, WithoutKey,
    },
};
use crate::{
    error::{Error, Result},
    executor::{Execute, Executor},
    headers::{Headers, NewHeaders},
    message::{Envelope, MessageOptions, NewMessage, Priority, Visible, When},
    payload::encode,
    postgres::{columns::CHUNK_BYTES, insert},
    queue::{IntoQueue, KeyOfJson, Queue},
    send,
    sent::Enqueued,
    statement::Statement,
    telemetry::{self, Timer},
    trace_context,
    worker::{CanEnqueue, Worker},
};

/// Starts an enqueue.
///
/// # Shape
/// Set the messages with [`message`](Enqueue::message) or [`messages`](Enqueue::messages) and the target with
/// [`to`](Enqueue::to) or [`worker`](Enqueue::worker), in any order; then [`execute`](Enqueue::execute) it on a store,
/// or in a transaction. It returns the ids, in the order of the messages.
///
/// # Example
/// ```no_run
/// # async fn example(store: pgqrs::Store) -> pgqrs::Result<()> {
/// use serde_json::json;
///
/// let ids = pgqrs::enqueue()
///     .message(&json!({"task": "send_email", "to": "user@example.com"}))
///     .to("tasks")
///     .execute(&store)
///     .await?;
/// println!("Enqueued message ID: {}", ids[0]);
/// # Ok(())
/// # }
/// ```
pub fn enqueue() -> Enqueue {
    Enqueue::new(NoMessage(()), NoTarget(()), NoKey(()), Options::default())
}

/// Builder of an enqueue; made by [`enqueue`].
///
/// Its methods can be called in any order, each as long as it is available:
///
/// | methods | are available |
/// |---|---|
/// | [`message`](Self::message), [`messages`](Self::messages), [`batch`](Self::batch) | until one of them was called |
/// | [`to`](Self::to), [`worker`](Self::worker) | until one of them was called |
/// | [`delay`](Self::delay), [`at`](Self::at), [`when`](Self::when) | until one of them was called |
/// | [`unique`](Self::unique), [`unique_until_claimed`](Self::unique_until_claimed), [`once_within`](Self::once_within), [`group`](Self::group) | until one of them was called |
/// | [`priority`](Self::priority), [`header`](Self::header), [`headers`](Self::headers), [`max_attempts`](Self::max_attempts), [`expires_in`](Self::expires_in), [`drop_if_expired`](Self::drop_if_expired) | always |
/// | [`execute`](Self::execute), [`statement`](Self::statement) | once there are messages and a target |
///
/// The type parameters track what is set: messages (`M`), target (`T`), time (`W`), key or group
/// (`K`). The compiler's messages say what is
/// missing or set twice, and `docs/compile-errors.md` shows each of them beside the corrected code. An enqueue can be
/// kept, moved and sent to another task: payloads are serialised when they are passed in, so nothing is borrowed.
///
/// What doesn't compile:
///
/// ```compile_fail,E0277
/// # async fn example(store: pgqrs::Store) {
/// pgqrs::enqueue().to("tasks").execute(&store); // no message
/// # }
/// ```
/// ```compile_fail,E0277
/// # async fn example(store: pgqrs::Store) {
/// pgqrs::enqueue().message(&1).execute(&store); // no target
/// # }
/// ```
/// ```compile_fail,E0277
/// pgqrs::enqueue().message(&1).message(&2).to("tasks"); // two messages
/// ```
/// ```compile_fail,E0277
/// pgqrs::enqueue().message(&1).to("tasks").to("emails"); // two targets
/// ```
/// ```compile_fail,E0277
/// pgqrs::enqueue().delay(300).at(chrono::Utc::now()); // two times
/// ```
/// ```compile_fail,E0600
/// pgqrs::enqueue().delay(-1); // a negative delay
/// ```
#[derive(Debug)]
#[must_use = "an enqueue does nothing until `.execute(&store).await`"]
pub struct Enqueue<M = NoMessage, T = NoTarget, W = AtOnce, K = NoKey> {
    messages: M,
    target: T,
    key: K,
    options: Options,
    time: PhantomData<W>,
}

/// What an enqueue needn't set.
#[derive(Debug, Default)]
struct Options {
    when: When,
    priority: Priority,
    headers: NewHeaders,
    of_each: MessageOptions,
}

impl Options {
    fn common(mut self, target: impl TargetIsSet, key: impl Keys) -> Result<Common> {
        self.of_each.key = key.into_key();
        let key_of = target.key_of_json();
        let (queue, producer) = target.into_parts()?;
        let envelope = Envelope {
            queue,
            producer,
            priority: self.priority,
            visible: Visible::new(self.when)?,
        };
        let headers = self.headers.finish()?;
        Ok(Common {
            envelope,
            headers,
            of_each: self.of_each,
            key_of,
        })
    }
}

/// What an enqueue sets for all of its messages.
#[derive(Debug, Clone)]
pub(crate) struct Common {
    pub(crate) envelope: Envelope,
    pub(crate) headers: Headers,
    pub(crate) of_each: MessageOptions,
    pub(crate) key_of: Option<KeyOfJson>,
}

impl<M, T, W, K> Enqueue<M, T, W, K> {
    fn new(messages: M, target: T, key: K, options: Options) -> Self {
        Self {
            messages,
            target,
            key,
            options,
            time: PhantomData,
        }
    }

    /// Sets one message. A `Vec` or a slice passed here is one message, a JSON array; for one message for each element,
    /// see [`messages`](Self::messages).
    ///
    /// Available until messages are set. If a target is set, the payload must be of a type that it carries.
    ///
    /// # Errors
    /// A payload that can't be serialised is reported by [`execute`](Self::execute).
    pub fn message<P>(self, payload: &P) -> Enqueue<Messages<P>, T, W, K>
    where
        M: MessageNotSet,
        T: Takes<P>,
        K: KeysOf<P>,
        P: Serialize + ?Sized,
    {
        self.with_payloads(std::iter::once(payload))
    }

    /// Sets a batch of messages: all of them are stored, in this order, or none is.
    ///
    /// Available until messages are set. If a target is set, the payloads must be of a type that it carries.
    ///
    /// # Shape
    /// `ids[i]` of what [`execute`](Self::execute) returns belongs to `payloads[i]`. For an empty batch it returns no
    /// ids and sends nothing to the database.
    ///
    /// # Errors
    /// A payload that can't be serialised is reported by [`execute`](Self::execute), with its index.
    pub fn messages<P>(self, payloads: &[P]) -> Enqueue<Messages<P>, T, W, K>
    where
        M: MessageNotSet,
        T: Takes<P>,
        K: KeysOf<P>,
        P: Serialize,
    {
        self.with_payloads(payloads)
    }

    fn with_payloads<'a, P>(
        self,
        payloads: impl IntoIterator<Item = &'a P>,
    ) -> Enqueue<Messages<P>, T, W, K>
    where
        K: KeysOf<P>,
        P: Serialize + ?Sized + 'a,
    {
        let messages = payloads
            .into_iter()
            .enumerate()
            .map(|(index, payload)| {
                let mut message = NewMessage::new(encode(index, payload)?);
                if let Some(key) = self.key.key_of(payload) {
                    message.set_key(key);
                }
                Ok(message)
            })
            .collect();
        let messages = Messages {
            messages,
            of: PhantomData,
        };
        Enqueue::new(messages, self.target, self.key, self.options)
    }

    /// Sets the queue: a name, or a [`Queue`] that carries the messages' type.
    ///
    /// Available until a target is set.
    ///
    /// # Errors
    /// An invalid name is reported by [`execute`](Self::execute).
    pub fn to<Q>(self, queue: Q) -> Enqueue<M, ToQueue<Q::Carries, Q::Grouping>, W, K>
    where
        T: TargetNotSet,
        Q: IntoQueue,
        K: FitsGrouping<Q::Grouping>,
        M: FitsInto<Queue<Q::Carries>>,
    {
        let target = ToQueue {
            key: queue.key(),
            queue: queue.into_name(),
            carries: PhantomData,
        };
        Enqueue::new(self.messages, target, self.key, self.options)
    }

    /// Sets the producer that sends the messages, to its queue. They record its id, and nothing is stored if it is
    /// suspended or stopped.
    ///
    /// Available until a target is set. If messages are set, the producer's queue must carry their type.
    ///
    /// # Errors
    /// [`Error::WorkerSuspended`], [`Error::WorkerStopped`] from [`execute`](Self::execute).
    pub fn worker<P>(self, producer: &P) -> Enqueue<M, ByWorker<P::Carries>, W, K>
    where
        T: TargetNotSet,
        P: Worker + ?Sized,
        P::Role: CanEnqueue,
        M: FitsInto<Queue<P::Carries>>,
    {
        let target = ByWorker {
            queue: producer.queue().clone(),
            worker: producer.id(),
            key: producer.key_of_json(),
            carries: PhantomData,
        };
        Enqueue::new(self.messages, target, self.key, self.options)
    }

    /// Delays the messages: they are not delivered before this duration has passed, by the database's clock, counted
    /// from the statement.
    ///
    /// Available until a delay or a time is set.
    ///
    /// # Units
    /// A whole number is seconds; a [`Duration`](std::time::Duration) is exact to the microsecond. An `Option` of
    /// either can be passed too: `None` is no delay.
    ///
    /// # Errors
    /// [`Error::DelayTooLong`] from [`execute`](Self::execute) for more than 200,000 years.
    pub fn delay(self, delay: impl IntoDelay) -> Enqueue<M, T, Later, K>
    where
        W: TimeNotSet,
    {
        self.when(When::After(delay.into_duration()))
    }

    /// Schedules the messages: they are not delivered before this time, by the database's clock. A time in the past
    /// means now.
    ///
    /// Available until a delay or a time is set.
    pub fn at(self, time: DateTime<Utc>) -> Enqueue<M, T, Later, K>
    where
        W: TimeNotSet,
    {
        self.when(When::At(time))
    }

    /// Sets the messages' time as a value: for callers that decide at run time whether it is a delay, a time, or
    /// neither.
    ///
    /// Available until a delay or a time is set.
    ///
    /// # Errors
    /// [`Error::DelayTooLong`] from [`execute`](Self::execute) for a delay of more than 200,000 years.
    pub fn when(self, when: When) -> Enqueue<M, T, Later, K>
    where
        W: TimeNotSet,
    {
        let options = Options {
            when,
            ..self.options
        };
        Enqueue::new(self.messages, self.target, self.key, options)
    }

    /// Stores the messages, and returns their ids in the order of the messages.
    ///
    /// Available once messages and a target are set. On a store, a pool or a connection, the messages are stored when
    /// this returns; in a transaction, when the caller commits it.
    ///
    /// | on | tries | `Ok` | an error |
    /// |---|---|---|---|
    /// | `&store` | until its outcome is known, or [`retry_for`](crate::ConnectOptions) is over | stored, durable, once | nothing was stored; only after [`Error::OutcomeUnknown`] it may have been |
    /// | `&pool`, `&mut connection` | one | stored, durable | nothing was stored; only after [`Error::ConnectionLost`] it may have been |
    /// | `&mut transaction` | one | part of the caller's transaction | nothing was stored; [`Error::aborted_transaction`] returns whether the transaction can only be rolled back, or still be committed without the messages |
    ///
    /// Sends through a store that wait at the same time share a statement and its commit, and each gets its own ids or
    /// its own error. If its future is dropped before the send is part of a statement, nothing is stored; after that,
    /// it may be.
    ///
    /// # Errors
    /// If it fails, nothing of the batch is stored, except in the cases of the table.
    ///
    /// - [`Error::Serialize`], [`Error::PayloadTooLarge`], [`Error::PayloadTooDeep`],
    ///   [`Error::InvalidQueueName`], [`Error::DelayTooLong`], [`Error::InvalidHeader`], [`Error::InvalidKey`],
    ///   [`Error::InvalidSetting`], [`Error::Unkeyed`]: before anything is sent;
    /// - [`Error::KeyHeld`] for a message with a key or a group that another open transaction holds;
    /// - [`Error::QueueNotFound`], [`Error::QueueClosed`], [`Error::NotInstalled`];
    /// - [`Error::GroupsNotEnabled`] for messages with a group, to a queue that takes none;
    /// - [`Error::WorkerSuspended`], [`Error::WorkerStopped`], for an enqueue through a producer;
    /// - [`Error::Database`] if the server refuses the messages; [`Error::Connect`] if it refuses the login;
    /// - on a store [`Error::NotStored`] if the server was unavailable for too long, and [`Error::OutcomeUnknown`];
    /// - elsewhere [`Error::AcquireTimeout`], [`Error::Connect`], [`Error::ConnectionLost`].
    ///
    /// # Source
    /// One `insert … select … unnest`, in `src/postgres/`; on a store one that advances its writer's row in
    /// `pgqrs.writers` too, which says after a lost answer whether the messages are stored, and which are duplicates. The
    /// store draws ids ahead,
    /// with another statement now and then. A batch of more than 1,000 messages takes several statements, in one
    /// transaction.
    ///
    /// # Example
    /// In the caller's own transaction:
    ///
    /// ```no_run
    /// # async fn example(store: pgqrs::Store) -> Result<(), Box<dyn std::error::Error>> {
    /// # let order = 7;
    /// let mut tx = store.pool().begin().await?;
    /// sqlx::query("update orders set state = 'paid' where id = $1").bind(order).execute(&mut *tx).await?;
    /// pgqrs::enqueue().message(&order).to("receipts").execute(&mut tx).await?;
    /// tx.commit().await?; // both, or neither
    /// # Ok(())
    /// # }
    /// ```
    pub fn execute<'c, E>(self, on: E) -> Execute<'c, Result<Enqueued>>
    where
        M: MessageIsSet,
        T: TargetIsSet + 'c,
        K: Keys + 'c,
        E: Executor + 'c,
    {
        let Self {
            messages,
            target,
            key,
            options,
            ..
        } = self;
        let messages = messages.into_messages();
        let messages = messages.and_then(|messages| check_sizes(messages, on.payload_limit()));
        Execute::new(async move {
            let messages = messages?;
            send(on, options.common(target, key)?, messages).await
        })
    }

    /// Returns the statement that [`execute`](Self::execute) would send, as text and parameters: to enqueue in a
    /// transaction of a driver other than sqlx.
    ///
    /// Available once messages and a target are set. Nothing is sent.
    ///
    /// # Errors
    /// Those that [`execute`](Self::execute) returns before anything is sent. The limit for one payload is that
    /// of a connection: 64 MiB. [`Error::InvalidSetting`] if messages have limits of their own, or keys by their queue:
    /// the statement can't store these. With a key of its own it doesn't compile.
    ///
    /// # Example
    /// See [`Statement`].
    pub fn statement(self) -> Result<Statement>
    where
        M: MessageIsSet,
        T: TargetIsSet,
        K: WithoutKey,
    {
        let mut messages = check_sizes(self.messages.into_messages()?, CHUNK_BYTES)?;
        let Common {
            envelope,
            mut headers,
            of_each,
            key_of,
        } = self.options.common(self.target, self.key)?;
        set_options(&mut messages, &of_each, key_of.as_ref())?;
        if messages.iter().any(|message| message.options().is_some()) {
            return Err(Error::InvalidSetting {
                setting: "statement",
                value: "an enqueue with keys, groups or limits of its messages".to_owned(),
                expected: "one without; run this one on a connection of sqlx with `.execute(..)`",
            });
        }
        trace_context::inject(&Span::current(), &mut headers);
        NewMessage::set_common_headers(&mut messages, &headers);
        Ok(Statement::new(envelope, messages))
    }
}

impl<T, W, K> Enqueue<NoMessage, T, W, K> {
    pub(crate) fn into_common(self) -> Result<Common>
    where
        T: TargetIsSet,
        K: Keys,
    {
        self.options.common(self.target, self.key)
    }
}

pub(crate) async fn send(
    on: impl Executor,
    common: Common,
    mut messages: Vec<NewMessage>,
) -> Result<Enqueued> {
    let Common {
        envelope,
        mut headers,
        of_each,
        key_of,
    } = common;
    set_options(&mut messages, &of_each, key_of.as_ref())?;
    let (timer, queue, count) = (Timer::start(), envelope.queue.clone(), messages.len());
    let span = telemetry::send(queue.as_str(), count);
    // Here, in the caller's task: the messages may be stored by another, together with those of other callers.
    if on.trace_context() {
        trace_context::inject(&span, &mut headers);
    }
    NewMessage::set_common_headers(&mut messages, &headers);
    let stored = async {
        if messages.is_empty() {
            return Ok(Enqueued::new(Vec::new()));
        }
        match on.store() {
            Some(store) => send::send(store.batcher(), envelope, messages).await,
            // Boxed: it is large, and would be moved with each send through a store.
            None => {
                Box::pin(async move {
                    let sent_to = on.sent_to();
                    let mut connection = on.acquire().await?;
                    let enqueued = insert::insert(&mut connection, &envelope, &messages).await?;
                    if let Some(sent_to) = sent_to
                        && messages.iter().any(|one| one.is_ready(envelope.visible))
                    {
                        sent_to.add(envelope.queue);
                    }
                    Ok(enqueued)
                })
                .await
            }
        }
    };
    let stored = stored.instrument(span.clone()).await;
    telemetry::sent(queue.as_str(), count, timer, stored.as_ref().err());
    match &stored {
        Ok(enqueued) => {
            if let [id] = enqueued[..] {
                telemetry::sent_one(&span, id);
            }
        }
        Err(error) => telemetry::failed(&span, error),
    }
    stored
}
