//! Keys that a queue computes from the payloads of its messages.

use std::{fmt, sync::Arc};

use serde::de::DeserializeOwned;

use super::Queue;
#[cfg(doc)]
use crate::error::Error;

impl<T: DeserializeOwned + 'static> Queue<T> {
    /// Makes each message that is sent to this queue [unique](crate::Enqueue::unique) by a key that is computed from its
    /// payload. An enqueue that sets a key itself has that one.
    ///
    /// The key is computed from the payload as it was serialised, and so decodes it once.
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
        self.key = Some(KeyOf {
            key,
            erased: |key| {
                KeyOfJson(Arc::new(move |json| {
                    serde_json::from_str(json).map(|payload| key(&payload))
                }))
            },
        });
        self
    }
}

/// How a key is computed from a payload of type `T`.
#[derive(Debug)]
pub struct KeyOf<T> {
    key: fn(&T) -> String,
    erased: fn(fn(&T) -> String) -> KeyOfJson,
}

impl<T> KeyOf<T> {
    pub(crate) fn erased(self) -> KeyOfJson {
        (self.erased)(self.key)
    }
}

impl<T> Clone for KeyOf<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for KeyOf<T> {}

type OfJson = dyn Fn(&str) -> serde_json::Result<String> + Send + Sync;

/// The same, without the type.
#[derive(Clone)]
pub struct KeyOfJson(Arc<OfJson>);

impl KeyOfJson {
    pub(crate) fn key(&self, json: &str) -> serde_json::Result<String> {
        self.0(json)
    }
}

impl fmt::Debug for KeyOfJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyOfJson").finish_non_exhaustive()
    }
}
