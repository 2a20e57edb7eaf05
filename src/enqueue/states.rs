//! The states of an enqueue's builder, and the bounds by which its methods are available: what is set, and what isn't
//! yet.

use std::{fmt, marker::PhantomData, time::Duration};

use serde::Serialize;

use crate::{
    error::Result,
    key::Key,
    lifecycle::WorkerId,
    message::NewMessage,
    queue::{Carries, KeyOf, KeyOfJson, NoPayload, Queue, QueueName, Ungrouped},
};

/// No message yet.
#[derive(Debug)]
pub struct NoMessage(pub(super) ());

/// One or more messages of type `P`.
#[derive(Debug)]
pub struct Messages<P: ?Sized> {
    pub(super) messages: Result<Vec<NewMessage>>,
    pub(super) of: PhantomData<fn(&P)>,
}

/// No target yet.
#[derive(Debug)]
pub struct NoTarget(pub(super) ());

/// A queue that carries `C`, and that computes groups or doesn't (`G`).
#[derive(Debug)]
pub struct ToQueue<C, G = Ungrouped> {
    pub(super) queue: Result<QueueName>,
    pub(super) key: Option<KeyOf<C>>,
    pub(super) carries: PhantomData<fn() -> (C, G)>,
}

/// A worker, and its queue, which carries `C`.
#[derive(Debug)]
pub struct ByWorker<C> {
    pub(super) queue: QueueName,
    pub(super) worker: WorkerId,
    pub(super) key: Option<KeyOfJson>,
    pub(super) carries: PhantomData<fn() -> C>,
}

/// No delay or time is set: delivered at once.
#[derive(Debug)]
pub struct AtOnce(());

/// A delay or a time is set, by `.delay(..)`, `.at(..)` or `.when(..)`.
#[derive(Debug)]
pub struct Later(());

/// No key.
#[derive(Debug)]
pub struct NoKey(pub(super) ());

/// A key for all messages.
#[derive(Debug)]
pub struct Keyed(pub(super) Key);

/// A key for all messages, until they are claimed: what a duplicate does can be set.
#[derive(Debug)]
pub struct KeyedUntilClaimed(pub(super) Key);

/// A key for each message, computed from payloads of type `P`.
pub struct KeyedBy<P: ?Sized>(pub(super) Box<dyn Fn(&P) -> Key + Send>);

impl<P: ?Sized> fmt::Debug for KeyedBy<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedBy").finish_non_exhaustive()
    }
}

mod sealed {
    use crate::{
        error::Result,
        key::Key,
        lifecycle::WorkerId,
        message::NewMessage,
        queue::{KeyOfJson, QueueName},
    };

    pub trait IntoKey: Send {
        fn into_key(self) -> Option<Key>;
    }

    pub trait Waiting {
        fn into_waiting(self) -> Key;
    }

    pub trait KeyOf<P: ?Sized> {
        fn key_of(&self, payload: &P) -> Option<Key>;
    }

    #[diagnostic::on_unimplemented(
        message = "the states of pgqrs's builders can't be implemented outside of pgqrs",
        label = "only the builder's own methods change its state",
        note = "call them: `pgqrs::enqueue().message(&payload).to(\"queue\")`"
    )]
    pub trait Unset {}

    #[diagnostic::on_unimplemented(
        message = "the states of pgqrs's builders can't be implemented outside of pgqrs",
        label = "only the builder's own methods change its state",
        note = "call them: `pgqrs::enqueue().message(&payload).to(\"queue\")`"
    )]
    pub trait Json {
        fn into_messages(self) -> Result<Vec<NewMessage>>;
    }

    #[diagnostic::on_unimplemented(
        message = "the states of pgqrs's builders can't be implemented outside of pgqrs",
        label = "only the builder's own methods change its state",
        note = "call them: `pgqrs::enqueue().message(&payload).to(\"queue\")`"
    )]
    pub trait Target: Send {
        fn key_of_json(&self) -> Option<KeyOfJson>;

        fn into_parts(self) -> Result<(QueueName, Option<WorkerId>)>;
    }

    pub trait Delay {
        fn into_duration(self) -> std::time::Duration;
    }
}

/// The enqueue has its messages.
#[diagnostic::on_unimplemented(
    message = "this enqueue has no message",
    label = "call `.message(&payload)` or `.messages(&payloads)` before `.execute(..)`"
)]
pub trait MessageIsSet: sealed::Json {}

impl<P: ?Sized> sealed::Json for Messages<P> {
    fn into_messages(self) -> Result<Vec<NewMessage>> {
        self.messages
    }
}
#[diagnostic::do_not_recommend]
impl<P: ?Sized> MessageIsSet for Messages<P> {}

/// The enqueue has no messages yet.
#[diagnostic::on_unimplemented(
    message = "this enqueue already has its messages",
    label = "a second `.message(..)` or `.messages(..)`",
    note = "to send several messages in one enqueue, pass them together: `.messages(&[a, b])`"
)]
pub trait MessageNotSet: sealed::Unset {}

