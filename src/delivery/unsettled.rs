//! What hands a delivery back that could not be settled, for a retry.

use std::{fmt, marker::PhantomData};

use super::{Decoded, Delivery, Unchecked};
use crate::error::{Error, Result};

impl<T> Delivery<T, Unchecked> {
    /// Returns the delivery as a handler gets it, with its payload decoded.
    ///
    /// # Errors
    /// [`Unsettled`] with [`Error::Decode`] if the payload doesn't have the shape of `T`; it hands the delivery back.
    pub fn decoded(self) -> Result<Delivery<T>, Unsettled<T, Unchecked>> {
        if let Err(source) = &self.payload {
            let error = self.decode_error(source);
            let delivery = Box::new(self);
            return Err(Unsettled { delivery, error });
        }
        Ok(Delivery {
            message: self.message,
            payload: self.payload,
            lease: self.lease,
            store: self.store,
            retry: self.retry,
            state: PhantomData,
        })
    }
}

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

/// Deliveries that could not be settled, and why.
#[derive(thiserror::Error)]
#[error("{} messages could not be settled", .deliveries.len())]
pub struct UnsettledBatch<T, D = Decoded> {
    pub(super) deliveries: Vec<Delivery<T, D>>,
    #[source]
    pub(super) error: Error,
}

impl<T, D> UnsettledBatch<T, D> {
    /// Returns why the settlement failed.
    pub fn error(&self) -> &Error {
        &self.error
    }

    /// Returns the deliveries, for a retry.
    pub fn into_deliveries(self) -> Vec<Delivery<T, D>> {
        self.deliveries
    }
}

impl<T, D> fmt::Debug for UnsettledBatch<T, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnsettledBatch")
            .field("deliveries", &self.deliveries)
            .field("error", &self.error)
            .finish()
    }
}

/// For `?` in a function that returns an [`Error`] and doesn't need the deliveries.
impl<T, D> From<UnsettledBatch<T, D>> for Error {
    fn from(unsettled: UnsettledBatch<T, D>) -> Self {
        unsettled.error
    }
}
