//! A delivery that no claim has returned, for tests of handlers.

use std::{marker::PhantomData, sync::Arc};

use super::{Delivery, lease::Lease};
use crate::{message::Message, retry::RetryPolicy};

impl<T> Delivery<T> {
    /// One that no claim has returned.
    pub(crate) fn of_test(message: Message, payload: T, lease: Arc<Lease>) -> Self {
        Self {
            message,
            payload: Ok(payload),
            lease,
            store: None,
            retry: RetryPolicy::default(),
            time_limit: None,
            state: PhantomData,
        }
    }
}
