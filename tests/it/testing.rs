//! The helpers for users' tests, used as they use them.

mod drain;
mod enqueued;
mod parallel;
mod time;
mod waiting;

use pgqrs::{Delivery, Queue, Store};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Email {
    pub(crate) to: String,
}

pub(crate) const EMAILS: Queue<Email> = Queue::new("emails");
pub(crate) const RECEIPTS: Queue<i64> = Queue::new("receipts");

pub(crate) fn email(to: &str) -> Email {
    Email { to: to.to_owned() }
}

pub(crate) async fn store(pool: sqlx::PgPool) -> pgqrs::Result<Store> {
    let store = Store::from(pool);
    store.queue(EMAILS).await?;
    store.queue(RECEIPTS).await?;
    Ok(store)
}

/// A handler that fails without an address.
pub(crate) async fn send(delivery: Delivery<Email>) -> Result<(), String> {
    if delivery.payload().to.is_empty() {
        return Err("no address".to_owned());
    }
    Ok(())
}
