//! `Debug` output of messages, which leaves payloads out: it ends up in logs.

use std::fmt;

use super::{ArchivedMessage, DeadLetter, QueuedMessage};

impl fmt::Debug for QueuedMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueuedMessage")
            .field("id", &self.id)
            .field("priority", &self.priority)
            .field("visible_at", &self.visible_at)
            .field("enqueued_at", &self.enqueued_at)
            .field("attempt", &self.attempt)
            .field("lease_expires_at", &self.lease_expires_at)
            .field("consumer", &self.consumer)
            .field("unique_key", &self.unique_key)
            .field("last_error", &self.last_error)
            .field("headers", &self.headers)
            .field("payload_bytes", &self.payload.as_ref().map(String::len))
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for DeadLetter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeadLetter")
            .field("id", &self.id)
            .field("priority", &self.priority)
            .field("enqueued_at", &self.enqueued_at)
            .field("attempt", &self.attempt)
            .field("unique_key", &self.unique_key)
            .field("reason", &self.reason)
            .field("last_error", &self.last_error)
            .field("died_at", &self.died_at)
            .field("headers", &self.headers)
            .field("payload_bytes", &self.payload.as_ref().map(String::len))
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for ArchivedMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ArchivedMessage")
            .field("id", &self.id)
            .field("priority", &self.priority)
            .field("enqueued_at", &self.enqueued_at)
            .field("attempt", &self.attempt)
            .field("archived_at", &self.archived_at)
            .field("headers", &self.headers)
            .field("payload_bytes", &self.payload.as_ref().map(String::len))
            .finish_non_exhaustive()
    }
}
