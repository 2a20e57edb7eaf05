//! Queues that compute the group of each of their messages.

use std::fmt;

use serde::de::DeserializeOwned;

use super::{KeyOf, Queue, QueueName};
use crate::key::Lifetime;

/// A queue that computes the [group](crate::Enqueue::group) of each message from its payload, so that no send can forget
/// it; made by [`Queue::group_by`].
///
/// It is used as the [`Queue`] that it was made from. An enqueue to it has no key or group of its own:
///
/// ```compile_fail,E0277
/// use pgqrs::{GroupedQueue, Queue};
///
/// const ORDERS: GroupedQueue<String> = Queue::<String>::new("orders").group_by(|customer| customer.clone());
///
/// let enqueue = pgqrs::enqueue().to(ORDERS).group("ada");
/// ```
pub struct GroupedQueue<T>(pub(super) Queue<T>);

/// The queue computes the group of each message.
#[derive(Debug)]
pub struct Grouped(());

/// Each enqueue says whether its messages have a group.
#[derive(Debug)]
pub struct Ungrouped(());

impl<T: DeserializeOwned + 'static> Queue<T> {
    /// Puts each message that is sent to this queue into a [group](crate::Enqueue::group), which is computed from its
    /// payload as it was serialised, and so decodes it once.
    ///
    /// The queue in the database must take groups: see `groups` in [`QueueOptions`](crate::QueueOptions).
    ///
    /// # Panics
    /// If the queue has [`unique_by`](Self::unique_by): a message has a key or a group. For a constant this is an error at
    /// compile time.
    ///
    /// # Errors
    /// An enqueue returns [`Error::Unkeyed`](crate::Error::Unkeyed) for a payload that doesn't decode as `T`.
    ///
    /// # Example
    /// ```
    /// use pgqrs::{GroupedQueue, Queue};
    ///
    /// #[derive(serde::Serialize, serde::Deserialize)]
    /// struct Order {
    ///     customer: u64,
    /// }
    ///
    /// const ORDERS: GroupedQueue<Order> =
    ///     Queue::<Order>::new("orders").group_by(|order| format!("customer-{}", order.customer));
    ///
    /// let enqueue = pgqrs::enqueue().message(&Order { customer: 7 }).to(ORDERS);
    /// ```
    #[must_use]
    pub const fn group_by(mut self, group: fn(&T) -> String) -> GroupedQueue<T> {
        assert!(
            self.key.is_none(),
            "a queue has unique keys or groups: remove `unique_by` or `group_by`"
        );
        self.key = Some(KeyOf::new(group, Lifetime::Group));
        GroupedQueue(self)
    }
}

impl<T> GroupedQueue<T> {
    /// Returns the queue's name.
    pub fn name(&self) -> &QueueName {
        self.0.name()
    }
}

impl<T> Clone for GroupedQueue<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> fmt::Debug for GroupedQueue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name().as_str();
        f.debug_tuple("GroupedQueue").field(&name).finish()
    }
}

impl<T> fmt::Display for GroupedQueue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name().fmt(f)
    }
}
