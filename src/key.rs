//! Keys of messages: for how long no other message of the queue can have the same one, and what becomes of a message
//! that is sent with a key that another has. A message has such a key, or one that names its group.

use std::{
    fmt,
    hash::{Hash, Hasher},
    mem,
    time::Duration,
};

use sha2::{Digest, Sha256};

/// A longer key is stored as its hash.
const LONGEST_BYTES: usize = 255;

// Public to this crate's sealed traits only: nothing exports it.
/// What an enqueue or a message asks for: a text that is checked when it is sent, and how long it is unique.
#[derive(Clone, PartialEq, Eq)]
pub struct Key {
    text: String,
    lifetime: Lifetime,
}

/// For how long no other message of the queue can have the key; or that it is shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lifetime {
    /// While the message exists: until it was handled, or became a dead letter.
    Unfinished,
    /// Until it is claimed.
    UntilClaimed(OnDuplicate),
    /// For this time from when it was sent, whatever becomes of it.
    Within(Duration),
    /// It names a group, of which any number of messages are sent, and few are on their way at a time.
    Group,
}

/// What a second message with the key of a waiting one does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnDuplicate {
    Keep,
    Replace,
    /// Moves the waiting one's time, to at most this long after it was sent.
    Postpone(Duration),
    Append,
}

impl Key {
    pub(crate) fn new(text: String, lifetime: Lifetime) -> Self {
        Self { text, lifetime }
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    pub(crate) fn lifetime(&self) -> Lifetime {
        self.lifetime
    }

    /// Whether a second message with this key leaves the first as it is.
    pub(crate) fn is_kept(&self) -> bool {
        match self.lifetime {
            Lifetime::Unfinished | Lifetime::Within(_) | Lifetime::Group => true,
            Lifetime::UntilClaimed(on_duplicate) => on_duplicate == OnDuplicate::Keep,
        }
    }

    /// Whether a second message with this key is appended to the first.
    pub(crate) fn is_appended(&self) -> bool {
        self.lifetime == Lifetime::UntilClaimed(OnDuplicate::Append)
    }

    /// The same for all keys that are the same to the database: of the same text and kind.
    pub(crate) fn hash_text(&self, hasher: &mut impl Hasher) {
        mem::discriminant(&self.lifetime).hash(hasher);
        self.text.hash(hasher);
    }

    /// The same key with another effect of a duplicate, for one until its message is claimed.
    pub(crate) fn changed_to(mut self, on_duplicate: OnDuplicate) -> Self {
        if let Lifetime::UntilClaimed(on) = &mut self.lifetime {
            *on = on_duplicate;
        }
        self
    }

    /// Whether it names a group.
    pub(crate) fn is_group(&self) -> bool {
        self.lifetime == Lifetime::Group
    }

    /// The key as it is stored, or what is wrong with it.
    pub(crate) fn check(self) -> Result<Self, &'static str> {
        if self.text.is_empty() {
            return Err("is empty; pass a key that identifies the message, or none");
        }
        if self.text.contains('\0') {
            return Err("contains a NUL character, which PostgreSQL can't store");
        }
        if self.text.len() > LONGEST_BYTES && self.lifetime == Lifetime::Group {
            return Err("names a group, and is longer than 255 bytes");
        }
        if self.text.len() > LONGEST_BYTES {
            let text = hashed(&self.text);
            return Ok(Self { text, ..self });
        }
        Ok(self)
    }

    /// The time that it names, if any.
    pub(crate) fn time(&self) -> Option<Duration> {
        match self.lifetime {
            Lifetime::Within(time) | Lifetime::UntilClaimed(OnDuplicate::Postpone(time)) => {
                Some(time)
            }
            _ => None,
        }
    }
}

/// Without the text, which may be an address or a name.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key")
            .field("lifetime", &self.lifetime)
            .finish_non_exhaustive()
    }
}

/// The text of a key as it is stored; `None` if no message can have it.
pub(crate) fn stored(text: String) -> Option<String> {
    let key = Key::new(text, Lifetime::Unfinished).check();
    key.ok().map(|key| key.text)
}

fn hashed(text: &str) -> String {
    use fmt::Write;
    let mut key = String::from("sha256:");
    for byte in Sha256::digest(text) {
        // A string takes any text.
        let _ = write!(key, "{byte:02x}");
    }
    key
}

/// By which payloads are compared. The first 16 bytes are enough to distinguish them.
pub(crate) fn payload_hash(payload: &str) -> Vec<u8> {
    Sha256::digest(payload)[..16].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(text: &str) -> Result<String, &'static str> {
        let key = Key::new(text.to_owned(), Lifetime::Unfinished);
        key.check().map(|key| key.text)
    }

    #[test]
    fn keys_up_to_255_bytes_are_stored_as_they_are_and_longer_ones_hashed() {
        let longest = "k".repeat(255);
        for key in ["k", " ", "é📮\u{7f}\u{200b}", &longest] {
            assert_eq!(stored(key).expect("a key"), key);
        }
        let (one, other) = ("k".repeat(256), "k".repeat(10_000));
        let (one, other) = (stored(&one).expect("a key"), stored(&other).expect("a key"));
        assert_eq!(one.len(), "sha256:".len() + 64);
        assert_ne!(one, other);
    }

    #[test]
    fn an_empty_key_and_one_with_nul_are_refused() {
        assert!(stored("").is_err());
        assert!(stored("a\0b").is_err());
    }

    #[test]
    fn a_group_of_more_than_255_bytes_is_refused() {
        let group = |bytes| Key::new("g".repeat(bytes), Lifetime::Group).check();
        assert!(group(255).is_ok());
        assert!(group(256).is_err());
    }

    #[test]
    fn debug_shows_no_text() {
        let key = Key::new("ada@example.com".to_owned(), Lifetime::Unfinished);
        assert_eq!(format!("{key:?}"), "Key { lifetime: Unfinished, .. }");
    }
}