impl sealed::Unset for NoMessage {}
#[diagnostic::do_not_recommend]
impl MessageNotSet for NoMessage {}

/// The enqueue has its target.
#[diagnostic::on_unimplemented(
    message = "this enqueue has no target",
    label = "call `.to(\"queue\")` or `.worker(&producer)` before `.execute(..)`"
)]
pub trait TargetIsSet: sealed::Target {}

impl<C, G> sealed::Target for ToQueue<C, G> {
    fn key_of_json(&self) -> Option<KeyOfJson> {
        self.key.map(KeyOf::erased)
    }

    fn into_parts(self) -> Result<(QueueName, Option<WorkerId>)> {
        Ok((self.queue?, None))
    }
}
#[diagnostic::do_not_recommend]
impl<C, G> TargetIsSet for ToQueue<C, G> {}

impl<C> sealed::Target for ByWorker<C> {
    fn key_of_json(&self) -> Option<KeyOfJson> {
        self.key.clone()
    }

    fn into_parts(self) -> Result<(QueueName, Option<WorkerId>)> {
        Ok((self.queue, Some(self.worker)))
    }
}
#[diagnostic::do_not_recommend]
impl<C> TargetIsSet for ByWorker<C> {}

/// The enqueue has no target yet.
#[diagnostic::on_unimplemented(
    message = "this enqueue already has its target",
    label = "a second `.to(..)` or `.worker(..)`",
    note = "an enqueue goes to one queue, or through one producer: remove one of the two calls"
)]
pub trait TargetNotSet: sealed::Unset {}

impl sealed::Unset for NoTarget {}
#[diagnostic::do_not_recommend]
impl TargetNotSet for NoTarget {}

/// The target, if there is one already, takes payloads of type `P`.
pub trait Takes<P: ?Sized> {}

impl<P: ?Sized> Takes<P> for NoTarget {}
impl<P: ?Sized, C, G> Takes<P> for ToQueue<C, G> where Queue<C>: Carries<P> {}
impl<P: ?Sized, C> Takes<P> for ByWorker<C> where Queue<C>: Carries<P> {}

/// The messages, if there are any already, fit into queue `Q`.
pub trait FitsInto<Q> {}

impl<Q> FitsInto<Q> for NoMessage {}
impl<P: ?Sized, Q: Carries<P>> FitsInto<Q> for Messages<P> {}

/// The enqueue has no delay or time yet.
#[diagnostic::on_unimplemented(
    message = "this enqueue already has its time",
    label = "a second `.delay(..)`, `.at(..)` or `.when(..)`",
    note = "a message becomes visible at one time: remove one of the two calls"
)]
pub trait TimeNotSet: sealed::Unset {}

impl sealed::Unset for AtOnce {}
#[diagnostic::do_not_recommend]
impl TimeNotSet for AtOnce {}

/// What `.execute(..)` takes the key from, if there is one.
pub trait Keys: sealed::IntoKey {}

macro_rules! keys {
    ($([$($generics:tt)*] $state:ty, |$key:pat_param| $into:expr;)*) => {$(
        impl<$($generics)*> sealed::IntoKey for $state {
            fn into_key(self) -> Option<Key> {
                let $key = self;
                $into
            }
        }
        impl<$($generics)*> Keys for $state {}
    )*};
}

keys! {
    [] NoKey, |_| None;
    [] Keyed, |Keyed(key)| Some(key);
    [] KeyedUntilClaimed, |KeyedUntilClaimed(key)| Some(key);
    [P: ?Sized] KeyedBy<P>, |_| None;
}

/// The key, if it is computed from payloads, is computed from those of type `P`.
#[diagnostic::on_unimplemented(
    message = "the keys of this enqueue are not computed from `{P}`",
    label = "`.unique_by(..)` or `.group_by(..)` takes another type than this payload's",
    note = "the function takes a reference to the payload: `.unique_by(|email: &Email| email.to.clone())`"
)]
pub trait KeysOf<P: ?Sized>: sealed::KeyOf<P> {}

macro_rules! one_key {
    ($($state:ty)*) => {$(
        #[diagnostic::do_not_recommend]
        impl<P: ?Sized> sealed::KeyOf<P> for $state {
            fn key_of(&self, _: &P) -> Option<Key> {
                None
            }
        }
        #[diagnostic::do_not_recommend]
        impl<P: ?Sized> KeysOf<P> for $state {}
    )*};
}

one_key!(NoKey Keyed KeyedUntilClaimed);

#[diagnostic::do_not_recommend]
impl<P: Serialize + ?Sized> sealed::KeyOf<P> for KeyedBy<P> {
    fn key_of(&self, payload: &P) -> Option<Key> {
        Some(self.0(payload))
    }
}
#[diagnostic::do_not_recommend]
impl<P: Serialize + ?Sized> KeysOf<P> for KeyedBy<P> {}

// With only one implementation, the compiler would infer the payload's type from the function's, and then report
// "mismatched types" for a payload of another type.
#[diagnostic::do_not_recommend]
impl<P: Serialize + ?Sized> sealed::KeyOf<NoPayload> for KeyedBy<P> {
    fn key_of(&self, _: &NoPayload) -> Option<Key> {
        None
    }
}
#[diagnostic::do_not_recommend]
impl<P: Serialize + ?Sized> KeysOf<NoPayload> for KeyedBy<P> {}

