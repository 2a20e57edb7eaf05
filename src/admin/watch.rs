//! Notices that messages are enqueued, without polling.

use std::fmt;

use super::Admin;
#[cfg(doc)]
use crate::error::Error;
use crate::{
    error::Result,
    pool::{Notifier, WakeSubscription},
    queue::IntoQueue,
};

impl Admin {
    /// Watches a queue for messages that become ready when they are enqueued, such as for a view that is live. For as long as
    /// it is kept, the store listens, on a connection besides the pool's.
    ///
    /// # Errors
    /// [`Error::InvalidQueueName`]. Whether there is such a queue isn't checked.
    ///
    /// # Source
    /// LISTEN. Without it, such as [through PgBouncer](crate::ConnectOptions), only what this store enqueues is noticed.
    ///
    /// # Example
    /// ```no_run
    /// # async fn example(store: pgqrs::Store) -> pgqrs::Result<()> {
    /// use std::time::Duration;
    ///
    /// let admin = pgqrs::admin(&store);
    /// let watch = admin.watch("emails")?;
    /// loop {
    ///     println!("{:?}", admin.queue_stats("emails").await?);
    ///     // A look now and then all the same.
    ///     let _ = tokio::time::timeout(Duration::from_secs(10), watch.woken()).await;
    /// }
    /// # }
    /// ```
    pub fn watch(&self, queue: impl IntoQueue) -> Result<QueueWatch> {
        let queue = queue.into_name()?;
        let notifier = self.store.notifier();
        Ok(QueueWatch {
            subscription: notifier.subscribe(&queue, self.store.can_listen()),
            listens: self.store.can_listen().then(|| notifier.clone()),
        })
    }
}

/// Watches a queue until it is dropped; made by [`Admin::watch`].
#[must_use = "it watches the queue until it is dropped: keep it in a variable"]
pub struct QueueWatch {
    subscription: WakeSubscription,
    /// Set if messages of other processes are noticed, too.
    listens: Option<Notifier>,
}

impl QueueWatch {
    /// Waits until a message was enqueued, after the last time that this was awaited. It is a hint, which may come late, get
    /// lost while the server is away, or be for nothing.
    pub async fn woken(&self) {
        if let Some(notifier) = &self.listens {
            notifier.resume_listening();
        }
        self.subscription.notified().await;
    }
}

impl fmt::Debug for QueueWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueueWatch").finish_non_exhaustive()
    }
}
