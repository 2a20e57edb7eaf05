//! Keys and groups that a queue computes from the payloads of its messages.

use std::{fmt, sync::Arc};

use serde::de::DeserializeOwned;

use crate::key::{Key, Lifetime};

/// How a key is computed from a payload of type `T`.
#[derive(Debug)]
pub struct KeyOf<T> {
    key: fn(&T) -> String,
    lifetime: Lifetime,
    erased: Erase<T>,
}

impl<T: DeserializeOwned + 'static> KeyOf<T> {
    pub(super) const fn new(key: fn(&T) -> String, lifetime: Lifetime) -> Self {
        Self {
            key,
            lifetime,
            erased: |key| {
                Arc::new(move |json| serde_json::from_str(json).map(|payload| key(&payload)))
            },
        }
    }
}

impl<T> KeyOf<T> {
    pub(crate) fn erased(self) -> KeyOfJson {
        KeyOfJson {
            of: (self.erased)(self.key),
            lifetime: self.lifetime,
        }
    }
}

impl<T> Clone for KeyOf<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for KeyOf<T> {}

type Erase<T> = fn(fn(&T) -> String) -> Arc<OfJson>;
type OfJson = dyn Fn(&str) -> serde_json::Result<String> + Send + Sync;

/// The same, without the type.
#[derive(Clone)]
pub struct KeyOfJson {
    of: Arc<OfJson>,
    lifetime: Lifetime,
}

impl KeyOfJson {
    pub(crate) fn key(&self, json: &str) -> serde_json::Result<Key> {
        Ok(Key::new((self.of)(json)?, self.lifetime))
    }

    /// Whether it computes the group of each message.
    pub(crate) fn is_group(&self) -> bool {
        self.lifetime == Lifetime::Group
    }
}

impl fmt::Debug for KeyOfJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyOfJson").finish_non_exhaustive()
    }
}
