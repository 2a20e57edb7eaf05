//! Keys that a queue computes from the payloads of its messages.

use std::{fmt, sync::Arc};

use serde::de::DeserializeOwned;

/// How a key is computed from a payload of type `T`.
#[derive(Debug)]
pub struct KeyOf<T> {
    key: fn(&T) -> String,
    erased: fn(fn(&T) -> String) -> KeyOfJson,
}

impl<T: DeserializeOwned + 'static> KeyOf<T> {
    pub(super) const fn new(key: fn(&T) -> String) -> Self {
        Self {
            key,
            erased: |key| {
                KeyOfJson(Arc::new(move |json| {
                    serde_json::from_str(json).map(|payload| key(&payload))
                }))
            },
        }
    }
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
