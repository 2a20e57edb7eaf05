//! Messages of a queue: list, reschedule, edit.

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::{Admin, rows::QueuedMessage};
#[cfg(doc)]
use crate::error::Error;
use crate::{
    error::Result,
    message::{MessageId, NewMessage, Page, Visible},
    payload,
    postgres::messages,
    queue::IntoQueue,
};

impl Admin {
    /// Returns messages of a queue, ordered by id: ready, delayed and leased ones.
    ///
    /// # Errors
    /// [`Error::QueueNotFound`].
    pub async fn messages(&self, queue: impl IntoQueue, page: Page) -> Result<Vec<QueuedMessage>> {
        let queue = queue.into_name()?;
        let listed = self
            .store
            .run(async |connection| messages::list(connection, &queue, &page).await)
            .await?;
        self.unless_absent(queue, !listed.is_empty(), listed).await
    }

    /// Moves a message that no consumer holds to another time; a time in the past means now. Returns `false` if there
    /// is no message with that id, or a consumer holds it.
    ///
    /// # Errors
    /// [`Error::QueueNotFound`].
    pub async fn reschedule(
        &self,
        queue: impl IntoQueue,
        message: MessageId,
        time: DateTime<Utc>,
    ) -> Result<bool> {
        let (queue, visible) = (queue.into_name()?, Visible::At(time));
        let moved = self
            .store
            .run(async |connection| {
                messages::reschedule(connection, &queue, message, visible).await
            })
            .await?;
        self.unless_absent(queue, moved, moved).await
    }

    /// Moves these messages to another time, as [`reschedule`](Self::reschedule) does. Returns how many were moved: those
    /// that a consumer holds, or is claiming at this moment, stay as they are.
    ///
    /// # Errors
    /// [`Error::QueueNotFound`].
    pub async fn reschedule_many(
        &self,
        queue: impl IntoQueue,
        messages: &[MessageId],
        time: DateTime<Utc>,
    ) -> Result<u64> {
        let (queue, visible) = (queue.into_name()?, Visible::At(time));
        let moved = self
            .store
            .run(async |connection| {
                messages::reschedule_many(connection, &queue, messages, visible).await
            })
            .await?;
        self.unless_absent(queue, moved > 0, moved).await
    }

    /// Replaces the payload of a message that no consumer holds. Returns `false` if there is no message with that id, or a
    /// consumer holds it. Its key, if it has one, stays as it is.
    ///
    /// # Errors
    /// [`Error::QueueNotFound`]; [`Error::Serialize`]; [`Error::PayloadTooDeep`]; [`Error::PayloadTooLarge`].
    ///
    /// # Example
    /// With JSON that an operator has typed in:
    ///
    /// ```no_run
    /// # async fn example(store: pgqrs::Store, id: pgqrs::MessageId) -> Result<(), Box<dyn std::error::Error>> {
    /// let typed: Box<serde_json::value::RawValue> = serde_json::from_str(r#"{"to": "a@example.com"}"#)?;
    /// pgqrs::admin(&store).edit("emails", id, &typed).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn edit<P: Serialize + Sync + ?Sized>(
        &self,
        queue: impl IntoQueue,
        message: MessageId,
        payload: &P,
    ) -> Result<bool> {
        let queue = queue.into_name()?;
        let edited_message = NewMessage::new(payload::encode(0, payload)?);
        edited_message.check_size(0, self.store.payload_limit())?;
        let edited = self
            .store
            .run(async |connection| {
                messages::edit(connection, &queue, message, edited_message.payload()).await
            })
            .await?;
        self.unless_absent(queue, edited, edited).await
    }
}
