//! The group that a message belongs to.

use super::Delivery;

impl<T, D> Delivery<T, D> {
    /// Returns the [group](crate::Enqueue::group) that the message belongs to; `None` if it has none.
    pub fn group(&self) -> Option<&str> {
        self.message.group.as_deref()
    }
}
