//! The group of an enqueue's messages: few of a group are on their way at a time, in the order in which they were sent.

use super::{
    Enqueue,
    states::{BeforeMessages, KeyNotSet, Keyed, KeyedBy, TakesKeys},
};
#[cfg(doc)]
use crate::error::Error;
use crate::key::{Key, Lifetime};

/// # Groups
///
/// Of the messages of a group, at most `at_once` are on their way at a time: ready, delayed, leased, or waiting for another
/// attempt. The others wait in line, and each settled one lets the next one in. With `at_once` at 1, they are handled one
/// at a time, strictly in order. See [`QueueOptions`](crate::QueueOptions), and [the guide](crate::guide::groups).
impl<M, T, W, K> Enqueue<M, T, W, K> {
    /// Puts the messages into a group, in the order in which the sends of the group are committed. A group is any text of 1
    /// to 255 bytes without NUL characters, and belongs to its queue.
    ///
    /// Until this call's transaction ends, other sends to the group and settlements of its messages wait for it: in a
    /// transaction of your own, send last.
    ///
    /// Available until a key or a group is set. A message has a key or a group, not both. To set it once for a queue, see
    /// [`Queue::group_by`](crate::Queue::group_by).
    ///
    /// # Errors
    /// From [`execute`](Self::execute): [`Error::GroupsNotEnabled`] if the queue takes no groups; [`Error::InvalidKey`] for
    /// an empty text, one of more than 255 bytes, and one with a NUL character; [`Error::KeyHeld`] if another transaction
    /// holds the group.
    ///
    /// # Example
    /// ```no_run
    /// # async fn example(store: pgqrs::Store) -> pgqrs::Result<()> {
    /// use pgqrs::{Groups, QueueOptions};
    ///
    /// let options = QueueOptions::builder().groups(Groups::default()).build();
    /// pgqrs::admin(&store).configure_queue("orders", options).await?;
    ///
    /// pgqrs::enqueue().message(&7).to("orders").group("customer-1").execute(&store).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn group(self, group: impl Into<String>) -> Enqueue<M, T, W, Keyed>
    where
        K: KeyNotSet,
        T: TakesKeys,
    {
        self.with_key(Keyed(Key::new(group.into(), Lifetime::Group)))
    }

    /// As [`group`](Self::group), with a group for each message, computed from its payload.
    ///
    /// Available until a key or a group is set, and before the messages are.
    ///
    /// # Example
    /// ```
    /// #[derive(serde::Serialize)]
    /// struct Order {
    ///     customer: u64,
    /// }
    ///
    /// let enqueue = pgqrs::enqueue()
    ///     .to("orders")
    ///     .group_by(|order: &Order| format!("customer-{}", order.customer))
    ///     .messages(&[Order { customer: 7 }, Order { customer: 8 }]);
    /// ```
    pub fn group_by<P, S>(
        self,
        group: impl Fn(&P) -> S + Send + 'static,
    ) -> Enqueue<M, T, W, KeyedBy<P>>
    where
        M: BeforeMessages,
        K: KeyNotSet,
        T: TakesKeys,
        P: ?Sized,
        S: Into<String>,
    {
        let key = move |payload: &P| Key::new(group(payload).into(), Lifetime::Group);
        self.with_key(KeyedBy(Box::new(key)))
    }
}
