//! What few messages ask for: a key, limits, or a time and a priority of their own.

use std::time::Duration;

use super::{LONGEST_DELAY, NewMessage, Priority, Visible};
use crate::{
    error::{Error, Result},
    headers::Headers,
    key::Key,
};

/// What few messages ask for. They are stored by a statement of its own.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct MessageOptions {
    pub(crate) max_attempts: Option<u32>,
    pub(crate) expires_in: Option<Duration>,
    pub(crate) drop_if_expired: bool,
    pub(crate) key: Option<Key>,
    /// Besides the enqueue's.
    pub(crate) headers: Headers,
    /// Instead of the enqueue's.
    pub(crate) priority: Option<Priority>,
    pub(crate) visible: Option<Visible>,
}

impl MessageOptions {
    /// Of message `index` of an enqueue.
    fn check(mut self, index: usize) -> Result<Self> {
        let max_attempts = self.max_attempts.unwrap_or(1);
        if max_attempts == 0 || i32::try_from(max_attempts).is_err() {
            return Err(Error::InvalidSetting {
                setting: "max_attempts",
                value: max_attempts.to_string(),
                expected: "between 1 and 2147483647",
            });
        }
        let key = self.key.as_ref().and_then(Key::time);
        let mut delays = self.expires_in.into_iter().chain(key);
        if let Some(delay) = delays.find(|delay| *delay > LONGEST_DELAY) {
            return Err(Error::DelayTooLong {
                delay,
                limit: LONGEST_DELAY,
            });
        }
        let key = self.key.map(Key::check).transpose();
        self.key = key.map_err(|problem| Error::InvalidKey { index, problem })?;
        Ok(self)
    }
}

impl NewMessage {
    pub(crate) fn options(&self) -> Option<&MessageOptions> {
        self.options.as_deref()
    }

    pub(crate) fn key(&self) -> Option<&Key> {
        self.options()?.key.as_ref()
    }

    /// Whether it can be claimed once it is stored, in an enqueue with this time.
    pub(crate) fn is_ready(&self, of_enqueue: Visible) -> bool {
        let own = self.options().and_then(|options| options.visible);
        own.unwrap_or(of_enqueue) == Visible::Now
    }

    /// Sets what the message asks for itself, if it does.
    pub(crate) fn set_options(&mut self, options: MessageOptions) {
        if options != MessageOptions::default() {
            self.options = Some(Box::new(options));
        }
    }

    pub(crate) fn set_key(&mut self, key: Key) {
        self.options.get_or_insert_default().key = Some(key);
    }

    /// Sets what the message doesn't ask for itself, and checks all of it. The message is number `index` of its enqueue.
    pub(crate) fn complete_options(
        &mut self,
        index: usize,
        of_each: &MessageOptions,
    ) -> Result<()> {
        let own = self
            .options
            .take()
            .map_or_else(MessageOptions::default, |own| *own);
        let all = MessageOptions {
            max_attempts: own.max_attempts.or(of_each.max_attempts),
            expires_in: own.expires_in.or(of_each.expires_in),
            drop_if_expired: own.drop_if_expired || of_each.drop_if_expired,
            key: own.key.or_else(|| of_each.key.clone()),
            ..own
        };
        if all.key.as_ref().is_some_and(Key::is_appended) && !self.payload.starts_with('[') {
            return Err(Error::InvalidKey {
                index,
                problem: "is set with `.or_append()`, and the message's payload is not a JSON array",
            });
        }
        self.options = Some(Box::new(all.check(index)?));
        Ok(())
    }
}
