//! A transaction of the application that wakes consumers when it is committed, and that of a handler.

use std::{
    collections::HashSet,
    fmt,
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex, PoisonError},
};

use sqlx::Postgres;
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

use crate::{error::Result, pool::Notifier, queue::QueueName};

/// A transaction on a [`Store`](crate::Store); made by [`Store::begin`](crate::Store::begin).
///
/// It dereferences to sqlx's transaction, so everything that works on that works on it. In addition, its
/// [`commit`](Self::commit) wakes the consumers of the queues that it has sent to; otherwise they find the messages at
/// their next poll.
///
/// Dropped without a commit, it is rolled back.
///
/// # Example
/// ```no_run
/// # async fn example(store: pgqrs::Store) -> Result<(), Box<dyn std::error::Error>> {
/// # let order = 7;
/// let mut tx = store.begin().await?;
/// sqlx::query("update orders set state = 'paid' where id = $1").bind(order).execute(&mut **tx).await?;
/// pgqrs::enqueue().message(&order).to("receipts").execute(&mut tx).await?;
/// tx.commit().await?; // both, or neither; and wakes the consumers of `receipts`
/// # Ok(())
/// # }
/// ```
#[must_use = "a transaction that is not committed is rolled back: call `.commit().await`"]
pub struct Transaction {
    inner: sqlx::Transaction<'static, Postgres>,
    notifier: Notifier,
    payload_limit: usize,
    trace_context: bool,
    sent_to: SentTo,
}

/// The queues that a transaction has sent ready messages to.
#[derive(Debug, Clone, Default)]
pub struct SentTo(Arc<Mutex<HashSet<QueueName>>>);

impl SentTo {
    pub(crate) fn add(&self, queue: QueueName) {
        let mut queues = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        queues.insert(queue);
    }

    fn take(&self) -> HashSet<QueueName> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Transaction {
    pub(crate) fn new(
        inner: sqlx::Transaction<'static, Postgres>,
        notifier: Notifier,
        payload_limit: usize,
        trace_context: bool,
    ) -> Self {
        Self {
            inner,
            notifier,
            payload_limit,
            trace_context,
            sent_to: SentTo::default(),
        }
    }

    pub(crate) fn sent_to(&self) -> SentTo {
        self.sent_to.clone()
    }

    /// Begins another one like this.
    #[cfg(feature = "testing")]
    pub(crate) async fn begin_another(&self) -> Result<Self> {
        let connection = self.notifier.connections().acquire_for_caller().await?;
        let begun = sqlx::Transaction::begin(connection, None).await?;
        let notifier = self.notifier.clone();
        Ok(Self::new(
            begun,
            notifier,
            self.payload_limit,
            self.trace_context,
        ))
    }

    pub(crate) fn payload_limit(&self) -> usize {
        self.payload_limit
    }

    pub(crate) fn trace_context(&self) -> bool {
        self.trace_context
    }

    /// Commits, and wakes consumers: those of this process directly, others by NOTIFY, which is sent after the commit.
    ///
    /// # Errors
    /// [`Error::ConnectionLost`](crate::Error::ConnectionLost) if the connection broke: then the transaction was
    /// committed, or it was not. [`Error::Database`](crate::Error::Database), such as for a deferred constraint.
    pub async fn commit(self) -> Result<()> {
        self.inner.commit().await?;
        for queue in self.sent_to.take() {
            self.notifier.wake(&queue);
        }
        Ok(())
    }

    /// Rolls the transaction back.
    ///
    /// # Errors
    /// [`Error::ConnectionLost`](crate::Error::ConnectionLost); it is rolled back all the same.
    pub async fn rollback(self) -> Result<()> {
        Ok(self.inner.rollback().await?)
    }
}

impl Deref for Transaction {
    type Target = sqlx::Transaction<'static, Postgres>;

    fn deref(&self) -> &Self::Target {
        &self.inner
    }
}

impl DerefMut for Transaction {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.inner
    }
}

impl fmt::Debug for Transaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transaction")
            .field("sent_to", &self.sent_to)
            .finish_non_exhaustive()
    }
}

/// The transaction that a handler works in; made by
/// [`run_in_transaction`](crate::Consumer::run_in_transaction), which commits it after the handler.
///
/// It dereferences to sqlx's transaction, so everything that works on that works on it. The handler can't commit it:
///
/// ```compile_fail,E0507
/// # async fn example(tx: pgqrs::HandlerTransaction) {
/// tx.commit().await; // it is committed together with the acknowledgement
/// # }
/// ```
pub struct HandlerTransaction(OwnedMutexGuard<Transaction>);

/// A transaction that a handler uses, and that is committed after it.
pub(crate) struct UsedByHandler(Arc<AsyncMutex<Transaction>>);

impl UsedByHandler {
    pub(crate) async fn new(tx: Transaction) -> (Self, HandlerTransaction) {
        let tx = Arc::new(AsyncMutex::new(tx));
        let guard = HandlerTransaction(Arc::clone(&tx).lock_owned().await);
        (Self(tx), guard)
    }

    /// Returns it; `None` if the handler has kept it: then it can only be rolled back.
    pub(crate) fn into_inner(self) -> Option<Transaction> {
        Arc::into_inner(self.0).map(AsyncMutex::into_inner)
    }
}

impl HandlerTransaction {
    pub(crate) fn sent_to(&self) -> SentTo {
        self.0.sent_to()
    }

    pub(crate) fn payload_limit(&self) -> usize {
        self.0.payload_limit()
    }

    pub(crate) fn trace_context(&self) -> bool {
        self.0.trace_context()
    }
}

impl Deref for HandlerTransaction {
    type Target = sqlx::Transaction<'static, Postgres>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl DerefMut for HandlerTransaction {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

impl fmt::Debug for HandlerTransaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandlerTransaction").finish_non_exhaustive()
    }
}
