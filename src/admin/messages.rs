//! Messages of a queue: list, reschedule.

use chrono::{DateTime, Utc};

use super::{Admin, rows::QueuedMessage};
#[cfg(doc)]
use crate::error::Error;
use crate::{
    error::Result,
    message::{MessageId, Page, Visible},
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
}
