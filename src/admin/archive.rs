//! The archive: list, delete.

use std::time::Duration;

use super::{Admin, found, rows::ArchivedMessage};
#[cfg(doc)]
use crate::error::Error;
use crate::{error::Result, message::Page, postgres::archive, queue::IntoQueue};

impl Admin {
    /// Returns archived messages of a queue, ordered by id.
    ///
    /// # Errors
    /// [`Error::QueueNotFound`].
    pub async fn archived(
        &self,
        queue: impl IntoQueue,
        page: Page,
    ) -> Result<Vec<ArchivedMessage>> {
        let queue = queue.into_name()?;
        let listed = self
            .store
            .run(async |connection| archive::list(connection, &queue, &page).await)
            .await?;
        self.unless_absent(queue, !listed.is_empty(), listed).await
    }

    /// Deletes messages that were archived at least `older_than` ago. Returns the number of them.
    ///
    /// # Errors
    /// [`Error::QueueNotFound`].
    pub async fn purge_archive(&self, queue: impl IntoQueue, older_than: Duration) -> Result<u64> {
        let queue = queue.into_name()?;
        found(
            self.store
                .run_long(async |connection| archive::purge(connection, &queue, older_than).await)
                .await?,
            queue,
        )
    }
}
