//! A delivery that could not be settled.

use std::fmt;

use super::{Decoded, Delivery};
use crate::error::Error;

/// A delivery that could not be settled, and why.
#[derive(thiserror::Error)]
#[error("message {} could not be settled", .delivery.id())]
pub struct Unsettled<T, D = Decoded> {
    pub(super) delivery: Box<Delivery<T, D>>,
    #[source]
    pub(super) error: Error,
}

impl<T, D> Unsettled<T, D> {
    /// Returns why the settlement failed.
    pub fn error(&self) -> &Error {
        &self.error
    }

    /// Returns the delivery, for a retry.
    pub fn into_delivery(self) -> Delivery<T, D> {
        *self.delivery
    }
}

impl<T, D> fmt::Debug for Unsettled<T, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unsettled")
            .field("delivery", &self.delivery)
            .field("error", &self.error)
            .finish()
    }
}

/// For `?` in a function that returns an [`Error`] and doesn't need the delivery.
impl<T, D> From<Unsettled<T, D>> for Error {
    fn from(unsettled: Unsettled<T, D>) -> Self {
        unsettled.error
    }
}
