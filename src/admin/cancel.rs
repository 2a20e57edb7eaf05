//! Cancelling messages, by id and by key.

use std::future::IntoFuture;

use super::{Admin, rows::Cancelled};
#[cfg(doc)]
use crate::error::Error;
use crate::{
    error::Result,
    executor::Execute,
    key,
    message::{MessageId, cancel_notice::CancelNotice},
    pool::CANCELLED,
    postgres::messages::{self, CancelledMessage},
    queue::{IntoQueue, QueueName},
};

impl Admin {
    /// Cancels a message, waiting or running: deletes it.
    ///
    /// # Shape
    /// Awaited, it returns what the message was, or `None` if there is no message with that id: it is done, dead or
    /// archived already, or never was. [`archive`](CancelMessage::archive) keeps the message in the archive.
    ///
    /// Either the message is cancelled or a consumer has settled it, and never both: if a handler finishes at the same
    /// time, one of the two comes first, and the other finds no message. See
    /// [`Cancelled::Running`] for what happens to a handler.
    ///
    /// If a handler is acknowledging the message in an open transaction, the call waits for that transaction.
    ///
    /// # Errors
    /// [`Error::QueueNotFound`]; connection errors. After [`Error::ConnectionLost`] it is uncertain whether the message is
    /// cancelled; another call cancels it if it isn't, and returns `None` if it is.
    ///
    /// # Source
    /// `delete from pgqrs.messages …`, with `pg_notify` for a message that is leased.
    ///
    /// # Example
    /// ```no_run
    /// # async fn example(store: pgqrs::Store, id: pgqrs::MessageId) -> pgqrs::Result<()> {
    /// use pgqrs::Cancelled;
    ///
    /// match pgqrs::admin(&store).cancel("reports", id).archive(true).await? {
    ///     Some(Cancelled::Waiting) => println!("it will never run"),
    ///     Some(Cancelled::Running) => println!("its handler is being stopped"),
    ///     None => println!("it is done already"),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn cancel(&self, queue: impl IntoQueue, message: MessageId) -> CancelMessage {
        CancelMessage {
            admin: self.clone(),
            queue: queue.into_name(),
            message,
            archive: false,
        }
    }

    /// Cancels these messages, as [`cancel`](Self::cancel) does, without keeping them in the archive. Returns how many
    /// were cancelled. One that is claimed or settled at this moment may be left out; another call finds it.
    ///
    /// # Errors
    /// [`Error::QueueNotFound`].
    pub async fn cancel_many(&self, queue: impl IntoQueue, messages: &[MessageId]) -> Result<u64> {
        let queue = queue.into_name()?;
        let cancelled = self
            .store
            .run(async |connection| {
                messages::cancel_many(connection, &queue, messages, CANCELLED).await
            })
            .await?;
        self.notify_cancelled(&cancelled);
        if cancelled.iter().any(|message| message.is_next_ready) {
            self.store.notifier().wake(&queue);
        }
        let many = cancelled.len() as u64;
        self.unless_absent(queue, many > 0, many).await
    }

    /// Cancels the messages that have this unique key, as [`cancel`](Self::cancel) does.
    ///
    /// # Shape
    /// Awaited, it returns the id of each cancelled message, and what it was: at most one for each way to be unique. For a
    /// key [`once_within`](crate::Enqueue::once_within) a time, that is the message that was sent with it in this time;
    /// the key is not free again before its end.
    ///
    /// # Errors
    /// [`Error::QueueNotFound`].
    pub fn cancel_by_key(&self, queue: impl IntoQueue, key: impl Into<String>) -> CancelByKey {
        CancelByKey {
            admin: self.clone(),
            queue: queue.into_name(),
            key: key.into(),
            archive: false,
        }
    }

    /// Notifies consumers of this process without the detour over the server.
    fn notify_cancelled(&self, cancelled: &[CancelledMessage]) {
        let leased = cancelled.iter().filter(|message| message.is_leased);
        for message in leased {
            self.store.notifier().cancelled(CancelNotice {
                queue_id: message.queue_id,
                id: MessageId::from(message.id),
                token: message.lease_token,
            });
        }
    }
}

impl From<&CancelledMessage> for Cancelled {
    fn from(message: &CancelledMessage) -> Self {
        if message.is_leased {
            Self::Running
        } else {
            Self::Waiting
        }
    }
}

/// A cancellation of one message; made by [`Admin::cancel`].
#[derive(Debug)]
#[must_use = "nothing is cancelled until this is awaited"]
pub struct CancelMessage {
    admin: Admin,
    queue: Result<QueueName>,
    message: MessageId,
    archive: bool,
}

impl CancelMessage {
    /// Whether the message is kept in the archive; defaults to false.
    pub fn archive(mut self, archive: bool) -> Self {
        self.archive = archive;
        self
    }
}

impl IntoFuture for CancelMessage {
    type Output = Result<Option<Cancelled>>;
    type IntoFuture = Execute<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Execute::new(async move {
            let Self {
                admin,
                queue,
                message,
                archive,
            } = self;
            let queue = queue?;
            let cancelled = admin
                .store
                .run(async |connection| {
                    messages::cancel(connection, &queue, message, archive, CANCELLED).await
                })
                .await?;
            admin.notify_cancelled(cancelled.as_slice());
            if cancelled
                .as_ref()
                .is_some_and(|message| message.is_next_ready)
            {
                admin.store.notifier().wake(&queue);
            }
            let was = cancelled.as_ref().map(Cancelled::from);
            admin.unless_absent(queue, was.is_some(), was).await
        })
    }
}

/// A cancellation of messages by their key; made by [`Admin::cancel_by_key`].
#[derive(Debug)]
#[must_use = "nothing is cancelled until this is awaited"]
pub struct CancelByKey {
    admin: Admin,
    queue: Result<QueueName>,
    key: String,
    archive: bool,
}

impl CancelByKey {
    /// Whether the messages are kept in the archive; defaults to false.
    pub fn archive(mut self, archive: bool) -> Self {
        self.archive = archive;
        self
    }
}

impl IntoFuture for CancelByKey {
    type Output = Result<Vec<(MessageId, Cancelled)>>;
    type IntoFuture = Execute<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Execute::new(async move {
            let Self {
                admin,
                queue,
                key,
                archive,
            } = self;
            let queue = queue?;
            let Some(key) = key::stored(key) else {
                return admin.unless_absent(queue, false, Vec::new()).await;
            };
            let cancelled = admin
                .store
                .run(async |connection| {
                    messages::cancel_key(connection, &queue, &key, archive, CANCELLED).await
                })
                .await?;
            admin.notify_cancelled(&cancelled);
            let cancelled: Vec<_> = cancelled
                .iter()
                .map(|message| (MessageId::from(message.id), Cancelled::from(message)))
                .collect();
            admin
                .unless_absent(queue, !cancelled.is_empty(), cancelled)
                .await
        })
    }
}