/// The target, if there is one already, leaves it to the enqueue whether its messages have a key or a group.
#[diagnostic::on_unimplemented(
    message = "this enqueue's queue computes the group of each message",
    label = "a message has one group, and no key besides",
    note = "remove this call, or send to a queue without `.group_by(..)`"
)]
pub trait TakesKeys {}

#[diagnostic::do_not_recommend]
impl TakesKeys for NoTarget {}
#[diagnostic::do_not_recommend]
impl<C> TakesKeys for ToQueue<C, Ungrouped> {}
#[diagnostic::do_not_recommend]
impl<C> TakesKeys for ByWorker<C> {}

/// The enqueue's key or group, if it has one, can be sent to a queue that computes groups, or doesn't (`G`).
#[diagnostic::on_unimplemented(
    message = "this queue computes the group of each message, and the enqueue has a key or a group already",
    label = "a message has one group, and no key besides",
    note = "remove `.group(..)` or the key from the enqueue, or send to a queue without `.group_by(..)`"
)]
pub trait FitsGrouping<G> {}

#[diagnostic::do_not_recommend]
impl<G> FitsGrouping<G> for NoKey {}
#[diagnostic::do_not_recommend]
impl FitsGrouping<Ungrouped> for Keyed {}
#[diagnostic::do_not_recommend]
impl FitsGrouping<Ungrouped> for KeyedUntilClaimed {}
#[diagnostic::do_not_recommend]
impl<P: ?Sized> FitsGrouping<Ungrouped> for KeyedBy<P> {}

/// The enqueue has no key or group yet.
#[diagnostic::on_unimplemented(
    message = "this enqueue already has its key or its group",
    label = "a second `.unique(..)`, `.unique_by(..)`, `.unique_until_claimed(..)`, `.once_within(..)`, `.group(..)` or `.group_by(..)`",
    note = "a message has one key, which is unique for one time, or belongs to one group: remove one of the two calls"
)]
pub trait KeyNotSet: sealed::Unset {}

impl sealed::Unset for NoKey {}
#[diagnostic::do_not_recommend]
impl KeyNotSet for NoKey {}

/// The enqueue has no key, so that it can be made into a statement for other drivers, or an import.
#[diagnostic::on_unimplemented(
    message = "an enqueue with a key or a group can't be a statement for another driver, or an import",
    label = "this needs an enqueue without a key or a group",
    note = "run it with `.execute(..)` on a store, or on a connection or transaction of sqlx"
)]
pub trait WithoutKey: Keys {}

#[diagnostic::do_not_recommend]
impl WithoutKey for NoKey {}

/// The enqueue has no messages yet, so that their keys can be computed.
#[diagnostic::on_unimplemented(
    message = "this enqueue already has its messages",
    label = "`.unique_by(..)` and `.group_by(..)` come before them",
    note = "a payload is serialised when it is passed in: call it before `.message(..)` or `.messages(..)`"
)]
pub trait BeforeMessages: sealed::Unset {}

#[diagnostic::do_not_recommend]
impl BeforeMessages for NoMessage {}

/// The enqueue's key is one until its messages are claimed.
#[diagnostic::on_unimplemented(
    message = "only a message that waits can be changed",
    label = "this needs `.unique_until_claimed(key)` before it, and once",
    note = "`.unique(..)` and `.once_within(..)` also find messages that are running or were handled: what has begun can't be replaced"
)]
pub trait ChangesWaiting: sealed::Waiting {}

impl sealed::Waiting for KeyedUntilClaimed {
    fn into_waiting(self) -> Key {
        self.0
    }
}
#[diagnostic::do_not_recommend]
impl ChangesWaiting for KeyedUntilClaimed {}

/// What `.delay(..)` takes: whole seconds, such as `300`, a [`Duration`], or an `Option` of either.
// Exactly one integer type, so that the type of the literal `300` can be inferred.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a delay",
    label = "expected whole seconds, such as `300`, or a `std::time::Duration`",
    note = "a variable with seconds must be a `u64`; for a fraction of a second, pass `Duration::from_millis(250)`"
)]
pub trait IntoDelay: sealed::Delay {}

impl sealed::Delay for u64 {
    fn into_duration(self) -> Duration {
        Duration::from_secs(self)
    }
}
#[diagnostic::do_not_recommend]
impl IntoDelay for u64 {}

/// Delivers the messages at once if it is `None`.
impl<D: IntoDelay> sealed::Delay for Option<D> {
    fn into_duration(self) -> Duration {
        self.map_or(Duration::ZERO, sealed::Delay::into_duration)
    }
}
#[diagnostic::do_not_recommend]
impl<D: IntoDelay> IntoDelay for Option<D> {}

impl sealed::Delay for Duration {
    fn into_duration(self) -> Duration {
        self
    }
}
#[diagnostic::do_not_recommend]
impl IntoDelay for Duration {}
