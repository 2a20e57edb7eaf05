//! What a verb's `.execute(..)` runs on, and the future that it returns.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use sqlx::{PgConnection, PgPool, Postgres, Transaction, pool::PoolConnection};

use crate::{
    error::Result,
    pool,
    store::Store,
    transaction::{HandlerTransaction, SentTo, Transaction as StoreTransaction},
};

mod sealed {
    use std::{future::Future, ops::DerefMut};

    use super::{PgConnection, Result, Store};
    use crate::{store::PAYLOAD_LIMIT, transaction::SentTo};

    #[diagnostic::on_unimplemented(
        message = "`Executor` can't be implemented outside of pgqrs",
        label = "a pgqrs call runs on PostgreSQL's own connections",
        note = "pass `&store`, `&pool`, `&mut connection` or `&mut transaction` to `.execute(..)`"
    )]
    pub trait Acquire: Send {
        type Connection: DerefMut<Target = PgConnection> + Send;

        fn acquire(self) -> impl Future<Output = Result<Self::Connection>> + Send;

        /// Maximum size of one payload, in bytes.
        fn payload_limit(&self) -> usize {
            PAYLOAD_LIMIT
        }

        /// Whether messages carry the trace context of their sender. Without options that say so, they do.
        fn trace_context(&self) -> bool {
            true
        }

        /// Where to record the queues whose consumers the commit wakes.
        fn sent_to(&self) -> Option<SentTo> {
            None
        }

        /// The store, if this is one: then what a call has changed is durable when it returns, and consumers can be
        /// woken.
        fn store(&self) -> Option<Store> {
            None
        }
    }
}

pub(crate) use sealed::Acquire;

/// Runs one statement on an executor.
pub(crate) async fn run<T>(
    on: impl Executor,
    statement: impl AsyncFnOnce(&mut PgConnection) -> Result<T>,
) -> Result<T> {
    match on.store() {
        Some(store) => store.run(statement).await,
        // The caller's own connection, so the time-outs are the caller's, too.
        None => statement(&mut *on.acquire().await?).await,
    }
}

/// What a verb runs on: a connection of the store, or a connection or transaction of the caller's.
///
/// Implemented for `&Store`, `&PgPool`, `&mut PgConnection`, `&mut PoolConnection`, sqlx's `&mut Transaction`, and the
/// store's own [`Transaction`](crate::Transaction) and [`HandlerTransaction`]. Messages that are enqueued in a transaction are invisible until the
/// caller commits it, and discarded if it is rolled back.
// No lifetime parameter: with one, `tokio::spawn` around a call fails with "not general enough".
#[diagnostic::on_unimplemented(
    message = "a pgqrs call can't run on `{Self}`",
    label = "expected `&store`, `&pool`, `&mut connection` or `&mut transaction`",
    note = "pass a reference: `&store`, or `&mut tx` to take part in your own transaction",
    note = "if it is a connection or a transaction already, it may be of another version of sqlx: use that of `pgqrs::sqlx`"
)]
pub trait Executor: sealed::Acquire {}

#[diagnostic::do_not_recommend]
impl Executor for &Store {}
#[diagnostic::do_not_recommend]
impl Executor for &Arc<Store> {}
#[diagnostic::do_not_recommend]
impl Executor for &PgPool {}
#[diagnostic::do_not_recommend]
impl Executor for &mut StoreTransaction {}
#[diagnostic::do_not_recommend]
impl Executor for &mut HandlerTransaction {}
#[diagnostic::do_not_recommend]
impl Executor for &mut PgConnection {}
#[diagnostic::do_not_recommend]
impl Executor for &mut PoolConnection<Postgres> {}
#[diagnostic::do_not_recommend]
impl Executor for &mut Transaction<'_, Postgres> {}

#[diagnostic::do_not_recommend]
impl Acquire for &Store {
    type Connection = PoolConnection<Postgres>;

    async fn acquire(self) -> Result<Self::Connection> {
        pool::acquire(self.pool()).await
    }

    fn payload_limit(&self) -> usize {
        Store::payload_limit(self)
    }

    fn trace_context(&self) -> bool {
        Store::trace_context(self)
    }

    fn store(&self) -> Option<Store> {
        Some((*self).clone())
    }
}

/// A store is shared already, but an application may keep it in another `Arc`.
#[diagnostic::do_not_recommend]
impl Acquire for &Arc<Store> {
    type Connection = PoolConnection<Postgres>;

    async fn acquire(self) -> Result<Self::Connection> {
        Acquire::acquire(&**self).await
    }

    fn payload_limit(&self) -> usize {
        Store::payload_limit(self)
    }

    fn trace_context(&self) -> bool {
        Store::trace_context(self)
    }

    fn store(&self) -> Option<Store> {
        Some(Store::clone(self))
    }
}

#[diagnostic::do_not_recommend]
impl Acquire for &PgPool {
    type Connection = PoolConnection<Postgres>;

    async fn acquire(self) -> Result<Self::Connection> {
        pool::acquire(self).await
    }
}

#[diagnostic::do_not_recommend]
impl<'c> Acquire for &'c mut StoreTransaction {
    type Connection = &'c mut PgConnection;

    async fn acquire(self) -> Result<Self::Connection> {
        Ok(&mut ***self)
    }

    fn payload_limit(&self) -> usize {
        StoreTransaction::payload_limit(self)
    }

    fn trace_context(&self) -> bool {
        StoreTransaction::trace_context(self)
    }

    fn sent_to(&self) -> Option<SentTo> {
        Some(StoreTransaction::sent_to(self))
    }
}

#[diagnostic::do_not_recommend]
impl<'c> Acquire for &'c mut HandlerTransaction {
    type Connection = &'c mut PgConnection;

    async fn acquire(self) -> Result<Self::Connection> {
        Ok(&mut ***self)
    }

    fn payload_limit(&self) -> usize {
        HandlerTransaction::payload_limit(self)
    }

    fn trace_context(&self) -> bool {
        HandlerTransaction::trace_context(self)
    }

    fn sent_to(&self) -> Option<SentTo> {
        Some(HandlerTransaction::sent_to(self))
    }
}

#[diagnostic::do_not_recommend]
impl<'c> Acquire for &'c mut PgConnection {
    type Connection = &'c mut PgConnection;

    async fn acquire(self) -> Result<Self::Connection> {
        Ok(self)
    }
}

#[diagnostic::do_not_recommend]
impl<'c> Acquire for &'c mut PoolConnection<Postgres> {
    type Connection = &'c mut PgConnection;

    async fn acquire(self) -> Result<Self::Connection> {
        Ok(&mut **self)
    }
}

#[diagnostic::do_not_recommend]
impl<'c> Acquire for &'c mut Transaction<'_, Postgres> {
    type Connection = &'c mut PgConnection;

    async fn acquire(self) -> Result<Self::Connection> {
        Ok(&mut **self)
    }
}

/// The future of a verb's `.execute(..)`: boxed, so that it has a name, and `Send`.
#[must_use = "nothing happens until this is awaited: add `.await`"]
pub struct Execute<'c, T>(Pin<Box<dyn Future<Output = T> + Send + 'c>>);

impl<'c, T> Execute<'c, T> {
    pub(crate) fn new(call: impl Future<Output = T> + Send + 'c) -> Self {
        Self(Box::pin(call))
    }
}

impl<T> Future for Execute<'_, T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        self.0.as_mut().poll(context)
    }
}

impl<T> fmt::Debug for Execute<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Execute").finish_non_exhaustive()
    }
}
