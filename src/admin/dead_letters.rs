//! Dead letters: list, count, requeue, delete.

use std::time::Duration;

use super::{
    Admin, found,
    rows::{DeadLetter, Requeued},
};
#[cfg(doc)]
use crate::error::Error;
use crate::{
    error::Result,
    message::{MessageId, Page},
    postgres::dead_letters::{self, DeletedLetters},
    queue::{IntoQueue, QueueName},
};

impl Admin {
    /// Returns dead letters of a queue, ordered by id.
    ///
    /// # Errors
    /// [`Error::QueueNotFound`].
    pub async fn dead_letters(&self, queue: impl IntoQueue, page: Page) -> Result<Vec<DeadLetter>> {
        let queue = queue.into_name()?;
        let listed = self
            .store
            .run(async |connection| dead_letters::list(connection, &queue, &page).await)
            .await?;
        self.unless_absent(queue, !listed.is_empty(), listed).await
    }

    /// Returns the number of dead letters of a queue.
    ///
    /// # Errors
    /// [`Error::QueueNotFound`].
    pub async fn dead_letter_count(&self, queue: impl IntoQueue) -> Result<u64> {
        let queue = queue.into_name()?;
        found(
            self.store
                .run_long(async |connection| dead_letters::count(connection, &queue).await)
                .await?,
            queue,
        )
    }

    /// Puts a dead letter back into its queue: ready, under its id, with all of its attempts available, and without an
    /// expiry. Returns whether it is back, or stays a dead letter since another message has its key by now; neither if
    /// there is no dead letter with that id. A message that was acknowledged can't be requeued.
    ///
    /// A message of a [group](crate::Enqueue::group) is put in front of those that are parked, and goes on as soon as there
    /// is room; if it had stopped its group, the group is resumed.
    ///
    /// # Errors
    /// [`Error::QueueNotFound`]; [`Error::KeyHeld`] if another open transaction has stored a message with its key.
    ///
    /// # Example
    /// ```no_run
    /// # async fn example(store: pgqrs::Store, message: pgqrs::MessageId) -> pgqrs::Result<()> {
    /// let requeued = pgqrs::admin(&store).requeue("invoices", message).await?;
    /// if requeued.held > 0 {
    ///     println!("another message has its key");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn requeue(&self, queue: impl IntoQueue, message: MessageId) -> Result<Requeued> {
        self.requeue_many(queue, &[message]).await
    }

    /// Requeues these dead letters, as [`requeue`](Self::requeue) does. An id without a dead letter is left out.
    ///
    /// # Errors
    /// As for [`requeue`](Self::requeue).
    pub async fn requeue_many(
        &self,
        queue: impl IntoQueue,
        messages: &[MessageId],
    ) -> Result<Requeued> {
        self.revive(queue.into_name()?, Some(messages), Duration::ZERO)
            .await
    }

    /// Requeues all dead letters that are at least `older_than` old; all of them for `Duration::ZERO`. Returns how many are
    /// back, and how many stay dead letters since other messages have their keys.
    ///
    /// # Errors
    /// As for [`requeue`](Self::requeue).
    pub async fn requeue_all(
        &self,
        queue: impl IntoQueue,
        older_than: Duration,
    ) -> Result<Requeued> {
        self.revive(queue.into_name()?, None, older_than).await
    }

    async fn revive(
        &self,
        queue: QueueName,
        messages: Option<&[MessageId]>,
        age: Duration,
    ) -> Result<Requeued> {
        let requeued = self
            .store
            .run_long(async |connection| {
                dead_letters::requeue(connection, &queue, messages, age).await
            })
            .await?;
        self.store.notifier().wake(&queue);
        found(requeued, queue)
    }

    /// Deletes these dead letters. Returns the number of them; an id without a dead letter is left out. Groups that they
    /// have stopped go on: see [`AfterDeadLetter::Stop`](crate::AfterDeadLetter::Stop).
    ///
    /// # Errors
    /// [`Error::QueueNotFound`].
    pub async fn delete_dead_letters(
        &self,
        queue: impl IntoQueue,
        messages: &[MessageId],
    ) -> Result<u64> {
        let queue = queue.into_name()?;
        let deleted = self
            .store
            .run(async |connection| dead_letters::delete(connection, &queue, messages).await)
            .await?;
        self.deleted(deleted, queue)
    }

    /// Deletes dead letters that are at least `older_than` old. Returns the number of them. Groups that they have stopped go
    /// on, as for [`delete_dead_letters`](Self::delete_dead_letters).
    ///
    /// # Errors
    /// [`Error::QueueNotFound`].
    pub async fn purge_dead_letters(
        &self,
        queue: impl IntoQueue,
        older_than: Duration,
    ) -> Result<u64> {
        let queue = queue.into_name()?;
        let deleted = self
            .store
            .run_long(async |connection| dead_letters::purge(connection, &queue, older_than).await)
            .await?;
        self.deleted(deleted, queue)
    }

    fn deleted(&self, deleted: Option<DeletedLetters>, queue: QueueName) -> Result<u64> {
        if deleted.is_some_and(|deleted| deleted.is_next_ready) {
            self.store.notifier().wake(&queue);
        }
        found(deleted.map(|deleted| deleted.letters.unsigned_abs()), queue)
    }
}
