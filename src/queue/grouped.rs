//! Queues that compute the key or the group of each of their messages.

use std::fmt;

use serde::de::DeserializeOwned;

use super::{Grouped, IntoQueue, KeyOf, Queue, QueueName, sealed};
use crate::{error::Error, key::Lifetime};

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

impl<T: DeserializeOwned + 'static> Queue<T> {
    /// Makes each message that is sent to this queue [unique](crate::Enqueue::unique) by a key that is computed from its
    /// payload as it was serialised, and so decodes it once. An enqueue that sets a key itself has that one.
    ///
    /// # Errors
    /// An enqueue returns [`Error::Unkeyed`] for a payload that doesn't decode as `T`.
    ///
    /// # Example
    /// ```
    /// use pgqrs::Queue;
    ///
    /// #[derive(serde::Serialize, serde::Deserialize)]
    /// struct Invoice {
    ///     order: u64,
    /// }
    ///
    /// const INVOICES: Queue<Invoice> =
    ///     Queue::<Invoice>::new("invoices").unique_by(|invoice| format!("order-{}", invoice.order));
    ///
    /// let enqueue = pgqrs::enqueue().message(&Invoice { order: 7 }).to(INVOICES);
    /// ```
    #[must_use]
    pub const fn unique_by(mut self, key: fn(&T) -> String) -> Self {
        self.key = Some(KeyOf::new(key, Lifetime::Unfinished));
        self
    }

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
    /// An enqueue returns [`Error::Unkeyed`] for a payload that doesn't decode as `T`.
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

#[diagnostic::do_not_recommend]
impl<T> sealed::IntoName for GroupedQueue<T> {
    type Of = T;

    fn key(&self) -> Option<KeyOf<T>> {
        self.0.key
    }

    fn into_name(self) -> Result<QueueName, Error> {
        Ok(self.0.name)
    }
}
#[diagnostic::do_not_recommend]
impl<T> IntoQueue for GroupedQueue<T> {
    type Carries = T;
    type Grouping = Grouped;
}

#[diagnostic::do_not_recommend]
impl<T> sealed::IntoName for &GroupedQueue<T> {
    type Of = T;

    fn key(&self) -> Option<KeyOf<T>> {
        self.0.key
    }

    fn into_name(self) -> Result<QueueName, Error> {
        Ok(self.0.name.clone())
    }
}
#[diagnostic::do_not_recommend]
impl<T> IntoQueue for &GroupedQueue<T> {
    type Carries = T;
    type Grouping = Grouped;
}
